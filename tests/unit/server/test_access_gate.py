"""The access control of a server: what it lets in, what it reports, and what it changes while connections are open."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from lockring.core.access import EVERYTHING, NO_NODE, NOTHING, UNCHECKED, NodeProof, Verb
from lockring.core.effects import AuditEntry
from lockring.errors import Denied, ExtraMissing, Unauthenticated
from lockring.ids import ConnectionId, NodeId
from lockring.protocol import PROTOCOL, ClientHello, Join, PeerHello
from lockring.protocol.identities import ANONYMOUS, Identity
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tokens import hash_of, new_token
from lockring.server import access_gate
from lockring.server.access_gate import AccessGate, expired_among, not_accepted
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.troubles import REMIND_NS
from tests.unit.freed import is_freed_after

TOKEN, OTHER = new_token("web-1"), new_token("web-1")
ORIGIN = "10.0.0.7:51234"
NODE = PeerCertificate(("urn:lockring:node:n1",), (), "n1", "0B", 4e9, is_server=True)
CLIENT = PeerCertificate(("spiffe://prod/worker",), (), "worker", "0A", 4e9, is_server=False)
JOIN = Join(PROTOCOL, "", NodeId("n1"), 1, "n1:1", 1, 0)
PEER = PeerHello(PROTOCOL, "c", NodeId("n1"), 1, NodeId("n2"), 1)


def hello(credential: str = "") -> ClientHello:
    return ClientHello(PROTOCOL, "", "client", 1, credential=credential)


class Place:
    """A directory with an ACL file, and the gates of servers that use it."""

    def __init__(self, directory: Path) -> None:
        self.acl = directory / "acl.toml"
        self.log = directory / "audit.log"
        self.write("acquire jobs/*")

    def write(self, *rules: str, token: str = TOKEN) -> None:
        self.acl.write_text(
            f'[[role]]\nname = "jobs"\nrules = {json.dumps(rules)}\n'
            f'[[token]]\nid = "web-1"\nsha256 = "{hash_of(token).hex()}"\nroles = ["jobs"]\n'
        )

    def gate(self, auth: str = "enforcing", **more: Any) -> AccessGate:
        settings = AccessSettings(auth=auth, acl_file=str(self.acl), audit_log=str(self.log))  # type: ignore[arg-type]
        return AccessGate(settings, server="n1", **more)

    def lines(self, gate: AccessGate) -> list[dict[str, Any]]:
        """The audit log, without the times."""
        gate.close()
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [{key: value for key, value in each.items() if key not in ("at", "server")} for each in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_server_that_checks_nothing_lets_everything_in_and_looks_up_nothing() -> None:
    gate = AccessGate(OPEN, server="n1")
    assert gate.newcomer(hello("nonsense"), None, origin=ORIGIN).access is None
    assert gate.newcomer(JOIN, None, origin=ORIGIN).proof.allows(NodeId("n1"))
    assert gate.own(NodeId("n1")) is UNCHECKED
    gate.look()
    gate.close()


def test_a_client_has_the_rights_of_what_it_shows(place: Place) -> None:
    gate = place.gate()
    access = gate.newcomer(hello(TOKEN), None, origin=ORIGIN).access
    assert access is not None
    assert access.key == "token web-1"
    assert access.is_enforced
    assert access.permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert place.lines(gate) == [
        {"act": "connect", "who": "web-1", "how": "token", "from": ORIGIN, "outcome": "ok"}
    ]


@pytest.mark.parametrize(
    ("credential", "certificate", "error"),
    [("", None, Unauthenticated), (OTHER, None, Unauthenticated), ("", CLIENT, Denied)],
    ids=[
        "nothing",
        "another token",
        "a certificate without a role",
    ],  # a token differs from process to process
)
def test_a_client_that_shows_nothing_of_use_is_refused_and_audited(
    place: Place, credential: str, certificate: object, error: type[Denied]
) -> None:
    gate = place.gate()
    with pytest.raises(error) as refused:
        gate.newcomer(hello(credential), certificate, origin=ORIGIN)
    (line,) = place.lines(gate)
    assert line == {"act": "denied", "from": ORIGIN, "outcome": "refused", "reason": str(refused.value)}
    assert OTHER not in place.log.read_text()


def test_where_rights_are_tried_out_everything_passes_and_is_counted(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    gate = place.gate("permissive")
    caplog.clear()
    for _ in range(2):
        gate.newcomer(hello(OTHER), None, origin=ORIGIN)
    access = gate.newcomer(hello(OTHER), None, origin=ORIGIN).access
    assert access is not None
    assert (access.identity, access.permissions, access.is_enforced) == (ANONYMOUS, EVERYTHING, False)
    assert gate.would_refuse == 3
    (told,) = caplog.messages
    assert told.startswith(f"would be refused: a client at {ORIGIN}: the token web-1 is not known here")
    assert [line["outcome"] for line in place.lines(gate)] == ["would-refuse"] * 3


def test_what_is_remembered_of_missing_rights_is_bounded_and_forgotten(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 10**18
    monkeypatch.setattr(access_gate, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(access_gate, "_REPORTED_MAX", 3)
    gate = place.gate("permissive")

    def lines_of(*names: str) -> list[str]:
        caplog.clear()
        for name in names:
            who = Identity("token", name)
            gate.record(AuditEntry("denied", "would-refuse", identity=who, reason=name), origin=ORIGIN)
        return [each.removeprefix("would be refused: ") for each in caplog.messages]

    assert lines_of("a", "b", "c", "d", "a") == ["a", "b", "c"], "a fourth one has no room"
    now_ns += REMIND_NS - 1
    assert lines_of("d", "b") == []
    now_ns += 1
    assert lines_of("d", "e") == ["d", "e"], "a and c were quiet for long enough"
    assert lines_of("a", "b") == ["b (3 failures in 60 s)"], "b was not"
    now_ns += REMIND_NS
    gate.look()
    assert gate._reported == {}
    assert lines_of("a") == ["a"]
    assert gate.would_refuse == 12
    gate.close()


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_jwts_without_their_packages_are_refused_with_the_name_of_the_extra(
    place: Place, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lockring.security.jwks", "lockring.security.jwt_verifier"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    settings = AccessSettings(
        auth="enforcing", acl_file=str(place.acl), jwt_jwks="keys.json", jwt_issuer="i", jwt_audience="a"
    )
    with pytest.raises(ExtraMissing, match=r"--jwt-jwks needs a package .*: install lockring\[jwt\]"):
        AccessGate(settings, server="n1")


def test_a_right_that_is_missing_where_rights_are_tried_out_is_counted_and_audited(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    gate = place.gate("permissive")
    entry = AuditEntry(
        "denied",
        "would-refuse",
        identity=Identity("token", "web-1"),
        name="x",
        right="break",
        reason="token web-1 may not break 'x'",
    )
    gate.record(entry, origin=ORIGIN, via="n2")
    assert gate.would_refuse == 1
    assert "would be refused: token web-1 may not break 'x'" in caplog.messages
    (line,) = place.lines(gate)
    assert (line["via"], line["right"], line["from"]) == ("n2", "break", ORIGIN)


@pytest.mark.parametrize("message", [JOIN, PEER])
@pytest.mark.parametrize("auth", ["permissive", "enforcing"])
def test_only_a_certificate_of_the_servers_own_makes_a_node(
    place: Place, auth: str, message: Join | PeerHello
) -> None:
    gate = place.gate(auth, demands_node_certificates=True)
    assert gate.newcomer(message, None, origin=ORIGIN).proof == NO_NODE
    assert gate.newcomer(message, CLIENT, origin=ORIGIN).proof == NO_NODE
    assert gate.newcomer(message, NODE, origin=ORIGIN).proof == NodeProof(True, (NodeId("n1"),))
    gate.close()


def test_a_server_that_asks_nodes_for_no_certificate_says_so(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    gate = place.gate()
    assert gate.newcomer(PEER, None, origin=ORIGIN).proof.allows(NodeId("n1"))
    assert any("may join the cluster as a node" in each for each in caplog.messages)
    gate.close()
    caplog.clear()
    place.gate(demands_node_certificates=True).close()
    assert not any("may join" in each for each in caplog.messages)


@pytest.mark.parametrize(
    ("settings", "has_tls", "danger"),
    [
        ({}, False, "any process may do everything there, and even join as a node"),
        ({}, True, "any client may do everything there"),
        ({"auth": "enforcing"}, False, "any process may join as a node there, and read tokens on their way"),
    ],
)
def test_a_server_that_is_open_on_purpose_says_so_and_what_that_means(
    place: Place, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], has_tls: bool, danger: str
) -> None:
    acl = {"acl_file": str(place.acl)} if settings else {}
    access = AccessSettings(insecure=True, **settings, **acl)
    gate = AccessGate(access, server="n1", demands_node_certificates=has_tls)
    assert gate.is_insecure
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == [f"other machines can reach n1, as --insecure says: {danger}"]
    gate.close()


def test_new_rights_are_in_force_at_the_next_look_and_audited_once(place: Place) -> None:
    gate = place.gate()
    access = gate.newcomer(hello(TOKEN), None, origin=ORIGIN).access
    assert access is not None
    place.write("read *")
    gate.look()
    gate.look()
    assert not access.permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert access.permissions.allows(Verb.READ, "jobs/7")
    assert [line["act"] for line in place.lines(gate)] == ["connect", "reload"]


def test_a_file_that_cannot_be_used_is_audited_once_and_again_after_it_was_right(place: Place) -> None:
    gate = place.gate()
    right = place.acl.read_text()
    for text in ("[[role]", "[[role]", right, "nonsense = 1", right.replace("jobs/", "work/")):
        place.acl.write_text(text)
        gate.look()
        gate.look()
    found = [(line["act"], line["outcome"], line["reason"]) for line in place.lines(gate)]
    assert [(act, outcome) for act, outcome, _ in found] == [
        ("reload", "failed"),
        ("reload", "failed"),
        ("reload", "ok"),
    ]
    assert "nonsense" in found[1][2]
    assert found[2][2] == f"edition {gate.edition}"


def test_files_of_tls_that_were_read_again_are_audited_though_no_rights_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    gate = AccessGate(AccessSettings(audit_log=str(path)), server="n1")
    for edition, problem in (("a", ""), ("a", ""), ("a", "half"), ("a", "half"), ("b", ""), ("b", "")):
        gate.note_tls(edition, problem)
    gate.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["act"], each["name"], each["outcome"], each["reason"]) for each in found] == [
        ("reload", "tls", "failed", "half"),
        ("reload", "tls", "ok", "edition b"),
    ]


@pytest.mark.parametrize("auth", ["permissive", "enforcing"])
def test_a_connection_whose_token_was_revoked_is_ended_where_that_is_enforced(
    place: Place, auth: str
) -> None:
    gate = place.gate(auth)
    access = gate.newcomer(hello(TOKEN), None, origin=ORIGIN).access
    assert access is not None
    assert expired_among({ConnectionId(1): access}) == []
    place.write("read *", token=OTHER)
    gate.look()
    assert access.permissions is NOTHING
    assert expired_among({ConnectionId(1): access}) == ([1] if auth == "enforcing" else [])
    assert str(not_accepted(access)) == "token web-1 has expired, or was revoked; show another credential"
    gate.close()


def test_a_file_that_is_malformed_changes_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    gate = place.gate()
    access = gate.newcomer(hello(TOKEN), None, origin=ORIGIN).access
    assert access is not None
    place.acl.write_text("[[role]]\nname = 3\n")
    caplog.set_level(logging.WARNING)
    gate.look()
    assert access.permissions.allows(Verb.ACQUIRE, "jobs/7")
    (failed,) = [line for line in place.lines(gate) if line["act"] == "reload"]
    assert failed["outcome"] == "failed"


def test_a_client_in_the_nodes_own_process_is_the_node_and_has_no_rights_of_its_own(place: Place) -> None:
    gate = place.gate()
    access = gate.own(NodeId("n1")).access
    assert access is not None
    assert access.is_node
    assert access.permissions is NOTHING
    assert gate.grantee_of(Identity("token", "web-1")).permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert gate.grantee_of(Identity("token", "web-9")).permissions is NOTHING
    gate.close()


def test_a_refused_client_leaves_nothing_in_memory(tmp_path: Path) -> None:
    gate = Place(tmp_path).gate()
    assert is_freed_after(Unauthenticated, lambda: gate.newcomer(hello(), None, origin=ORIGIN))
    assert is_freed_after(Denied, lambda: gate.newcomer(hello(), CLIENT, origin=ORIGIN))
    gate.close()
