"""The ACL file: roles, and the identities that have them.

    [[role]]
    name = "jobs"
    rules = ["acquire jobs/*", "read *", "deny read secret/*"]
    limits = { sessions = 50, locks = 10000, waiters = 1000, requests_per_s = 500 }

    [[token]]
    id = "web-1"
    sha256 = "…"
    roles = ["jobs"]
    expires = 2027-01-01T00:00:00Z

    [[certificate]]
    san = "spiffe://prod/ns/jobs/sa/worker"
    roles = ["jobs"]

    [[jwt]]
    claims = { sub = "system:serviceaccount:prod:worker" }
    roles = ["jobs"]

    [anonymous]
    roles = ["reader"]

A file is used whole or not at all. An error names the file, the line, the key, and what to do.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from lockring.core.access import AccessPolicy, AccessRole, Assignee, ClaimPattern, Limits, parse_rule
from lockring.errors import ConfigError, InvalidRequest
from lockring.protocol.identities import ANONYMOUS, SAN
from lockring.security.tokens import TokenBook, TokenEntry, check_token_id, parse_hash
from lockring.security.toml_places import TomlPlaces
from lockring.system_errors import reason_of

FILE_BYTES_MAX: Final = 8 * 1024 * 1024
RULES_MAX: Final = 100_000
"""Rules of all roles together."""

LIMIT_MAX: Final = 1_000_000_000
HASHES_MAX: Final = 4
"""Hashes of one token: two are enough to replace it without a gap."""

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "role": ("name", "rules", "limits"),
    "token": ("id", "sha256", "roles", "expires"),
    "certificate": ("san", "roles"),
    "jwt": ("claims", "roles"),
    "anonymous": ("roles",),
}
_SINGLE: Final = frozenset({"anonymous"})
_T = TypeVar("_T")


class AclContent(NamedTuple):
    """The content of an ACL file.

    Attributes:
        policy: roles, and which identities have which.
        tokens: the tokens.
        edition: changes with the content.
        remarks: sentences about what is allowed, and probably not meant.
    """

    policy: AccessPolicy
    tokens: TokenBook
    edition: str
    remarks: tuple[str, ...]


def read_acl(path: Path, *, wall_s: float) -> AclContent:
    """Read an ACL file.

    Args:
        path: of the file.
        wall_s: the time in seconds since 1970, for remarks about expired tokens.

    Raises:
        ConfigError: it cannot be read, or is malformed.
    """
    return parse_acl(read_acl_bytes(path), str(path), wall_s=wall_s)


def read_acl_bytes(path: Path) -> bytes:
    """Return the bytes of an ACL file.

    Raises:
        ConfigError: it cannot be read, or is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(
            f"{path} is longer than {FILE_BYTES_MAX // 2**20} MiB; use prefixes instead of single names"
        )
    return data


def parse_acl(data: bytes, path: str, *, wall_s: float) -> AclContent:
    """Return the content of an ACL file whose bytes were read.

    Raises:
        ConfigError: it is malformed.
    """
    try:
        text = data.decode("utf-8")
        tables = tomllib.loads(text)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    return _Reader(path, text, tables).content(hashlib.sha256(data).hexdigest(), wall_s)


class _Reader:
    """Reads the tables of one file."""

    def __init__(self, path: str, text: str, tables: Mapping[str, Any]) -> None:
        self._path = path
        self._tables = tables
        self._places = TomlPlaces(path, text)
        for name, value in tables.items():
            if name not in _KEYS:
                place = (
                    self._places.of(name) if isinstance(value, (dict, list)) else self._places.of("", 0, name)
                )
                hint = _meant(name, _KEYS, "the tables are " + ", ".join(_KEYS))
                raise ConfigError(f"{place}: there is no table {name!r}; {hint}")
        self._roles: dict[str, AccessRole] = {}

    def content(self, edition: str, wall_s: float) -> AclContent:
        for index, table in enumerate(self._all("role")):
            self._read_role(index, table)
        if sum(len(each.rules) for each in self._roles.values()) > RULES_MAX:
            raise ConfigError(
                f"{self._path}: has more than {RULES_MAX} rules; use prefixes instead of single names"
            )
        assignees: list[Assignee] = []
        tokens: dict[str, TokenEntry] = {}
        for index, table in enumerate(self._all("token")):
            entry = self._token(index, table)
            if entry.id in tokens:
                self._fail(
                    "token",
                    index,
                    "id",
                    f"{entry.id!r} is there twice; give sha256 a list to accept two secrets",
                )
            tokens[entry.id] = entry
            assignees.append(Assignee("token", entry.id, (), self._roles_of("token", index, table)))
        for index, table in enumerate(self._all("certificate")):
            claims = (
                self._pattern(
                    "certificate", index, "san", SAN, self._get("certificate", index, table, "san")
                ),
            )
            assignees.append(Assignee("certificate", "", claims, self._roles_of("certificate", index, table)))
        for index, table in enumerate(self._all("jwt")):
            assignees.append(
                Assignee("jwt", "", self._claims(index, table), self._roles_of("jwt", index, table))
            )
        for index, table in enumerate(self._all("anonymous")):
            assignees.append(Assignee("none", ANONYMOUS.name, (), self._roles_of("anonymous", index, table)))
        remarks = _remarks(self._roles, assignees, tokens.values(), wall_s)
        return AclContent(AccessPolicy(self._roles, assignees), TokenBook(tokens.values()), edition, remarks)

    def _all(self, name: str) -> list[dict[str, Any]]:
        """Return the tables of a name, checked for unknown keys."""
        found = self._tables.get(name, [])
        if name in _SINGLE:
            if not isinstance(found, (dict, list)) or (isinstance(found, list) and found):
                raise ConfigError(f"{self._places.of(name)}: write [{name}] above its keys")
            found = [found] if isinstance(found, dict) else []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ConfigError(
                f"{self._places.of(name)}: write [[{name}]] above each of them, with two brackets"
            )
        for index, table in enumerate(found):
            for key in table:
                if key not in _KEYS[name]:
                    hint = _meant(key, _KEYS[name], f"[[{name}]] has " + ", ".join(_KEYS[name]))
                    self._fail(name, index, key, f"there is no such key; {hint}")
        return found

    def _read_role(self, index: int, table: Mapping[str, Any]) -> None:
        name = self._text("role", index, "name", self._get("role", index, table, "name"))
        if name in self._roles:
            self._fail("role", index, "name", f"{name!r} is there twice; put all of its rules into one")
        texts = self._texts("role", index, "rules", self._get("role", index, table, "rules"))
        parse = functools.partial(parse_rule, role=name)
        rules = tuple(self._checked("role", index, "rules", parse, text) for text in texts)
        self._roles[name] = AccessRole(name, rules, self._limits(index, table.get("limits", {})))

    def _limits(self, index: int, given: object) -> Limits:
        if not isinstance(given, dict):
            self._fail(
                "role", index, "limits", "expected a table, such as { locks = 10000, requests_per_s = 500 }"
            )
        for key, value in given.items():
            if key not in Limits._fields:
                hint = _meant(key, Limits._fields, "there are " + ", ".join(Limits._fields))
                self._fail("role", index, "limits", f"there is no limit {key!r}; {hint}")
            least = 1 if key == "requests_per_s" else 0
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LIMIT_MAX:
                self._fail(
                    "role",
                    index,
                    "limits",
                    f"{key}: expected a whole number from {least} to {LIMIT_MAX}, got {_shown(value)}",
                )
        return Limits(**given)

    def _token(self, index: int, table: Mapping[str, Any]) -> TokenEntry:
        text = self._text("token", index, "id", self._get("token", index, table, "id"))
        token_id = self._checked("token", index, "id", check_token_id, text)
        given = self._get("token", index, table, "sha256")
        texts = [given] if isinstance(given, str) else self._texts("token", index, "sha256", given)
        if not 1 <= len(texts) <= HASHES_MAX:
            self._fail("token", index, "sha256", f"expected 1 to {HASHES_MAX} of them, got {len(texts)}")
        hashes = tuple(self._checked("token", index, "sha256", parse_hash, each) for each in texts)
        return TokenEntry(token_id, hashes, self._expires(index, table.get("expires")))

    def _expires(self, index: int, given: object) -> float | None:
        if given is None:
            return None
        if not isinstance(given, datetime) or given.tzinfo is None:
            self._fail(
                "token", index, "expires", "expected a time with its offset, such as 2027-01-01T00:00:00Z"
            )
        return given.timestamp()

    def _claims(self, index: int, table: Mapping[str, Any]) -> tuple[ClaimPattern, ...]:
        given = self._get("jwt", index, table, "claims")
        if not isinstance(given, dict) or not given:
            self._fail(
                "jwt", index, "claims", 'expected a table with at least one claim, such as { sub = "…" }'
            )
        return tuple(self._pattern("jwt", index, "claims", name, value) for name, value in given.items())

    def _pattern(self, table: str, index: int, key: str, claim: str, value: object) -> ClaimPattern:
        text = self._text(table, index, key, value)
        is_prefix = text.endswith("*")
        pattern = text.removesuffix("*")
        if "*" in pattern:
            self._fail(table, index, key, f"{text!r} has a '*' before the end; it stands for any end")
        return ClaimPattern(claim, pattern, is_prefix)

    def _roles_of(self, table: str, index: int, values: Mapping[str, Any]) -> tuple[str, ...]:
        names = self._texts(table, index, "roles", self._get(table, index, values, "roles"))
        for name in names:
            if name not in self._roles:
                hint = _meant(name, self._roles, "there are " + (", ".join(self._roles) or "none"))
                self._fail(table, index, "roles", f"there is no role {name!r}; {hint}")
        return tuple(names)

    def _get(self, table: str, index: int, values: Mapping[str, Any], key: str) -> object:
        if key not in values:
            self._fail(table, index, "", f"{key} is missing")
        return values[key]

    def _text(self, table: str, index: int, key: str, value: object) -> str:
        if not isinstance(value, str) or not value:
            self._fail(table, index, key, f"expected text, got {_shown(value)}")
        return value

    def _texts(self, table: str, index: int, key: str, value: object) -> list[str]:
        if not isinstance(value, list):
            self._fail(table, index, key, f"expected a list of texts, got {_shown(value)}")
        return [self._text(table, index, key, each) for each in value]

    def _checked(self, table: str, index: int, key: str, check: Callable[[str], _T], value: str) -> _T:
        try:
            return check(value)
        except InvalidRequest as error:
            self._fail(table, index, key, str(error))

    def _fail(self, table: str, index: int, key: str, text: str) -> NoReturn:
        raise ConfigError(f"{self._places.of(table, index, key)}: {text}")


def _remarks(
    roles: Mapping[str, AccessRole],
    assignees: Iterable[Assignee],
    tokens: Iterable[TokenEntry],
    wall_s: float,
) -> tuple[str, ...]:
    used = {name for each in assignees for name in each.roles}
    found = [f"no identity has the role {name!r}" for name in roles if name not in used]
    found += [f"the role {name!r} has no rules" for name, role in roles.items() if not role.rules]
    found += [
        f"the token {each.id!r} has expired"
        for each in tokens
        if each.expires_s is not None and each.expires_s <= wall_s
    ]
    return tuple(found)


def _meant(word: str, known: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
