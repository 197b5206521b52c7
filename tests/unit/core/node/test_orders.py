"""Operators' requests that a node passes on to the coordinator, and questions about the node itself."""

from __future__ import annotations

import pytest

from lockring.core.effects import COORDINATOR
from lockring.protocol import (
    Drain,
    DrainReply,
    GetStatus,
    Heartbeat,
    Message,
    Refusal,
    StatusReply,
    Undrain,
    UndrainReply,
    Unwatch,
)
from tests.unit.core.node.world import Client, Nodes, S, of


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def answer(nodes: Nodes, client: Client, message: Message) -> list[Message]:
    """Let the coordinator answer node A, and return what the client gets."""
    seen = len(client.inbox)
    nodes.deliver("A", COORDINATOR, message)
    return client.inbox[seen:]


def test_a_drain_goes_to_the_coordinator_and_its_answer_back_by_the_clients_number(nodes: Nodes) -> None:
    one, other = nodes.client("A", "one"), nodes.client("A", "other")
    assert one.ask(Drain(70, "B")) == []
    assert other.ask(Undrain(70, "B")) == []
    assert nodes.asked_of_coordinator == [Drain(1, "B"), Undrain(2, "B")]
    assert answer(nodes, other, UndrainReply(2, "B")) == [UndrainReply(70, "B")]
    assert answer(nodes, one, DrainReply(1, "B")) == [DrainReply(70, "B")]


def test_a_refusal_of_the_coordinator_reaches_the_operator(nodes: Nodes) -> None:
    operator = nodes.client("A", "operator")
    operator.ask(Drain(70, "C"))
    refusal = Refusal(1, "unknown-node", "the cluster has no node 'C'", "C")
    (refused,) = answer(nodes, operator, refusal)
    assert isinstance(refused, Refusal)
    assert (refused.request, refused.code, refused.name) == (70, "unknown-node", "C")


def test_a_drain_is_refused_while_the_coordinator_is_away_with_what_the_node_waits_for(nodes: Nodes) -> None:
    core = nodes.cores["A"]
    core.disconnected(COORDINATOR, now_ns=nodes.now)
    core.coordinator_missing("waiting for the coordinator at here:1: connection refused")
    (refused,) = nodes.client("A", "operator").ask(Drain(70, "B"))
    assert isinstance(refused, Refusal)
    assert (refused.request, refused.code, refused.name) == (70, "unavailable", "B")
    assert "here:1: connection refused" in refused.text
    assert nodes.asked_of_coordinator == []


def test_a_drain_is_refused_once_the_coordinator_is_lost_and_a_late_answer_is_dropped(nodes: Nodes) -> None:
    operator = nodes.client("A", "operator")
    operator.ask(Drain(70, "B"))
    seen = len(operator.inbox)
    nodes.cores["A"].disconnected(COORDINATOR, now_ns=nodes.now)
    nodes.settle()
    (refused,) = operator.inbox[seen:]
    assert isinstance(refused, Refusal)
    assert (refused.request, refused.code) == (70, "unavailable")
    nodes.cores["A"].connected(COORDINATOR, now_ns=nodes.now)
    assert answer(nodes, operator, DrainReply(1, "B")) == []
    operator.ask(Drain(71, "B"))
    assert nodes.asked_of_coordinator == [Drain(1, "B"), Drain(2, "B")]


def test_a_refusal_that_answers_no_request_is_logged(nodes: Nodes) -> None:
    nodes.deliver("A", COORDINATOR, Refusal(0, "not-coordinator", "another one has the term"))
    assert nodes.notes == ["the coordinator refuses: another one has the term"]


def test_a_node_says_how_long_the_coordinator_has_been_away(nodes: Nodes) -> None:
    client = nodes.client("A", "s")
    (reply,) = client.ask(GetStatus(5))
    assert isinstance(reply, StatusReply)
    assert (reply.request, reply.status.role, reply.status.node) == (5, "node", "A")
    assert (reply.status.away_ms, reply.status.note) == (-1, "")
    nodes.cores["A"].disconnected(COORDINATOR, now_ns=nodes.now)
    nodes.cores["A"].coordinator_missing("waiting for the coordinator at here:1: dialing")
    nodes.now += 2 * S
    (reply,) = of(StatusReply, client.ask(GetStatus(6)))
    assert (reply.status.away_ms, reply.status.note) == (
        2000,
        "waiting for the coordinator at here:1: dialing",
    )


def test_nothing_is_heard_on_a_connection_after_what_no_client_may_send(nodes: Nodes) -> None:
    client = nodes.client("A", "s")
    core = nodes.cores["A"]
    taken = core.requests(client.connection, [Heartbeat(1, 1), Unwatch(2, 1)], now_ns=nodes.now)
    assert taken == 1
    assert core.requests(client.connection, [Unwatch(2, 1)], now_ns=nodes.now) == 1
    seen = len(client.inbox)
    nodes.settle()
    (refused,) = client.inbox[seen:]
    assert isinstance(refused, Refusal)
    assert (refused.request, refused.code) == (0, "protocol")
    assert client.closed == refused.text
