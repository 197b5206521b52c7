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


def holding(*acks: tuple[int, Version, list[Position]], number: int = 5) -> HeldAcks:
    """Acknowledgements of messages 1, 2, … that wait for a batch, each since its number of nanoseconds."""
    held = HeldAcks()
    for sequence, (since_ns, version, positions) in enumerate(acks, start=1):
        ack = HeldAck(
            SequenceNumber(sequence), version, number=number, positions=positions, since_ns=since_ns
        )
        held.hold(PRIMARY, ack)
    return held


def told(found: list[tuple[Replica, HeldAck]]) -> list[tuple[int, Version, list[Position]]]:
    assert all(primary == PRIMARY for primary, _ in found)
    return [(ack.sequence, ack.version, ack.positions) for _, ack in found]


def test_those_of_one_state_leave_as_one_with_the_latest_position_of_each_slot() -> None:
    held = holding((0, NEW, [position(1, 3), position(2, 1)]), (1, NEW, []), (2, NEW, [position(1, 4)]))
    assert told(held.take_durable(5)) == [(3, NEW, [position(1, 4), position(2, 1)])]
    assert not held.by_primary


def test_nothing_leaves_before_the_batch_that_it_waits_for() -> None:
    held = holding((0, NEW, [position(1, 3)]), (1, OLD, []))
    assert held.take_durable(4) == []
    assert len(held.by_primary[PRIMARY]) == 2


def test_those_of_two_states_leave_one_by_one() -> None:
    held = holding((0, OLD, []), (1, OLD, [position(1, 3)]), (2, NEW, [position(2, 1)]))
    assert told(held.take_durable(5)) == [(2, OLD, [position(1, 3)]), (3, NEW, [position(2, 1)])]


def test_late_ones_leave_for_their_leases_once_and_the_last_of_each_state_again_with_its_positions() -> None:
    held = holding(
        (0, OLD, [position(1, 3)]), (1, NEW, [position(1, 4)]), (2, NEW, [position(2, 1)]), (3, NEW, [])
    )
    assert [ack.sequence for _, ack in held.take_late(NEW, LEASE_NS, HELD_NS)] == [1, 3]
    assert held.take_late(NEW, LEASE_NS, 2 * HELD_NS) == []
    newest = [position(1, 4), position(2, 1)]
    assert told(held.take_durable(5)) == [(1, OLD, [position(1, 3)]), (4, NEW, newest)]


def test_those_of_a_state_that_the_journal_lacks_do_not_leave_late_under_an_older_one() -> None:
    held = holding((0, OLD, []), (1, NEW, []), (2, NEW, []))
    assert [(ack.sequence, ack.version) for _, ack in held.take_late(OLD, LEASE_NS, HELD_NS)] == [(1, OLD)]
    assert held.take_late(OLD, LEASE_NS, 2 * HELD_NS) == []
    ack = HeldAck(SequenceNumber(4), NEW, number=5, positions=[], since_ns=3)
    held.hold(PRIMARY, ack)
    assert [(ack.sequence, ack.version) for _, ack in held.take_late(NEW, LEASE_NS, 3 * HELD_NS)] == [
        (3, NEW)
    ]


def test_nothing_leaves_late_before_its_time_or_alone() -> None:
    assert holding((0, OLD, []), (1, NEW, [])).take_late(NEW, LEASE_NS, HELD_NS - 1) == []
    assert holding((0, OLD, [])).take_late(NEW, LEASE_NS, HELD_NS) == []


def test_a_copy_that_says_nothing_any_more_still_remembers_by_which_states_it_would_have() -> None:
    held = holding((0, OLD, []), (1, OLD, [position(1, 3)]), (2, NEW, []), (3, NEW, []), number=NEVER)
    for _ in range(2):
        assert held.take_late(NEW, LEASE_NS, LEASE_NS // 3) == []
        assert [ack.sequence for ack in held.by_primary[PRIMARY]] == [2, 4]
    held.recovered(9)
    assert told(held.take_durable(9)) == [(2, OLD, [position(1, 3)]), (4, NEW, [position(1, 3)])]


def test_what_waits_for_long_counts_from_the_oldest() -> None:
    held = holding((0, OLD, []), (HELD_NS, NEW, []))
    held.take_late(NEW, LEASE_NS, HELD_NS)
    ack = HeldAck(SequenceNumber(3), NEW, number=5, positions=[], since_ns=LEASE_NS // 3)
    held.hold(PRIMARY, ack)
    assert held.take_late(NEW, LEASE_NS, LEASE_NS // 3) == []
    assert [each.sequence for each in held.by_primary[PRIMARY]] == [1, 3]
