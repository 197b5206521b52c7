"""In a large cluster one write, and one read, serves many nodes; in a small one nothing waits."""

from __future__ import annotations

from lockring.core.coordinator.heartbeats import Heartbeats
from lockring.core.coordinator.pace import CONFIRMING_NS, FEW_MEMBERS, Pace
from lockring.core.coordinator.slot_requests import SlotRequestQueue
from lockring.core.timing import Timing
from lockring.ids import ConnectionId, Epoch, NodeId, SequenceNumber, SlotNumber
from lockring.protocol import PROTOCOL, Join, SlotRequest, SlotRequestKind, SlotRequests
from lockring.units import NS_PER_MS, NS_PER_S
from tests.unit.core.coordinator.world import World
from tests.unit.core.states import replica

TIMING = Timing()


def test_a_small_cluster_waits_for_nothing() -> None:
    pace = Pace(TIMING)
    for members in range(FEW_MEMBERS + 1):
        assert pace.newcomers_pause_ns(members) == 0
        assert pace.requests_pause_ns(members) == 0
        assert pace.confirming_pause_ns(members) == 0


def test_pauses_grow_with_the_members_up_to_a_bound() -> None:
    pace = Pace(TIMING)
    assert pace.newcomers_pause_ns(10_000) == TIMING.stabilization_ns
    assert pace.requests_pause_ns(1_004) == 250 * NS_PER_MS
    assert pace.requests_pause_ns(100_000) == TIMING.stabilization_ns
    assert pace.confirming_pause_ns(1_004) == 20 * NS_PER_MS
    assert pace.confirming_pause_ns(100_000) == TIMING.heartbeat_ns // 10


def ask(kind: SlotRequestKind, slot: int = 1) -> SlotRequests:
    return SlotRequests(kind, [SlotRequest(SlotNumber(slot), Epoch(1))])


def test_requests_that_no_client_waits_for_are_collected_from_the_first_on() -> None:
    queue = SlotRequestQueue()
    assert queue.due_ns(100) is None
    queue.add(replica("a"), ask(SlotRequestKind.IN_SYNC), now_ns=1_000)
    queue.add(replica("b"), ask(SlotRequestKind.EXTEND), now_ns=1_050)
    assert queue.due_ns(100) == 1_100


def test_a_request_that_clients_wait_for_takes_all_with_it_at_once() -> None:
    for kind in (SlotRequestKind.TAKEOVER, SlotRequestKind.DROP):
        queue = SlotRequestQueue()
        queue.add(replica("a"), ask(SlotRequestKind.IN_SYNC), now_ns=1_000)
        queue.add(replica("b"), ask(kind), now_ns=1_050)
        due_ns = queue.due_ns(100)
        assert due_ns is not None
        assert due_ns <= 1_050


def test_one_read_confirms_all_heartbeats_of_a_pause() -> None:
    heartbeats = Heartbeats(Pace(TIMING))
    nodes, pause_ns = FEW_MEMBERS + 10, 10 * CONFIRMING_NS
    heartbeats.add(ConnectionId(1), SequenceNumber(1))
    assert heartbeats.begin(lambda _: True, nodes=nodes, now_ns=1_000)
    heartbeats.take_confirmed()
    heartbeats.add(ConnectionId(2), SequenceNumber(1))
    assert heartbeats.next_deadline_ns(lambda _: True, now_ns=1_010) == 1_000 + pause_ns
    assert not heartbeats.begin(lambda _: True, nodes=nodes, now_ns=999 + pause_ns)
    assert heartbeats.begin(lambda _: True, nodes=nodes, now_ns=1_000 + pause_ns)
    assert heartbeats.take_confirmed() == {2: 1}


def join(world: World, number: int) -> None:
    world.core.connected(ConnectionId(number), now_ns=world.now_ns)
    name = f"n{number}"
    message = Join(PROTOCOL, "", name, 1, f"{name}:1", 1, 0)  # type: ignore[arg-type]
    world.core.receive(ConnectionId(number), message, now_ns=world.now_ns)
    world.settle()


def test_the_first_nodes_are_members_at_once_and_later_ones_together() -> None:
    world = World()
    for number in range(1, 13):
        join(world, number)
    at_once = FEW_MEMBERS + 2  # the write that makes them many waits for nothing either
    assert len(world.state.members) <= at_once
    writes = len(world.written)
    world.run(1)
    assert len(world.state.members) == 12
    assert len(world.written) - writes <= 2


def test_a_window_counts_from_the_arrival_and_not_from_the_write() -> None:
    world = World()
    for number in range(1, 21):
        join(world, number)
    world.run(TIMING.stabilization_ns / NS_PER_S + 0.1)
    assert all(slot.primary is not None for slot in world.state.slots)


def test_a_node_that_restarts_does_not_wait_with_newcomers() -> None:
    world = World()
    for number in range(1, 13):
        join(world, number)
    world.run(1.5)
    join(world, 20)
    join(world, 21)
    assert "n21" not in world.state.members
    world.core.disconnected(ConnectionId(3), now_ns=world.now_ns)
    world.core.connected(ConnectionId(30), now_ns=world.now_ns)
    again = Join(PROTOCOL, "", "n3", 2, "n3:1", 1, 0)  # type: ignore[arg-type]
    world.core.receive(ConnectionId(30), again, now_ns=world.now_ns)
    world.settle()
    assert world.state.members[NodeId("n3")].replica.incarnation == 2
    assert "n21" in world.state.members, "they go with it"


def test_a_cluster_at_rest_is_looked_at_and_not_planned() -> None:
    world = World()
    world.join("a")
    world.join("b")
    world.run_until_quiet()
    runs = world.core._runs
    before = runs._planned_at_ns
    world.run(20)
    assert runs._planned_at_ns == before
    assert runs.next_deadline_ns() is not None, "it looks again when a member could have failed"
