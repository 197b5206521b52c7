"""Notices that a node sends unasked: that an acquire is in the queue, and why the node cannot serve."""

from __future__ import annotations

import msgspec

from lockring.cluster_state import Replica
from lockring.protocol import HeartbeatAck, List, ListReply, Message, QueueNotice, Refusal, TroubleNotice
from lockring.slots import SLOTS
from tests.unit.core.node.world import MS, Client, Nodes, of


def news(client: Client) -> list[Message]:
    """Return the messages that a client was sent since the last call."""
    found, client.inbox[:] = client.inbox[:], []
    return found


def alone() -> Nodes:
    nodes = Nodes("A")
    nodes.assign("A")
    return nodes


def test_an_acquire_that_waits_for_longer_than_a_moment_gets_a_queue_notice() -> None:
    nodes = alone()
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1)
    news(two)
    for _ in range(3):
        nodes.advance(100 * MS)
    assert len(of(QueueNotice, news(two))) == 1
    for _ in range(20):
        nodes.advance(100 * MS)
    assert of(QueueNotice, news(two)) == [], "once is enough"


def test_an_acquire_that_is_granted_within_a_moment_gets_no_queue_notice() -> None:
    nodes = alone()
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1)
    one.release("x", 1)
    for _ in range(3):
        nodes.advance(100 * MS)
    assert of(QueueNotice, news(two)) == []


def test_a_repeated_acquire_gets_its_queue_notice_on_the_new_connection() -> None:
    nodes = alone()
    one, two = nodes.client("A", "one"), nodes.client("A", "two", client="c", number=1)
    one.acquire("x", 1)
    two.acquire("x", 1)
    for _ in range(3):
        nodes.advance(100 * MS)
    again = nodes.client("A", "two", client="c", number=2)
    again.acquire("x", 1)
    for _ in range(3):
        nodes.advance(100 * MS)
    assert len(of(QueueNotice, news(again))) == 1


def test_a_node_that_has_lost_its_coordinator_says_so_and_since_when() -> None:
    nodes = alone()
    client = nodes.client("A", "one")
    news(client)
    nodes.coordinator_up = False
    for _ in range(350):
        nodes.advance(100 * MS)
    (trouble,) = of(TroubleNotice, news(client))
    assert (trouble.reason, trouble.all) == ("no-coordinator", True)
    assert 30_000 <= trouble.since_ms <= 31_000
    late = nodes.client("A", "two")
    (told,) = of(TroubleNotice, news(late))
    assert told.since_ms > 33_000
    refused = late.acquire("x", 1, wait_ms=0)
    for _ in range(60):
        nodes.advance(100 * MS)
    (refusal,) = of(Refusal, refused + news(late))
    assert refusal.code == "unavailable"
    assert "has not renewed the right of node" in refusal.text
    nodes.coordinator_up = True
    for _ in range(30):
        nodes.advance(100 * MS)
    assert of(TroubleNotice, news(client))[-1].reason == "no-primary", (
        "of the slots that this test leaves out"
    )


def test_slots_that_wait_for_leases_are_reported_with_the_time_left() -> None:
    nodes = Nodes("A")
    client = nodes.client("A", "one")
    assert of(TroubleNotice, news(client))[-1].reason in ("no-primary", "no-coordinator")
    nodes.advance(500 * MS)
    core = nodes.cores["A"]
    core.service.troubles.acknowledged(HeartbeatAck(1, 1, SLOTS, 25_000), nodes.now)
    nodes.advance(100 * MS)
    trouble = of(TroubleNotice, news(client))[-1]
    assert (trouble.reason, trouble.all) == ("leases", False)
    assert 24_000 <= trouble.left_ms <= 25_000


def test_slots_of_a_former_life_of_a_node_wait_for_its_leases_too() -> None:
    nodes = Nodes()
    nodes.start("A", incarnation=2)
    former = Replica("A", 1)
    nodes.slots(lambda slot: msgspec.structs.replace(slot, primary=former), *range(SLOTS))
    client = nodes.client("A", "one")
    nodes.advance(500 * MS)
    nodes.cores["A"].service.troubles.acknowledged(HeartbeatAck(1, 1, SLOTS, 25_000), nodes.now)
    nodes.advance(100 * MS)
    assert of(TroubleNotice, news(client))[-1].reason == "leases"


def test_a_list_counts_the_slots_that_the_node_may_not_describe() -> None:
    nodes = alone()
    client = nodes.client("A", "one")
    client.acquire("x", 1)
    (listed,) = of(ListReply, client.ask(List(900, "")))
    assert (len(listed.locks), listed.unserved) == (1, 0)
    nodes.coordinator_up = False
    for _ in range(350):
        nodes.advance(100 * MS)
    news(client)
    (listed,) = of(ListReply, client.ask(List(901, "")))
    served = sum(slot.primary is not None for slot in nodes.state.slots)
    assert (listed.locks, listed.unserved) == ([], served)
