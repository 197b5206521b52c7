"""Credentials become rights, and the rights of open connections follow the ACL file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lockring.core.access import NOTHING, Verb
from lockring.errors import ConfigError, Denied, Overloaded, Unauthenticated
from lockring.protocol.identities import ANONYMOUS, Identity
from lockring.security.access_control import LOOK_NS, AccessControl
from lockring.security.peer_certificates import PeerCertificate, certificate_of
from lockring.security.tokens import hash_of, new_token

NOW_S = 1_800_000_000.0
OLD, NEW = new_token("web-1"), new_token("web-1")
ROLES = """
[[role]]
name = "jobs"
rules = ["acquire jobs/*"]
limits = { locks = 1 }
[[role]]
name = "reader"
rules = ["read *"]
"""
WORKER = PeerCertificate(("spiffe://prod/worker",), (), "worker", "0A", NOW_S + 60, is_server=False)
NODE = PeerCertificate(("urn:lockring:node:n1",), ("n1",), "n1", "0B", NOW_S + 60, is_server=True)


def with_token(*tokens: str, roles: str = '["jobs"]', more: str = "") -> str:
    hashes = ", ".join(f'"{hash_of(each).hex()}"' for each in tokens)
    return f'{ROLES}[[token]]\nid = "web-1"\nsha256 = [{hashes}]\nroles = {roles}\n{more}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "acl.toml"
    path.write_text(with_token(OLD))
    return path


def test_a_token_is_an_identity_with_its_rights(path: Path) -> None:
    grantee = AccessControl(path).admit(None, OLD, wall_s=NOW_S)
    assert grantee.identity == Identity("token", "web-1")
    assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert not grantee.permissions.allows(Verb.READ, "jobs/7")


def test_a_client_with_nothing_is_let_in_only_if_the_file_says_so(path: Path) -> None:
    control = AccessControl(path)
    with pytest.raises(Unauthenticated, match=r"show a token \(--token-file\) or a certificate \(--cert\)"):
        control.admit(None, "", wall_s=NOW_S)
    path.write_text(with_token(OLD, more='[anonymous]\nroles = ["reader"]'))
    control.look()
    grantee = control.admit(None, "", wall_s=NOW_S)
    assert grantee.identity == ANONYMOUS
    assert grantee.permissions.allows(Verb.READ, "x")


def test_a_certificate_is_an_identity_if_it_has_a_role(path: Path) -> None:
    control = AccessControl(path)
    with pytest.raises(Denied, match="certificate spiffe://prod/worker has no role here"):
        control.admit(WORKER, "", wall_s=NOW_S)
    path.write_text(with_token(OLD, more='[[certificate]]\nsan = "spiffe://prod/*"\nroles = ["reader"]'))
    control.look()
    assert control.admit(WORKER, "", wall_s=NOW_S).permissions.allows(Verb.READ, "x")
    with pytest.raises(Unauthenticated, match="the certificate has expired"):
        control.admit(WORKER, "", wall_s=NOW_S + 60)


@pytest.mark.parametrize("is_server", [False, True])
def test_the_end_of_a_certificate_ends_what_a_client_may_do_on_its_connection(
    path: Path, is_server: bool
) -> None:
    path.write_text(with_token(OLD, more='[[certificate]]\nsan = "*"\nroles = ["reader"]'))
    control = AccessControl(path)
    grantee = control.admit(WORKER._replace(is_server=is_server), "", wall_s=NOW_S)
    control.look(wall_s=NOW_S + 59)
    assert not grantee.is_expired
    control.look(wall_s=NOW_S + 60)
    assert grantee.is_expired == (not is_server)
    assert is_server or grantee.permissions is NOTHING


def test_a_credential_counts_more_than_a_certificate_and_a_wrong_one_is_not_passed_over(path: Path) -> None:
    path.write_text(with_token(OLD, more='[[certificate]]\nsan = "*"\nroles = ["reader"]'))
    control = AccessControl(path)
    assert control.admit(WORKER, OLD, wall_s=NOW_S).identity.method == "token"
    for credential in (NEW, "lr_", "nonsense", "a.b.c"):
        with pytest.raises(Unauthenticated):
            control.admit(WORKER, credential, wall_s=NOW_S)


def test_a_server_is_let_in_without_a_role_and_without_rights(path: Path) -> None:
    grantee = AccessControl(path).admit(NODE, "", wall_s=NOW_S)
    assert grantee.identity == Identity("node", "n1")
    assert grantee.permissions is NOTHING


def test_a_server_forwards_for_an_identity_with_the_rights_that_are_known_here(path: Path) -> None:
    control = AccessControl(path)
    grantee = control.admit_for(Identity("token", "web-1"))
    assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")


def test_an_identity_that_another_server_names_may_do_nothing_until_the_file_has_it(path: Path) -> None:
    control = AccessControl(path)
    grantee = control.admit_for(Identity("token", "web-9"))
    assert grantee.permissions is NOTHING
    path.write_text(path.read_text().replace('id = "web-1"', 'id = "web-9"'))
    assert control.look(wall_s=NOW_S)
    assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")


def test_new_rights_reach_open_connections(path: Path) -> None:
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    path.write_text(with_token(OLD, roles='["reader"]'))
    assert control.look(wall_s=NOW_S)
    assert not grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert grantee.permissions.allows(Verb.READ, "jobs/7")
    assert not grantee.is_expired


@pytest.mark.parametrize(
    "text",
    [ROLES, with_token(NEW), with_token(OLD, more="expires = 2020-01-01T00:00:00Z"), ""],
    ids=["removed", "replaced", "expired", "empty"],
)
def test_a_revoked_token_may_do_nothing_at_once_on_open_connections_too(path: Path, text: str) -> None:
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    path.write_text(text)
    assert control.look(wall_s=NOW_S)
    assert grantee.permissions is NOTHING
    assert grantee.is_expired
    with pytest.raises(Unauthenticated):
        control.admit(None, OLD, wall_s=NOW_S)


def test_a_token_ends_with_its_time_on_open_connections_too(path: Path) -> None:
    path.write_text(with_token(OLD, more="expires = 2027-01-15T08:00:01Z"))
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    control.look(wall_s=NOW_S)
    assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")
    control.look(wall_s=NOW_S + 1)
    assert grantee.permissions is NOTHING
    assert grantee.is_expired


def test_a_token_whose_end_is_put_off_lives_on(path: Path) -> None:
    path.write_text(with_token(OLD, more="expires = 2027-01-15T08:00:01Z"))
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    path.write_text(with_token(OLD, more="expires = 2028-01-15T08:00:01Z"))
    control.look(wall_s=NOW_S)
    control.look(wall_s=NOW_S + 3600)
    assert not grantee.is_expired
    assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")


def test_a_malformed_file_changes_nothing_and_is_one_line(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    with caplog.at_level(logging.INFO, "lockring.access"):
        path.write_text(with_token(OLD).replace("acquire", "aquire"))
        for _ in range(5):
            assert not control.look(wall_s=NOW_S)
        assert grantee.permissions.allows(Verb.ACQUIRE, "jobs/7")
        (line,) = (each.getMessage() for each in caplog.records if "no identity has" not in each.getMessage())
        assert line.startswith(
            f"the rights stay as they were: {path}, line 4: [role] rules: there is no right 'aquire'"
        )
        path.write_text(with_token(OLD, roles='["reader", "jobs"]'))
        assert control.look(wall_s=NOW_S)
    assert caplog.records[-1].getMessage() == f"new rights from {path} are in force"


def test_a_file_that_is_malformed_from_the_start_is_refused(path: Path) -> None:
    path.write_text("[[role]]\n")
    with pytest.raises(ConfigError, match="name is missing"):
        AccessControl(path)


def test_the_file_is_looked_at_at_most_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10**12
    monkeypatch.setattr("lockring.security.access_control.monotonic_ns", lambda: now_ns)
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    path.write_text(ROLES)
    now_ns += LOOK_NS - 1
    control.look_if_due()
    assert grantee.permissions is not NOTHING
    now_ns += 1
    control.look_if_due()
    assert grantee.permissions is NOTHING


def test_all_connections_of_an_identity_share_its_limits(path: Path) -> None:
    control = AccessControl(path)
    one, two = (control.admit(None, OLD, wall_s=NOW_S) for _ in range(2))
    two.quota.check_lock()
    one.quota.acquisitions += 1
    with pytest.raises(Overloaded, match="token web-1 has 1 locks at this server, and may have 1"):
        two.quota.check_lock()
    path.write_text(with_token(OLD).replace("locks = 1", "locks = 2"))
    control.look(wall_s=NOW_S)
    two.quota.check_lock()


def test_a_connection_that_has_ended_leaves_nothing_behind(path: Path) -> None:
    control = AccessControl(path)
    grantee = control.admit(None, OLD, wall_s=NOW_S)
    assert len(control._grantees) == len(control._quotas) == 1
    del grantee
    assert len(control._grantees) == len(control._quotas) == 0


def test_certificates_without_a_name_are_not_the_same_identity() -> None:
    shown = {"notAfter": "Jan  1 00:00:00 2030 GMT", "subject": (), "serialNumber": "0A"}
    one = certificate_of(shown, is_server=False)
    two = certificate_of(shown | {"serialNumber": "0B"}, is_server=False)
    assert one is not None
    assert two is not None
    assert one.identity().key == "certificate serial 0A"
    assert one.identity() != two.identity()
    assert certificate_of(None, is_server=True) is None


def test_a_name_is_that_of_a_uri_or_a_host_or_the_subject() -> None:
    shown = {"notAfter": "Jan  1 00:00:00 2030 GMT", "subject": ((("commonName", "cn"),),)}
    names = (("DNS", "host"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://a"), ("URI", "x" * 600))
    found = [
        certificate_of(shown | {"subjectAltName": part}, is_server=False)
        for part in (names, names[:2], names[1:2], (), names[3:])
    ]
    assert [each.identity().name for each in found if each is not None] == [
        "spiffe://a",
        "host",
        "10.0.0.1",
        "cn",
        "serial ",
    ]
    first = found[0]
    assert first is not None
    assert [each.value for each in first.identity().claims] == ["spiffe://a", "host", "10.0.0.1"]
    assert not first.may_be_node("n1")


def test_a_new_life_counts_from_nothing(path: Path) -> None:
    """The sessions of the former life are none of its own, be that life forgotten already or not."""
    control = AccessControl(path)
    former = control.admit(None, OLD, wall_s=NOW_S)
    former.quota.add_session()
    control.begin_life()
    present = control.admit(None, OLD, wall_s=NOW_S)
    assert present.quota.sessions == 0
    assert control.admit(None, OLD, wall_s=NOW_S).quota is present.quota
