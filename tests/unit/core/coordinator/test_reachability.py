"""Which pairs of primary and copy are avoided, and for how long."""

from __future__ import annotations

from lockring.cluster_state import Copy, Member, Replica
from lockring.core.coordinator.reachability import AVOIDED_NS, Reachability

A, B, C = (Replica(name, 1) for name in "abc")


def test_the_second_drop_in_a_row_makes_a_pair_avoided_for_a_while() -> None:
    reach = Reachability()
    reach.dropped(A, Copy(B, 5), version=10, now_ns=0)
    assert not reach.is_avoided(A, B, now_ns=0)
    reach.dropped(A, Copy(B, 11), version=20, now_ns=100)
    assert reach.is_avoided(A, B, now_ns=100)
    assert not reach.is_avoided(B, A, now_ns=100)
    assert not reach.is_avoided(A, C, now_ns=100)
    assert reach.next_deadline_ns() == 100 + AVOIDED_NS
    assert not reach.is_avoided(A, B, now_ns=100 + AVOIDED_NS)


def test_the_drops_of_many_slots_of_one_tenure_count_once() -> None:
    reach = Reachability()
    for version in range(10, 20):
        reach.dropped(A, Copy(B, 5), version=version, now_ns=0)
    assert not reach.is_avoided(A, B, now_ns=0)


def test_coming_into_sync_in_between_makes_it_the_first_again() -> None:
    reach = Reachability()
    reach.dropped(A, Copy(B, 5), version=10, now_ns=0)
    reach.in_sync(A, B)
    reach.dropped(A, Copy(B, 11), version=20, now_ns=0)
    assert not reach.is_avoided(A, B, now_ns=0)


def test_after_that_time_one_more_drop_is_enough() -> None:
    reach = Reachability()
    reach.dropped(A, Copy(B, 5), version=10, now_ns=0)
    reach.dropped(A, Copy(B, 11), version=20, now_ns=0)
    assert not reach.expire(now_ns=AVOIDED_NS - 1)
    assert reach.expire(now_ns=AVOIDED_NS)
    assert reach.next_deadline_ns() is None
    assert not reach.is_avoided(A, B, now_ns=AVOIDED_NS)
    reach.dropped(A, Copy(B, 21), version=30, now_ns=AVOIDED_NS)
    assert reach.is_avoided(A, B, now_ns=AVOIDED_NS)


def test_pairs_of_lives_that_are_over_are_forgotten() -> None:
    reach = Reachability()
    for joined, version in ((5, 10), (11, 20)):
        reach.dropped(A, Copy(B, joined), version=version, now_ns=0)
        reach.dropped(C, Copy(B, joined), version=version, now_ns=0)
    reach.forget_all_but({each.node: Member(each, "h:1") for each in (A, B, Replica("c", 2))})
    assert reach.is_avoided(A, B, now_ns=0)
    assert not reach.is_avoided(C, B, now_ns=0)
