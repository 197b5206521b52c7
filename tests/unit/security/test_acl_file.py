"""An ACL file is used whole or not at all; an error names the line, the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.core.access import Limits, Verb
from lockring.errors import ConfigError
from lockring.protocol.identities import ANONYMOUS, Claim, Identity
from lockring.security.acl_file import AclContent, parse_acl, read_acl
from lockring.security.tokens import hash_of

TOKEN = "lr_web-1_" + "A" * 43  # the same in every process that collects the tests
HASH = hash_of(TOKEN).hex()
NOW_S = 1_800_000_000.0
GOOD = f"""\
[[role]]
name = "jobs"
rules = ["acquire jobs/*", "read *", "deny read secret/*"]
limits = {{ sessions = 50, locks = 10000, waiters = 1000, requests_per_s = 500 }}

[[role]]
name = "reader"
rules = ["read *", "watch"]

[[token]]
id = "web-1"
sha256 = "{HASH}"
roles = ["jobs"]
expires = 2099-01-01T00:00:00Z

[[certificate]]
san = "spiffe://prod/ns/jobs/*"
roles = ["jobs", "reader"]

[[jwt]]
claims = {{ sub = "system:serviceaccount:prod:worker", "kubernetes.io/namespace" = "prod" }}
roles = ["reader"]

[anonymous]
roles = ["reader"]
"""


def parse(text: str) -> AclContent:
    return parse_acl(text.encode(), "acl.toml", wall_s=NOW_S)


def said(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_a_file_says_which_identity_has_which_roles() -> None:
    policy = parse(GOOD).policy
    assert policy.roles_of(Identity("token", "web-1")) == ("jobs",)
    assert policy.roles_of(Identity("token", "web-2")) == ()
    worker = Identity("certificate", "x", (Claim("san", "spiffe://prod/ns/jobs/sa/worker"),))
    assert policy.roles_of(worker) == ("jobs", "reader")
    assert policy.roles_of(ANONYMOUS) == ("reader",)
    subject, namespace = (
        Claim("sub", "system:serviceaccount:prod:worker"),
        Claim("kubernetes.io/namespace", "prod"),
    )
    assert policy.roles_of(Identity("jwt", "x", (subject, namespace))) == ("reader",)
    assert policy.roles_of(Identity("jwt", "x", (subject,))) == ()
    assert policy.roles_of(Identity("node", "n1")) == ()


def test_a_role_has_its_rules_and_limits() -> None:
    permissions = parse(GOOD).policy.permissions_of(Identity("token", "web-1"))
    assert permissions.limits == Limits(50, 10_000, 1_000, 500)
    assert permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert not permissions.allows(Verb.READ, "secret/x")


def test_a_token_has_its_hash_and_its_end() -> None:
    tokens = parse(GOOD).tokens
    assert tokens.check(TOKEN, wall_s=NOW_S).entry.expires_s == 4_070_908_800.0
    both = parse(GOOD.replace(f'"{HASH}"', f'["{"0" * 64}", "{HASH}"]')).tokens
    assert both.check(TOKEN, wall_s=NOW_S).entry.hashes == (bytes(32), hash_of(TOKEN))


def test_an_empty_file_allows_nothing() -> None:
    content = parse("")
    assert content.policy.roles_of(ANONYMOUS) == ()
    assert content.remarks == ()


def test_the_edition_changes_with_the_content() -> None:
    assert parse(GOOD).edition == parse(GOOD).edition
    assert parse(GOOD).edition != parse(GOOD + "\n").edition


def test_what_is_probably_not_meant_is_remarked_on() -> None:
    text = GOOD.replace("2099", "2020").replace('[anonymous]\nroles = ["reader"]', "")
    text += '\n[[role]]\nname = "idle"\nrules = []\n'
    assert parse(text).remarks == (
        "no identity has the role 'idle'",
        "the role 'idle' has no rules",
        "the token 'web-1' has expired",
    )
    assert parse(GOOD).remarks == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[[token]]",
            "[[tokens]]",
            "acl.toml, line 10: [tokens]: there is no table 'tokens'; did you mean 'token'?",
        ),
        ("[[token]]", "[token]", "acl.toml, line 10: [token]: write [[token]] above each of them"),
        ("[anonymous]", "[[anonymous]]", "acl.toml, line 24: [anonymous]: write [anonymous] above its keys"),
        ("sha256 =", "sha265 =", "line 12: [token] sha265: there is no such key; did you mean 'sha256'?"),
        ('name = "jobs"', 'name = "reader"', "line 7: [role] name: 'reader' is there twice"),
        ('name = "jobs"\n', "", "line 1: [role]: name is missing"),
        ('name = "jobs"', "name = 7", "line 2: [role] name: expected text, got 7"),
        (
            '"acquire jobs/*"',
            '"write jobs/*"',
            "line 3: [role] rules: there is no right 'write'; the rights are read",
        ),
        ('["read *", "watch"]', '"read *"', "line 8: [role] rules: expected a list of texts, got 'read *'"),
        (
            "locks = 10000",
            "lock = 1",
            "line 4: [role] limits: there is no limit 'lock'; did you mean 'locks'?",
        ),
        (
            "locks = 10000",
            "locks = -1",
            "limits: locks: expected a whole number from 0 to 1000000000, got -1",
        ),
        ("locks = 10000", "locks = true", "limits: locks: expected a whole number from 0"),
        ("requests_per_s = 500", "requests_per_s = 0", "requests_per_s: expected a whole number from 1"),
        ("{ sessions", "[] # { sessions", "line 4: [role] limits: expected a table"),
        ('id = "web-1"', 'id = "a b"', "line 11: [token] id: invalid token id 'a b'"),
        (HASH, HASH[:-1], "line 12: [token] sha256: a SHA-256 is written as 64 digits"),
        (f'"{HASH}"', "[]", "line 12: [token] sha256: expected 1 to 4 of them, got 0"),
        (
            'roles = ["jobs"]',
            'roles = ["job"]',
            "line 13: [token] roles: there is no role 'job'; did you mean 'jobs'?",
        ),
        ("00:00Z", "00:00", "line 14: [token] expires: expected a time with its offset"),
        ("2099-01-01T00:00:00Z", '"never"', "line 14: [token] expires: expected a time with its offset"),
        (
            "ns/jobs/*",
            "ns/*/jobs",
            "line 17: [certificate] san: 'spiffe://prod/ns/*/jobs' has a '*' before the end",
        ),
        ("claims = {", "claims = {} # {", "line 21: [jwt] claims: expected a table with at least one claim"),
        ('[anonymous]\nroles = ["reader"]', "[anonymous]", "line 24: [anonymous]: roles is missing"),
        (
            "[[role]]",
            "mode = 1\n[[role]]",
            "acl.toml, line 1: mode: there is no table 'mode'; the tables are role, token",
        ),
        ("[[role]]", "[[role", "acl.toml: is not valid TOML: "),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in said(GOOD.replace(old, new, 1))


def test_a_token_that_is_there_twice_is_refused() -> None:
    twice = GOOD + f'\n[[token]]\nid = "web-1"\nsha256 = "{HASH}"\nroles = []\n'
    assert "line 28: [token] id: 'web-1' is there twice; give sha256 a list" in said(twice)


def test_a_place_that_is_not_found_leaves_the_file(tmp_path: Path) -> None:
    assert (
        said('role = [{ name = "x", rules = 7 }]')
        == "acl.toml: [role] rules: expected a list of texts, got 7"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read: no such file"):
        read_acl(tmp_path / "no.toml", wall_s=NOW_S)
    (tmp_path / "latin").write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_acl(tmp_path / "latin", wall_s=NOW_S)
    (tmp_path / "long").write_bytes(b"#" * (9 << 20))
    with pytest.raises(ConfigError, match="is longer than 8 MiB"):
        read_acl(tmp_path / "long", wall_s=NOW_S)


def test_too_many_rules_are_refused() -> None:
    rules = ", ".join(['"read a"'] * 100_001)
    assert "has more than 100000 rules" in said(f'[[role]]\nname = "x"\nrules = [{rules}]\n')
