"""`lockring acl check` and `explain`: whether an ACL file is valid, and what it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from lockring.cli.output import count, print_json, say
from lockring.clock import wall_ns
from lockring.core.access import Verb, verb_of, why_denied
from lockring.errors import InvalidRequest
from lockring.exits import DENIED, OK
from lockring.names import check_lock_name, check_node_id
from lockring.native import to_native
from lockring.protocol.identities import ANONYMOUS, SAN, Claim, Identity
from lockring.security.acl_file import AclContent, read_acl
from lockring.terminals import shown
from lockring.units import NS_PER_S

_METHODS: Final = ("token", "certificate", "jwt")


@click.group()
def acl() -> None:
    """Check an ACL file, and explain what it allows. No server is asked."""


@acl.command("check")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")
def check(file: str, as_json: bool) -> int:
    """Check whether a server would accept an ACL file, and name what is probably not meant."""
    content = _read(file)
    tokens, others = len(content.tokens.by_id), len(content.policy.assignees) - len(content.tokens.by_id)
    if as_json:
        facts = {"roles": len(content.policy.roles), "tokens": tokens, "others": others}
        print_json({"file": file, "valid": True, "remarks": list(content.remarks)} | facts)
        return OK
    roles = count(len(content.policy.roles), "role")
    say(f"{shown(file)} is valid: {roles}, {count(tokens, 'token')}, {others} other identities")
    for each in content.remarks:
        say(f"remark: {shown(each)}")
    return OK


@acl.command("explain")
@click.option("--acl-file", metavar="FILE", required=True, help="The ACL file.")
@click.option(
    "--as",
    "who",
    metavar="ID",
    required=True,
    help="A token's id, certificate:NAME, jwt:SUBJECT, or anonymous.",
)
@click.option(
    "--claim", "claims", metavar="NAME=VALUE", multiple=True, help="A claim of the JWT; may be repeated."
)
@click.argument("verb", metavar="RIGHT")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")
def explain(
    acl_file: str, who: str, claims: tuple[str, ...], verb: str, name: str | None, as_json: bool
) -> int:
    """Say whether an identity has a right, and by which rule: read, acquire, watch, break, drain or admin."""
    content = _read(acl_file)
    right = verb_of(verb)
    subject = _checked(right, name)
    identity = _identity(content, who, claims)
    permissions = content.policy.permissions_of(identity)
    rule = permissions.rule_for(right, subject)
    is_allowed = permissions.allows(right, subject)
    expired = _expired(content, identity)
    if is_allowed:
        assert rule is not None
        what = f"{right.word} {subject!r}" if subject else right.word
        text = f'{identity} may {what}: the rule "{rule.text}" of the role {rule.role!r} allows it'
    else:
        text = why_denied(identity, permissions, right, subject)
    if expired:
        is_allowed, text = False, f"{text}; but the token has expired"
    if as_json:
        facts: dict[str, Any] = {"allowed": is_allowed, "identity": str(identity), "right": right.word}
        facts |= {"name": subject or None, "roles": list(permissions.roles), "message": text}
        facts |= {"rule": None if rule is None else rule.text, "role": None if rule is None else rule.role}
        print_json(facts | {"limits": permissions.limits._asdict()})
    else:
        say(("yes: " if is_allowed else "no: ") + shown(text))
        limits = ", ".join(
            f"{key} = {value}" for key, value in permissions.limits._asdict().items() if value is not None
        )
        if limits and is_allowed:
            say(f"limits at each server: {limits}")
    return OK if is_allowed else DENIED


def _read(file: str) -> AclContent:
    return read_acl(Path(to_native(file)), wall_s=wall_ns() / NS_PER_S)


def _checked(verb: Verb, name: str | None) -> str:
    """Return the name that a right is about, "" for `admin`."""
    if verb is Verb.ADMIN:
        if name is not None:
            raise InvalidRequest("admin is not about a name; leave it out")
        return ""
    if name is None:
        raise InvalidRequest(
            f"{verb.word} is about a name; add one, such as: lockring acl explain … {verb.word} jobs/7"
        )
    return check_node_id(name) if verb is Verb.DRAIN else check_lock_name(name)


def _identity(content: AclContent, who: str, claims: tuple[str, ...]) -> Identity:
    method, separator, name = who.partition(":")
    if who == ANONYMOUS.name:
        return ANONYMOUS
    if separator and method in _METHODS and name:
        if method == "certificate":
            return Identity("certificate", name, (Claim(SAN, name),))
        if method == "jwt":
            return Identity("jwt", name, (Claim("sub", name), *map(_claim, claims)))
    else:
        name = who
    if name not in content.tokens.by_id:
        raise InvalidRequest(
            f"the ACL file has no token {name!r}; write certificate:NAME or jwt:SUBJECT for another kind of identity"
        )
    return Identity("token", name)


def _claim(text: str) -> Claim:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidRequest(f"--claim: expected NAME=VALUE, got {text!r}")
    return Claim(name, value)


def _expired(content: AclContent, identity: Identity) -> bool:
    entry = content.tokens.by_id.get(identity.name) if identity.method == "token" else None
    return entry is not None and entry.expires_s is not None and entry.expires_s <= wall_ns() / NS_PER_S
