"""`lockring certs`, `token` and `acl`: their files, their outputs, and no secret where it does not belong."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from lockring import exits
from lockring.cli.app import main
from lockring.security.acl_file import read_acl
from lockring.security.tokens import hash_of

ROLES = '[[role]]\nname = "jobs"\nrules = ["acquire jobs/*", "deny acquire jobs/x", "read *"]\nlimits = { locks = 5 }\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acl.toml").write_text(ROLES)
    return tmp_path


# ----------------------------------------------------------------------- certs


def test_certificates_are_made_in_a_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["ca"],
        ["server", "localhost", "127.0.0.1"],
        ["client", "web-1"],
        ["node", "n1", "n1.example"],
    ):
        assert main(["certs", *words]) == exits.OK
    assert sorted(path.name for path in (here / "certs").iterdir()) == [
        "ca-key.pem",
        "ca.pem",
        "client-web-1-key.pem",
        "client-web-1.pem",
        "node-n1-key.pem",
        "node-n1.pem",
        "peer-ca-key.pem",
        "peer-ca.pem",
        "server-key.pem",
        "server.pem",
    ]
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "made certs/ca.pem, and its key certs/ca-key.pem"
    assert "PRIVATE" not in out


def test_certificates_are_replaced_only_by_force(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "ca", "--dir", "mine"]) == exits.OK
    before = (here / "mine" / "ca-key.pem").read_bytes()
    assert main(["certs", "ca", "--dir", "mine"]) == exits.USAGE
    assert "mine/ca.pem exists already" in capsys.readouterr().err
    assert (here / "mine" / "ca-key.pem").read_bytes() == before
    assert main(["certs", "ca", "--dir", "mine", "--force", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)[0] == {"cert": "mine/ca.pem", "key": "mine/ca-key.pem"}
    assert (here / "mine" / "ca-key.pem").read_bytes() != before


def test_without_its_package_the_command_says_which_extra_to_install(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "lockring.security.certs", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["certs", "ca"]) == exits.CONFIG
    assert "install lockring[certs]" in capsys.readouterr().err


# ----------------------------------------------------------------------- token


def test_a_token_is_printed_once_with_the_lines_for_the_acl_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "create", "--id", "web-1", "--role", "jobs", "--days", "30"]) == exits.OK
    out, err = capsys.readouterr()
    token = out.strip()
    assert token not in err
    with (here / "acl.toml").open("a") as file:
        file.write(err)
    content = read_acl(here / "acl.toml", wall_s=0)
    entry = content.tokens.check(token, wall_s=0).entry
    assert entry.id == "web-1"
    assert entry.expires_s is not None


def test_a_token_is_added_to_the_acl_file_and_written_where_its_owner_alone_reads(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inode = (here / "acl.toml").stat().st_ino
    words = [
        "token",
        "create",
        "--id",
        "web-1",
        "--role",
        "jobs",
        "--acl-file",
        "acl.toml",
        "--out",
        "web-1.token",
    ]
    assert main(words) == exits.OK
    assert capsys.readouterr() == ("", "")
    token = (here / "web-1.token").read_text().strip()
    assert stat.S_IMODE((here / "web-1.token").stat().st_mode) == 0o600
    assert (here / "acl.toml").stat().st_ino == inode, "owner and mode of the file stay"
    assert token not in (here / "acl.toml").read_text()
    assert read_acl(here / "acl.toml", wall_s=0).tokens.check(token, wall_s=10**10).entry.expires_s is None


def test_as_json_a_token_is_an_object(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "create", "--id", "w", "--role", "a", "--role", "b", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert found["sha256"] == hash_of(found["token"]).hex()
    assert (found["id"], found["roles"], found["expires"]) == ("w", ["a", "b"], None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--id", "a b"], "invalid token id 'a b'"),
        (["--days", "0"], "--days: expected a whole number from 1"),
        (["--role", "nope"], "acl.toml, line 9: [token] roles: there is no role 'nope'"),
        (["--id", "there"], "acl.toml has a token 'there' already"),
        (["--out", "taken"], "taken exists already"),
    ],
)
def test_a_wrong_argument_changes_no_file(
    here: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    (here / "taken").write_text("x")
    assert main(["token", "create", "--id", "there", "--role", "jobs", "--acl-file", "acl.toml"]) == exits.OK
    before = {path: path.read_bytes() for path in here.iterdir()}
    if "--role" in more:
        (here / "acl.toml").write_text(ROLES)
        before[here / "acl.toml"] = ROLES.encode()
    capsys.readouterr()
    words = ["token", "create", "--id", "new", "--role", "jobs", "--acl-file", "acl.toml", *more]
    assert main(words) == exits.USAGE
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "lr_" not in err
    assert {path: path.read_bytes() for path in here.iterdir()} == before


# ----------------------------------------------------------------------- acl


def test_a_valid_file_is_counted_and_remarked_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acl", "check", "acl.toml"]) == exits.OK
    assert capsys.readouterr().out.splitlines() == [
        "acl.toml is valid: 1 role, 0 tokens, 0 other identities",
        "remark: no identity has the role 'jobs'",
    ]
    assert main(["acl", "check", "acl.toml", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out) == {
        "file": "acl.toml",
        "valid": True,
        "remarks": ["no identity has the role 'jobs'"],
        "roles": 1,
        "tokens": 0,
        "others": 0,
    }


def test_a_malformed_file_is_named_with_its_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "acl.toml").write_text(ROLES.replace("acquire", "take"))
    assert main(["acl", "check", "acl.toml"]) == exits.USAGE
    assert "acl.toml, line 3: [role] rules: there is no right 'take'" in capsys.readouterr().err


BOUND = """
[[certificate]]
san = "spiffe://prod/*"
roles = ["jobs"]
[[jwt]]
claims = { sub = "worker", "kubernetes.io/namespace" = "prod" }
roles = ["jobs"]
[[token]]
id = "late"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
roles = ["jobs"]
expires = 2020-01-01T00:00:00Z
[[token]]
id = "web-1"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
roles = ["jobs"]
"""


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (
            ["web-1", "acquire", "jobs/7"],
            "yes: token web-1 may acquire 'jobs/7': the rule \"acquire jobs/*\"",
            0,
        ),
        (
            ["token:web-1", "read", "x"],
            "yes: token web-1 may read 'x': the rule \"read *\" of the role 'jobs'",
            0,
        ),
        (
            ["web-1", "acquire", "jobs/x"],
            "no: token web-1 may not acquire 'jobs/x': the rule \"deny acquire jobs/x\"",
            77,
        ),
        (["web-1", "acquire", "web/7"], 'its roles (jobs) have no rule "acquire web/7"', 77),
        (["web-1", "admin"], 'no: token web-1 may not admin: its roles (jobs) have no rule "admin"', 77),
        (["web-1", "drain", "n1"], 'have no rule "drain n1"', 77),
        (["late", "read", "x"], "but the token has expired", 77),
        (["certificate:spiffe://prod/w", "read", "x"], "yes: certificate spiffe://prod/w may read 'x'", 0),
        (
            ["certificate:spiffe://test/w", "read", "x"],
            'it has no role that allows anything, and so no rule "read x"',
            77,
        ),
        (["jwt:worker", "read", "x"], "no: jwt worker may not read 'x'", 77),
        (
            ["jwt:worker", "read", "x", "--claim", "kubernetes.io/namespace=prod"],
            "yes: jwt worker may read 'x'",
            0,
        ),
        (["anonymous", "read", "x"], "no: a client without credentials may not read 'x'", 77),
    ],
)
def test_a_decision_is_explained(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str, code: int
) -> None:
    (here / "acl.toml").write_text(ROLES + BOUND)
    assert main(["acl", "explain", "--acl-file", "acl.toml", "--as", *words]) == code
    out, err = capsys.readouterr()
    assert said in " ".join(out.split())
    assert err == ""
    assert ("limits at each server: locks = 5" in out) == (code == 0)


def test_a_decision_is_explained_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "acl.toml").write_text(ROLES + BOUND)
    words = ["acl", "explain", "--acl-file", "acl.toml", "--as", "web-1", "acquire", "jobs/x", "--json"]
    assert main(words) == exits.DENIED
    found = json.loads(capsys.readouterr().out)
    assert found["allowed"] is False
    assert (found["rule"], found["role"], found["roles"]) == ("deny acquire jobs/x", "jobs", ["jobs"])
    assert found["limits"]["locks"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody", "read", "x"], "has no token 'nobody'; write certificate:NAME or jwt:SUBJECT"),
        (["web-1", "write", "x"], "there is no right 'write'"),
        (["web-1", "read"], "read is about a name; add one"),
        (["web-1", "admin", "x"], "admin is not about a name"),
        (["web-1", "drain", "a/b"], "invalid node id"),
        (["jwt:w", "read", "x", "--claim", "a"], "--claim: expected NAME=VALUE"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (here / "acl.toml").write_text(ROLES + BOUND)
    assert main(["acl", "explain", "--acl-file", "acl.toml", "--as", *words]) == exits.USAGE
    assert said in capsys.readouterr().err
