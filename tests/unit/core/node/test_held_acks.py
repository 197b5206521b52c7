"""Acknowledgements that wait for a copy's journal leave in order, and none takes the place of one of an older state."""

from __future__ import annotations

from lockring.cluster_state import Replica
from lockring.core.node.held_acks import HELD_NS, HeldAck, HeldAcks
from lockring.core.node.journal import NEVER
from lockring.ids import Incarnation, MutationIndex, NodeId, SequenceNumber, SlotNumber, Version
from lockring.protocol import Position

PRIMARY = Replica(NodeId("A"), Incarnation(1))
LEASE_NS = 30 * HELD_NS
OLD, NEW = Version(7), Version(8)


def position(slot: int, reached: int) -> Position:
    return Position(SlotNumber(slot), OLD, OLD, MutationIndex(reached))


def ack(
    sequence: int,
    version: Version,
    positions: list[Position],
    *,
    primary: Replica = PRIMARY,
    number: int = 5,
    since_ns: int = 0,
) -> HeldAck:
    return HeldAck(
        primary, SequenceNumber(sequence), version, number=number, positions=positions, since_ns=since_ns
    )


def holding(*acks: tuple[int, Version, list[Position]], number: int = 5) -> HeldAcks:
    """Acknowledgements of messages 1, 2, … that wait for a batch, each since its number of nanoseconds."""
    held = HeldAcks()
    for sequence, (since_ns, version, positions) in enumerate(acks, start=1):
        held.hold(ack(sequence, version, positions, number=number, since_ns=since_ns))
    return held


def told(found: list[HeldAck]) -> list[tuple[int, Version, list[Position]]]:
    assert all(each.primary == PRIMARY for each in found)
    return [(each.sequence, each.version, each.positions) for each in found]


def test_those_of_one_state_leave_as_one_with_the_latest_position_of_each_slot() -> None:
    held = holding((0, NEW, [position(1, 3), position(2, 1)]), (1, NEW, []), (2, NEW, [position(1, 4)]))
    assert told(held.take_durable(5)) == [(3, NEW, [position(1, 4), position(2, 1)])]
    assert not held.waiting


def test_nothing_leaves_before_the_batch_that_it_waits_for() -> None:
    held = holding((0, NEW, [position(1, 3)]), (1, OLD, []))
    assert held.take_durable(4) == []
    assert len(held.waiting) == 2


def test_those_of_two_states_leave_one_by_one() -> None:
    held = holding((0, OLD, []), (1, OLD, [position(1, 3)]), (2, NEW, [position(2, 1)]))
    assert told(held.take_durable(5)) == [(2, OLD, [position(1, 3)]), (3, NEW, [position(2, 1)])]


def test_late_ones_leave_for_their_leases_once_and_the_last_of_each_state_again_with_its_positions() -> None:
    held = holding(
        (0, OLD, [position(1, 3)]), (1, NEW, [position(1, 4)]), (2, NEW, [position(2, 1)]), (3, NEW, [])
    )
    assert [each.sequence for each in held.take_late(NEW, LEASE_NS, HELD_NS)] == [1, 3]
    assert held.take_late(NEW, LEASE_NS, 2 * HELD_NS) == []
    newest = [position(1, 4), position(2, 1)]
    assert told(held.take_durable(5)) == [(1, OLD, [position(1, 3)]), (4, NEW, newest)]


def test_those_of_a_state_that_the_journal_lacks_do_not_leave_late_under_an_older_one() -> None:
    held = holding((0, OLD, []), (1, NEW, []), (2, NEW, []))
    assert [(each.sequence, each.version) for each in held.take_late(OLD, LEASE_NS, HELD_NS)] == [(1, OLD)]
    assert held.take_late(OLD, LEASE_NS, 2 * HELD_NS) == []
    held.hold(ack(4, NEW, [], since_ns=3))
    assert [(each.sequence, each.version) for each in held.take_late(NEW, LEASE_NS, 3 * HELD_NS)] == [
        (3, NEW)
    ]


def test_nothing_leaves_late_before_its_time_or_alone() -> None:
    assert holding((0, OLD, []), (1, NEW, [])).take_late(NEW, LEASE_NS, HELD_NS - 1) == []
    assert holding((0, OLD, [])).take_late(NEW, LEASE_NS, HELD_NS) == []


def test_a_copy_that_says_nothing_any_more_still_remembers_by_which_states_it_would_have() -> None:
    held = holding((0, OLD, []), (1, OLD, [position(1, 3)]), (2, NEW, []), (3, NEW, []), number=NEVER)
    for _ in range(2):
        assert held.take_late(NEW, LEASE_NS, LEASE_NS // 3) == []
        assert [each.sequence for each in held.waiting] == [2, 4]
    held.recovered(9)
    assert told(held.take_durable(9)) == [(2, OLD, [position(1, 3)]), (4, NEW, [position(1, 3)])]


def test_what_waits_for_long_counts_from_the_oldest() -> None:
    held = holding((0, OLD, []), (HELD_NS, NEW, []))
    held.take_late(NEW, LEASE_NS, HELD_NS)
    held.hold(ack(3, NEW, [], since_ns=LEASE_NS // 3))
    assert held.take_late(NEW, LEASE_NS, LEASE_NS // 3) == []
    assert [each.sequence for each in held.waiting] == [1, 3]


def test_those_to_several_primaries_wait_for_batches_of_their_own() -> None:
    other = Replica(NodeId("B"), Incarnation(1))
    held = HeldAcks()
    held.hold(ack(1, NEW, [position(1, 1)], number=3))
    held.hold(ack(7, NEW, [position(9, 1)], primary=other, number=4))
    held.hold(ack(2, NEW, [position(1, 2)], number=5))
    assert held.has(PRIMARY)
    assert held.has(other)
    assert [(each.primary, each.sequence) for each in held.take_durable(4)] == [(PRIMARY, 1), (other, 7)]
    assert held.has(PRIMARY)
    assert not held.has(other)
    assert told(held.take_durable(5)) == [(2, NEW, [position(1, 2)])]
    assert not held.waiting


def test_what_waits_for_a_primary_that_is_gone_is_dropped_alone() -> None:
    other = Replica(NodeId("B"), Incarnation(1))
    held = HeldAcks()
    held.hold(ack(1, NEW, []))
    held.hold(ack(7, NEW, [], primary=other))
    held.forget(other)
    assert told(held.take_durable(5)) == [(1, NEW, [])]
