"""The events that a node remembers, and its answers to questions for them."""

from __future__ import annotations

from typing import Any

from lockring.core.effects import COORDINATOR
from lockring.protocol import Break, EventsReply, GetEvents, Message, Refusal
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes, S


def cluster(**more: Any) -> Nodes:
    nodes = Nodes("A", "B", **more)
    nodes.assign("A", "B")
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def answer(answers: list[Message]) -> EventsReply:
    (reply,) = answers
    assert isinstance(reply, EventsReply), reply
    return reply


def seen(client: Client, **question: Any) -> list[tuple[str, str, str]]:
    reply = answer(client.ask(GetEvents(next(client.requests), **question)))
    return [(each.kind, each.name, each.reason) for each in reply.events]


def test_a_lease_that_runs_out_is_remembered_and_a_release_is_not() -> None:
    nodes = cluster()
    client = nodes.client("A", "s")
    client.acquire("x", 1, ttl_ms=500)
    client.acquire("y", 2, ttl_ms=500)
    client.release("y", 2)
    nodes.advance(2 * S)
    assert seen(client, prefix="x") == [("lost", "x", "expired")]
    assert seen(client, name="y", kinds=["lost"]) == []


def test_an_order_to_break_and_the_end_of_the_lease_are_remembered() -> None:
    nodes = cluster()
    client = nodes.client("A", "s")
    grant: Any = client.acquire("x", 1, ttl_ms=500)[0]
    client.ask(Break(50, "x", grant.generation))
    client.ask(Break(51, "x", grant.generation))
    assert seen(client, prefix="x") == [("broken", "x", "")]
    nodes.advance(2 * S)
    assert seen(client, prefix="x") == [("broken", "x", ""), ("lost", "x", "broken")]
    grant = client.acquire("y", 2)[0]
    client.ask(Break(52, "y", grant.generation, force=True))
    assert seen(client, prefix="y") == [("broken", "y", "forced"), ("lost", "y", "broken")]


def test_a_takeover_and_the_absence_of_the_coordinator_are_remembered() -> None:
    nodes = cluster()
    client = nodes.client("B", "s")
    nodes.promote("B")
    core = nodes.cores["B"]
    core.disconnected(COORDINATOR, now_ns=nodes.now)
    nodes.advance(S)
    core.connected(COORDINATOR, now_ns=nodes.now)
    nodes.settle()
    found = seen(client)
    assert [kind for kind, _, _ in found][-3:] == ["failover", "coordinator-lost", "coordinator-found"]
    assert seen(client, name="x") == [("failover", "", "")]


def test_an_identity_gets_the_events_of_the_locks_that_it_may_read_and_no_others() -> None:
    nodes = cluster()
    owner = nodes.client("A", "s")
    for number, name in enumerate(("job/1", "x"), start=1):
        owner.acquire(name, number, ttl_ms=500)
    nodes.advance(2 * S)
    reader = nodes.client("A", "r", access=grantee("web-1", "read job/*"))
    assert seen(reader) == [("lost", "job/1", "expired")]
    assert ("lost", "job/1", "expired") in seen(reader, name="job/1")
    (refusal,) = reader.ask(GetEvents(90, name="x"))
    assert isinstance(refusal, Refusal)
    assert (refusal.request, refusal.code, refusal.right) == (90, "denied", "read")


def test_a_question_for_too_much_is_refused_with_a_reason() -> None:
    nodes = cluster()
    (refusal,) = nodes.client("A", "s").ask(GetEvents(5, limit=5_000))
    assert isinstance(refusal, Refusal)
    assert (refusal.request, refusal.code) == (5, "invalid")
    assert "1 to 1000 events" in refusal.text
