"""`lockring token create`: a token for a client, and what the ACL file needs to know of it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from lockring.cli.output import print_json
from lockring.clock import wall_ns
from lockring.errors import ConfigError, InvalidRequest
from lockring.exits import OK
from lockring.native import to_native
from lockring.security.acl_file import AclContent, parse_acl, read_acl_bytes
from lockring.security.tokens import check_token_id, hash_of, new_token
from lockring.security.whole_files import PRIVATE, write_whole
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S

_DAYS_MAX: Final = 36_500


@click.group()
def token() -> None:
    """Make tokens, by which clients prove who they are."""


@token.command("create")
@click.option("--id", "token_id", metavar="ID", required=True, help="Its id, which logs show.")
@click.option(
    "--role",
    "roles",
    metavar="NAME",
    multiple=True,
    required=True,
    help="A role of the ACL file; may be repeated.",
)
@click.option("--days", type=int, metavar="N", help="How long it is valid; without end if it is left out.")
@click.option("--acl-file", metavar="FILE", help="Add the token to this ACL file.")
@click.option("--out", metavar="FILE", help="Write the token to this file, which its owner alone may read.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")
def create(
    token_id: str,
    roles: tuple[str, ...],
    days: int | None,
    acl_file: str | None,
    out: str | None,
    as_json: bool,
) -> int:
    """Draw a token, and print it once: no server can show it again, since they keep its SHA-256 alone.

    Without --acl-file, the lines for the ACL file are printed too, on standard error.
    """
    check_token_id(token_id)
    expires = _end(days)
    secret = new_token(token_id)
    lines = _entry(token_id, secret, roles, expires)
    addition = b"" if acl_file is None else _addition(Path(to_native(acl_file)), lines, token_id)
    if out is not None:
        write_whole(Path(to_native(out)), f"{secret}\n".encode(), mode=PRIVATE, replace=False)
    if acl_file is not None:
        _append(Path(to_native(acl_file)), addition)
    if as_json:
        facts: dict[str, Any] = {"id": token_id, "sha256": hash_of(secret).hex(), "roles": list(roles)}
        facts |= {"expires": None if expires is None else expires.isoformat(), "acl_file": acl_file}
        print_json(facts | ({"token": secret} if out is None else {"file": out}))
        return OK
    if acl_file is None:
        print(lines, end="", file=sys.stderr, flush=True)
    if out is None:
        print(secret, flush=True)
    return OK


def _end(days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= _DAYS_MAX:
        raise InvalidRequest(f"--days: expected a whole number from 1 to {_DAYS_MAX}, got {days}")
    return datetime.fromtimestamp(wall_ns() // NS_PER_S, UTC) + timedelta(days=days)


def _entry(token_id: str, secret: str, roles: tuple[str, ...], expires: datetime | None) -> str:
    """Return the lines of the ACL file for a token."""
    names = ", ".join(_quoted(each) for each in roles)
    lines = [
        "[[token]]",
        f'id = "{token_id}"',
        f'sha256 = "{hash_of(secret).hex()}"',
        f"roles = [{names}]",
    ]
    if expires is not None:
        lines.append(f"expires = {expires.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _addition(path: Path, lines: str, token_id: str) -> bytes:
    """Return what to append to an ACL file for a token, unless the file would not be valid then."""
    data = read_acl_bytes(path)
    if token_id in _parsed(data, path).tokens.by_id:
        raise InvalidRequest(
            f"{path} has a token {token_id!r} already; choose another --id, or leave out --acl-file and add the new sha256"
            " to a list beside the old one"
        )
    glue = b"" if not data or data.endswith(b"\n\n") else b"\n" if data.endswith(b"\n") else b"\n\n"
    addition = glue + lines.encode()
    try:
        _parsed(data + addition, path)
    except ConfigError as error:
        raise InvalidRequest(
            f"no token was made, since the file would not be valid with it: {error}"
        ) from None
    return addition


def _append(path: Path, addition: bytes) -> None:
    """Append in one write, so that a server finds all of it or none. Owner and mode of the file stay."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(addition)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be written, so no server knows the token: {reason_of(error)}"
        ) from error


def _parsed(data: bytes, path: Path) -> AclContent:
    return parse_acl(data, str(path), wall_s=wall_ns() / NS_PER_S)
