"""Leases count from the sending of the message that was acknowledged; promises bind their giver."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockring.cluster_state import Replica
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.node.leases import Lease, Promises, SentTimes
from lockring.core.timing import CLOCK_TICK_NS, DISTANT_PAST_NS, up

A = Replica("A", 1)


def test_acknowledgement_of_a_newer_version_counts_only_once_the_node_knows_it() -> None:
    lease = Lease()
    lease.acknowledged(100, 5, known_version=4)
    assert lease.until_ns == DISTANT_PAST_NS
    lease.learned(4)
    assert lease.until_ns == DISTANT_PAST_NS
    lease.learned(5)
    assert (lease.until_ns, lease.version) == (100, 5)


def test_lease_never_gets_shorter() -> None:
    lease = Lease()
    lease.acknowledged(100, 5, known_version=5)
    lease.acknowledged(90, 3, known_version=5)
    assert (lease.until_ns, lease.version) == (100, 5)


def test_acknowledgements_set_aside_are_bounded() -> None:
    lease = Lease()
    for at in range(1_000):
        lease.acknowledged(at, 9, known_version=1)
    lease.learned(9)
    assert lease.until_ns == 999


def test_lease_counts_from_the_sending_of_the_message_that_was_acknowledged() -> None:
    sent = SentTimes()
    first, second = sent.add(10), sent.add(20)
    assert sent.pop(second) == 20
    assert sent.pop(first) is None
    assert sent.pop(second) is None
    assert sent.pop(99) is None


def test_sent_times_are_bounded() -> None:
    sent = SentTimes()
    first = sent.add(0)
    numbers = [sent.add(at) for at in range(10_000)]
    assert sent.pop(first) is None
    assert sent.has_forgotten(first)
    assert sent.pop(numbers[-1]) == 9_999
    assert not sent.has_forgotten(first), "a later answer is there"


def test_only_a_message_that_was_sent_and_not_answered_can_be_forgotten() -> None:
    sent = SentTimes()
    first = sent.add(10)
    assert [number for number in (-1, 0, first, 99) if sent.has_forgotten(number)] == []
    sent.pop(first)
    assert not sent.has_forgotten(first)


def test_promise_binds_for_the_lengthened_lease_after_the_acknowledgement() -> None:
    promises = Promises()
    assert promises.bound_until_ns(A, 1_000) == DISTANT_PAST_NS
    promises.acknowledge(A, 50)
    assert promises.bound_until_ns(A, 1_000) == 50 + up(1_000)
    promises.forget(A, 60, 1_000)
    assert promises.bound_until_ns(A, 1_000) == 50 + up(1_000)
    promises.forget(A, 50 + up(1_000), 1_000)
    assert promises.bound_until_ns(A, 1_000) == DISTANT_PAST_NS


@given(st.integers(0, 10**12), st.floats(0.9524, 1.05))
def test_lengthened_duration_is_over_on_every_clock_within_the_assumed_rate(
    duration_ns: int, rate: float
) -> None:
    assert up(duration_ns) * 1.0 + CLOCK_TICK_NS >= duration_ns * rate


def test_deadlines_come_out_in_order_and_the_abandoned_do_not_pile_up() -> None:
    living = {5}
    queue: DeadlineQueue[int] = DeadlineQueue(lambda item, _: item in living)
    for item in range(5_000):
        queue.push(10_000 - item, item)
        if item not in living:
            queue.abandon()
    assert len(queue) < 3_000
    assert queue.pop_due(0) is None
    popped = []
    while (due := queue.pop_due(10_000)) is not None:
        popped.append(due)
    assert popped == sorted(popped)
    assert (9_995, 5) in popped
