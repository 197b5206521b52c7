"""Which connections a node admits, and what it takes on them."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Replica
from lockring.core.access import NO_NODE, UNCHECKED, Newcomer, NodeProof
from lockring.core.effects import Admit, Broadcast, Close, Effect, Refuse, Reply
from lockring.core.node import NodeCore
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    GetStatus,
    Join,
    Message,
    PeerHello,
    Replicate,
    ReplicateAck,
    Routes,
)
from tests.unit.core.node.world import Nodes


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def greet(
    nodes: Nodes, connection: int, *messages: Message, node: str = "A", newcomer: Newcomer = UNCHECKED
) -> list[Effect]:
    """Open a connection to a node, send messages on it, and return what the node does."""
    core = nodes.cores[node]
    core.connected(connection, newcomer=newcomer, now_ns=nodes.now)
    for message in messages:
        core.receive(connection, message, now_ns=nodes.now)
    return core.take_effects(now_ns=nodes.now)


def peer_hello(
    *, cluster: str = "c", incarnation: int = 1, to: int = 1, protocol: int = PROTOCOL
) -> PeerHello:
    return PeerHello(protocol, cluster, "B", incarnation, "A", to)


def refusal(effects: list[Effect]) -> str:
    """The code of the only refusal."""
    (refused,) = [effect for effect in effects if isinstance(effect, Refuse)]
    assert not [effect for effect in effects if isinstance(effect, Admit)]
    return refused.refusal.code


def test_a_client_is_welcomed_and_gets_the_routes(nodes: Nodes) -> None:
    admitted, *rest = greet(nodes, 100, ClientHello(PROTOCOL, "c", "client", 1))
    assert isinstance(admitted, Admit)
    assert (admitted.to, admitted.peer, admitted.welcome.cluster) == (100, None, "c")
    assert Routes in [
        type(each.message) for each in rest if isinstance(each, Broadcast) and each.to == (100,)
    ]


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (ClientHello(PROTOCOL + 1, "c", "client", 1), "protocol"),
        (ClientHello(PROTOCOL, "other", "client", 1), "wrong-cluster"),
        (peer_hello(protocol=PROTOCOL + 1), "protocol"),
        (peer_hello(cluster="other"), "wrong-cluster"),
        (peer_hello(cluster=""), "wrong-cluster"),
        (peer_hello(to=2), "stale"),
        (peer_hello(incarnation=0), "stale"),
        (Join(PROTOCOL, "c", "B", 1, "B:1", 1, 1), "wrong-role"),
        (GetStatus(1), "protocol"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_the_reason(
    nodes: Nodes, hello: Message, code: str
) -> None:
    assert refusal(greet(nodes, 100, hello)) == code


def test_a_client_that_knows_a_cluster_is_refused_until_the_node_has_joined_one() -> None:
    core = NodeCore(Replica("A", 1), now_ns=0)
    core.connected(100, now_ns=0)
    core.receive(100, ClientHello(PROTOCOL, "c", "client", 1), now_ns=0)
    assert refusal(core.take_effects(now_ns=0)) == "unavailable"


def test_messages_of_a_refused_connection_are_ignored(nodes: Nodes) -> None:
    effects = greet(nodes, 100, ClientHello(PROTOCOL, "other", "x", 1), Acquire(1, "s", 10_000, "me", 1, "x"))
    assert [type(effect) for effect in effects] == [Refuse]


@pytest.mark.parametrize("late", [ClientHello(PROTOCOL, "c", "x", 2), peer_hello()], ids=["client", "peer"])
@pytest.mark.parametrize("hello", [ClientHello(PROTOCOL, "c", "x", 1), peer_hello()], ids=["client", "peer"])
def test_a_second_hello_behind_a_refused_message_admits_nothing(
    nodes: Nodes, hello: Message, late: Message
) -> None:
    effects = greet(nodes, 100, hello, Join(PROTOCOL, "c", "B", 1, "B:1", 1, 1), late)
    assert [type(each) for each in effects if isinstance(each, (Admit, Refuse))] == [Admit, Refuse]


def test_a_peer_counts_as_the_life_that_it_has_named(nodes: Nodes) -> None:
    effects = greet(nodes, 100, peer_hello(), Replicate(7, 1, True, []))
    admitted, reply = effects
    assert isinstance(admitted, Admit)
    assert admitted.peer == Replica("B", 1)
    assert isinstance(reply, Reply)
    assert reply.to == Replica("B", 1)
    assert isinstance(reply.message, ReplicateAck)


def test_a_peer_that_sends_a_client_message_is_refused(nodes: Nodes) -> None:
    core = nodes.cores["A"]
    greet(nodes, 100, peer_hello())
    core.receive(100, Acquire(1, "s", 10_000, "me", 1, "x"), now_ns=nodes.now)
    assert refusal(core.take_effects(now_ns=nodes.now)) == "protocol"
    core.receive(100, Replicate(7, 1, True, []), now_ns=nodes.now)
    assert core.take_effects(now_ns=nodes.now) == []


def test_a_newer_connection_of_a_peer_ends_the_older_one(nodes: Nodes) -> None:
    greet(nodes, 100, peer_hello())
    closed, admitted = greet(nodes, 101, peer_hello())
    assert isinstance(closed, Close)
    assert closed.to == 100
    assert isinstance(admitted, Admit)
    core = nodes.cores["A"]
    core.disconnected(100, now_ns=nodes.now)
    core.receive(101, Replicate(7, 1, True, []), now_ns=nodes.now)
    assert [type(effect) for effect in core.take_effects(now_ns=nodes.now)] == [Reply]


def test_clients_that_came_before_the_node_had_a_cluster_come_back_for_its_id() -> None:
    nodes = Nodes("A", "B")
    early = nodes.client("A", "session", client="early")
    core = nodes.cores["A"]
    assert core.state.cluster == ""
    nodes.assign("A", "B")
    assert "come back" in early.closed
    late, *_ = greet(nodes, 101, ClientHello(PROTOCOL, "", "early", 2))
    assert isinstance(late, Admit)
    assert late.welcome is not None
    assert late.welcome.cluster == core.state.cluster != ""


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (NO_NODE, "a connection of node B needs a certificate of the servers' own CA"),
        (NodeProof(True, ("A", "C")), "the certificate makes its holder node A or C, not B"),
    ],
)
def test_a_peer_that_has_not_shown_to_be_that_node_is_refused(
    nodes: Nodes, proof: NodeProof, text: str
) -> None:
    effects = greet(nodes, 100, peer_hello(), newcomer=Newcomer(None, proof))
    assert refusal(effects) == "denied"
    (refused,) = [effect for effect in effects if isinstance(effect, Refuse)]
    assert refused.refusal.text.startswith(text)
    assert refused.refusal.name == "B"


@pytest.mark.parametrize("proof", [NodeProof(True), NodeProof(True, ("C", "B"))])
def test_a_peer_that_has_shown_to_be_that_node_is_admitted(nodes: Nodes, proof: NodeProof) -> None:
    (admitted,) = greet(nodes, 100, peer_hello(), newcomer=Newcomer(None, proof))
    assert isinstance(admitted, Admit)
    assert admitted.is_member
