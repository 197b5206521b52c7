"""Real processes and whatever may arrive at their ports: a clear answer each, and the process lives on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from lockring.addresses import split_address
from lockring.errors import Unavailable, UnknownNode
from lockring.net.frames import encode_frame
from lockring.net.oneshot import ask_drain, ask_state
from lockring.protocol import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Acquire,
    ClientHello,
    GetState,
    Heartbeat,
    Join,
    PeerHello,
    Refusal,
    Replicate,
    StateReply,
    Welcome,
)
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.wire import Wire, welcome_of

pytestmark = pytest.mark.cluster

PROCESSES = ["N1", COORDINATOR]


@pytest.fixture(params=PROCESSES)
def port(standing: LocalCluster, request: pytest.FixtureRequest) -> str:
    """The address of a node, then of a coordinator; both must live on after the test."""
    return standing.address_of(request.param)


@pytest.fixture(autouse=True)
def everybody_lives_on(standing: LocalCluster):
    before = {name: standing.pid_of(name) for name in (*standing.nodes, COORDINATOR)}
    yield
    for name, pid in before.items():
        assert standing.is_running(name)
        assert standing.pid_of(name) == pid
        assert welcome_of(standing.address_of(name)).protocol == PROTOCOL
        assert "bug" not in standing.log_of(name)


def test_every_process_of_a_started_cluster_has_the_same_state(standing: LocalCluster) -> None:
    views = [ask_state(standing.address_of(name)) for name in (*standing.nodes, COORDINATOR)]
    assert [view.role for view in views] == ["node", "node", "coordinator"]
    assert len({view.state.version for view in views}) == 1
    state = views[0].state
    assert sorted(state.members) == ["N1", "N2"]
    assert all(slot.primary is not None and slot.backup is not None for slot in state.slots)
    assert {view.note for view in views} == {""}


def test_nodes_and_coordinators_welcome_a_client_and_say_which_they_are(
    standing: LocalCluster,
) -> None:
    node = welcome_of(standing.address_of("N1"))
    coordinator = welcome_of(standing.address_of(COORDINATOR))
    assert (node.role, node.node) == ("node", "N1")
    assert (coordinator.role, coordinator.node) == ("coordinator", "")
    assert node.cluster == coordinator.cluster != ""
    assert node.coordinator == standing.address_of(COORDINATOR)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "without TLS"),
        (b"\xff" * 64, "a hello has at most"),
        ((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), "a hello has at most"),
        (b"\x00\x00\x00\x05hello", "not an accepted message"),
        (b"\x00\x00\x00\x00", "not an accepted message"),
    ],
)
def test_garbage_is_refused_as_garbage(port: str, sent: bytes, answer: str) -> None:
    with Wire(port) as wire:
        wire.write(sent)
        refused = wire.refusal()
    assert refused.code == "protocol"
    assert answer in refused.text


def test_a_giant_frame_after_the_hello_is_refused_before_it_is_read(port: str) -> None:
    with Wire(port) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.write((2**20 + 1).to_bytes(4, "big") + b"x" * 1000)
        refused = wire.refusal()
    assert refused.code == "protocol"
    assert "1048577 bytes" in refused.text


def test_garbage_after_the_hello_ends_the_connection_with_a_reason(port: str) -> None:
    with Wire(port) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.write(b"\x00\x00\x00\x03\xc1\xc1\xc1")
        assert wire.refusal().code == "protocol"


def test_half_a_hello_is_cut_off_after_some_seconds(standing: LocalCluster) -> None:
    begun_s = time.monotonic()
    with Wire(standing.address_of("N1")) as node, Wire(standing.address_of(COORDINATOR)) as coordinator:
        for wire in (node, coordinator):
            wire.write(b"\x00\x00\x00\x20half")
        for wire in (node, coordinator):
            refused = wire.refusal()
            assert refused.code == "protocol"
            assert "hello" in refused.text
            assert 4.5 < time.monotonic() - begun_s < 30


def test_another_protocol_version_is_refused_by_name(port: str) -> None:
    with Wire(port) as wire:
        wire.send(ClientHello(PROTOCOL + 1, "", "test", 1))
        refused = wire.refusal()
    assert refused.code == "protocol"
    assert f"version {PROTOCOL + 1}" in refused.text


def test_a_client_of_another_cluster_is_refused(port: str) -> None:
    with Wire(port) as wire:
        wire.send(ClientHello(PROTOCOL, "another", "test", 1))
        refused = wire.refusal()
    assert refused.code == "wrong-cluster"
    assert "another" in refused.text


def test_a_message_before_the_hello_is_refused(port: str) -> None:
    with Wire(port) as wire:
        wire.send(Acquire(1, "s", 1000, "o", 1, "x"))
        refused = wire.refusal()
    assert refused.code == "protocol"
    assert "begins with a hello" in refused.text


def test_a_join_sent_to_a_node_is_referred_to_the_coordinator(standing: LocalCluster) -> None:
    with Wire(standing.address_of("N1")) as wire:
        wire.send(Join(PROTOCOL, "", "N9", 1, "127.0.0.1:1", 1, 0))
        refused = wire.refusal()
    assert refused.code == "wrong-role"
    assert "is node N1, not a coordinator" in refused.text
    assert standing.address_of(COORDINATOR) in refused.text


def test_an_acquire_sent_to_a_coordinator_is_refused(standing: LocalCluster) -> None:
    with Wire(standing.address_of(COORDINATOR)) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.send(Acquire(1, "s", 1000, "o", 1, "x"))
        refused = wire.refusal()
    assert refused.code == "wrong-role"
    assert "is a coordinator" in refused.text


def test_a_peer_at_a_coordinator_is_refused(standing: LocalCluster) -> None:
    with Wire(standing.address_of(COORDINATOR)) as wire:
        wire.send(PeerHello(PROTOCOL, "", "N8", 1, "N9", 1))
        assert wire.refusal().code == "wrong-role"


def test_a_client_may_not_replicate(standing: LocalCluster) -> None:
    with Wire(standing.address_of("N1")) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.send(Replicate(1, 1, True, []))
        refused = wire.refusal()
    assert refused.code == "protocol"
    assert "does not accept Replicate from a client" in refused.text


def test_a_client_may_not_send_heartbeats_to_a_coordinator(standing: LocalCluster) -> None:
    with Wire(standing.address_of(COORDINATOR)) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.send(Heartbeat(1, 1))
        assert wire.refusal().code == "wrong-role"


def test_a_peer_that_wants_another_life_of_the_node_is_refused(standing: LocalCluster) -> None:
    here = welcome_of(standing.address_of("N1"))
    with Wire(standing.address_of("N1")) as wire:
        wire.send(PeerHello(PROTOCOL, here.cluster, "N2", 1, "N1", here.incarnation + 1))
        assert wire.refusal().code == "stale"


def test_a_peer_of_another_cluster_is_refused(standing: LocalCluster) -> None:
    here = welcome_of(standing.address_of("N1"))
    with Wire(standing.address_of("N1")) as wire:
        wire.send(PeerHello(PROTOCOL, "another", "N2", 1, "N1", here.incarnation))
        assert wire.refusal().code == "wrong-cluster"


def test_an_earlier_life_of_a_peer_is_refused(standing: LocalCluster) -> None:
    here = welcome_of(standing.address_of("N1"))
    with Wire(standing.address_of("N1")) as wire:
        wire.send(PeerHello(PROTOCOL, here.cluster, "N2", 1, "N1", here.incarnation))
        assert wire.refusal().code == "stale"


def test_a_node_of_another_cluster_may_not_join(standing: LocalCluster) -> None:
    with Wire(standing.address_of(COORDINATOR)) as wire:
        wire.send(Join(PROTOCOL, "another", "N9", 1, "127.0.0.1:1", 1, 0))
        assert wire.refusal().code == "wrong-cluster"
    assert sorted(standing.state().members) == ["N1", "N2"]


def test_a_client_that_reads_nothing_is_cut_off_before_it_costs_much_memory(
    standing: LocalCluster,
) -> None:
    before_kib = _resident_kib(standing.pid_of("N1"))
    requests = b"".join(encode_frame(GetState(number)) for number in range(1, 5_001))
    with socket.create_connection(split_address(standing.address_of("N1")), timeout=60) as sock:
        sock.sendall(encode_frame(ClientHello(PROTOCOL, "", "deaf", 1)))
        with pytest.raises(ConnectionError):
            _send_for_ever(sock, requests)
    assert "leaves its answers unread" in standing.log_of("N1")
    assert _resident_kib(standing.pid_of("N1")) - before_kib < 128 * 1024


def _send_for_ever(sock: socket.socket, data: bytes) -> None:
    while True:
        sock.sendall(data)


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_a_drain_of_an_unknown_node_is_refused_by_node_and_coordinator(port: str) -> None:
    with pytest.raises(UnknownNode, match="N9"):
        ask_drain(port, "N9")


def test_a_second_connection_of_the_same_client_ends_the_first(standing: LocalCluster) -> None:
    address = standing.address_of("N1")
    with Wire(address) as first, Wire(address) as second:
        first.send(ClientHello(PROTOCOL, "", "same", 1))
        assert isinstance(first.read(), Welcome)
        second.send(ClientHello(PROTOCOL, "", "same", 2))
        assert isinstance(second.read(), Welcome)
        first.read_to_end()
        assert isinstance(second.request(GetState(1)), StateReply)


def test_a_port_without_a_listener_is_a_clear_error() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
        ask_state("127.0.0.1:1")


def test_refusals_of_requests_carry_the_number_of_the_request(standing: LocalCluster) -> None:
    with Wire(standing.address_of("N1")) as wire:
        assert isinstance(wire.greet(client="asker"), Welcome)
        wire.send(Acquire(7, "s", 1000, "o", 1, ""))
        answer = wire.read()
        assert isinstance(answer, Refusal)
        assert (answer.request, answer.code) == (7, "invalid")
