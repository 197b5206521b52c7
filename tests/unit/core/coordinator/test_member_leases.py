"""Membership leases and the stabilization window, by themselves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lockring.cluster_state import Condition, Member, Replica
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.timing import Timing
from lockring.units import NS_PER_S

A, B, C = (Replica(name, 1) for name in "abc")
S = NS_PER_S


def members(*replicas: Replica, draining: str = "") -> dict[str, Member]:
    condition: dict[bool, Condition] = {True: "draining", False: "active"}
    return {each.node: Member(each, "h:1", 1, condition[each.node in draining]) for each in replicas}


def settled(*replicas: Replica) -> MemberLeases:
    membership = MemberLeases(Timing(), now_ns=0)
    for replica in replicas:
        membership.hear(replica, now_ns=0)
    membership.observe(members(*replicas), now_ns=0)
    assert membership.observe(members(*replicas), now_ns=S)
    return membership


def test_a_member_is_failed_after_a_member_lease_of_silence() -> None:
    membership = settled(A, B)
    membership.hear(A, now_ns=3 * S)
    membership.hear(B, now_ns=5 * S)
    assert not membership.is_failed(A, now_ns=8 * S - 1)
    assert membership.is_failed(A, now_ns=8 * S)
    assert not membership.is_failed(B, now_ns=8 * S)
    assert membership.next_deadline_ns() is not None


def test_silence_does_not_count_from_before_the_start() -> None:
    membership = MemberLeases(Timing(), now_ns=0)
    membership.start(now_ns=100 * S)
    assert not membership.is_failed(A, now_ns=104 * S)
    assert membership.is_failed(A, now_ns=105 * S)
    assert membership.unacknowledged_ns(A, now_ns=104 * S) == 4 * S
    assert not membership.was_heard(A)
    assert not membership.heard_lately(A, now_ns=104 * S)


def test_silence_of_all_is_the_coordinators_own() -> None:
    membership = settled(A, B)
    membership.hear(A, now_ns=4 * S)
    assert not membership.is_failed(B, now_ns=8 * S), "nobody was heard for four seconds"
    membership.hear(A, now_ns=5 * S)
    membership.hear(A, now_ns=7 * S)
    assert membership.is_failed(B, now_ns=9 * S)


def test_lives_that_ended_together_are_silent_before_the_first_of_them_fails() -> None:
    membership = settled(A, B)
    membership.hear(A, now_ns=0)
    membership.hear(B, now_ns=S - 1)
    for second in range(1, 6):
        membership.hear(C, now_ns=second * S)
    assert membership.is_failed(A, now_ns=5 * S)
    assert not membership.is_failed(B, now_ns=5 * S)
    assert membership.is_silent(B, now_ns=5 * S)
    assert not membership.is_silent(C, now_ns=5 * S)


def test_hearing_a_life_that_was_silent_is_news() -> None:
    membership = settled(A, B)
    for second in range(1, 5):
        membership.hear(A, now_ns=second * S)
    assert not membership.is_failed(B, now_ns=4 * S)
    assert membership.hear(B, now_ns=4 * S)


def test_hearing_a_life_again_in_time_is_no_news() -> None:
    membership = MemberLeases(Timing(), now_ns=0)
    assert membership.hear(A, now_ns=0)
    assert not membership.hear(A, now_ns=S)
    assert membership.hear(B, now_ns=S)
    for second in range(2, 8):
        assert not membership.hear(A, now_ns=second * S)
    assert membership.hear(B, now_ns=7 * S)


def test_a_stall_of_the_coordinator_is_excused() -> None:
    membership = settled(A)
    membership.excuse(60 * S, now_ns=61 * S)
    assert not membership.is_failed(A, now_ns=61 * S)
    assert membership.is_failed(A, now_ns=65 * S)


def test_acknowledgements_count_for_leases_and_messages_for_failure() -> None:
    membership = settled(A)
    membership.acknowledge(A, now_ns=2 * S)
    membership.hear(A, now_ns=9 * S)
    assert membership.unacknowledged_ns(A, now_ns=10 * S) == 8 * S
    assert not membership.is_failed(A, now_ns=10 * S)


def test_each_change_restarts_the_window() -> None:
    membership = MemberLeases(Timing(), now_ns=0)
    for moment, present in [(0, (A,)), (S // 2, (A, B)), (S, (A, B, C))]:
        for replica in present:
            membership.hear(replica, now_ns=moment)
        assert not membership.observe(members(*present), now_ns=moment)
    assert membership.next_deadline_ns() == 2 * S
    assert not membership.observe(members(A, B, C), now_ns=2 * S - 1)
    assert membership.observe(members(A, B, C), now_ns=2 * S)
    assert list(membership.settled) == [A, B, C]
    assert membership.updates == 1
    assert not membership.observe(members(A, B, C), now_ns=2 * S)


def test_a_restart_of_a_node_is_a_change() -> None:
    membership = settled(A, B)
    again = Replica("a", 2)
    membership.hear(again, now_ns=2 * S)
    membership.hear(B, now_ns=2 * S)
    assert not membership.observe(members(again, B), now_ns=2 * S)
    assert membership.observe(members(again, B), now_ns=3 * S)
    assert list(membership.settled) == [again, B]


def test_draining_members_are_no_candidates() -> None:
    membership = settled(A, B)
    membership.observe(members(A, B, draining="a"), now_ns=2 * S)
    assert membership.observe(members(A, B, draining="a"), now_ns=3 * S)
    assert list(membership.settled) == [B]


def test_lives_that_are_named_nowhere_are_forgotten() -> None:
    membership = settled(A, B)
    membership.acknowledge(A, now_ns=S)
    membership.forget([B])
    assert not membership.was_heard(A)
    assert membership.was_heard(B)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1500), st.sampled_from("abcd"), st.booleans()), max_size=30))
def test_only_members_unchanged_for_a_window_are_settled(
    steps: list[tuple[int, str, bool]],
) -> None:
    timing = Timing()
    membership = MemberLeases(timing, now_ns=0)
    now_ns, present = 0, dict[str, Member]()
    unchanged_since_ns = 0
    for pause_ms, name, joins in steps:
        end_ns = now_ns + pause_ms * 1_000_000
        while now_ns < end_ns:
            now_ns = min(end_ns, now_ns + 50_000_000)
            for member in present.values():
                membership.hear(member.replica, now_ns=now_ns)
            if membership.observe(present, now_ns=now_ns):
                assert now_ns - unchanged_since_ns >= timing.stabilization_ns
                assert [replica.node for replica in membership.settled] == sorted(present)
        before = dict(present)
        if joins:
            present[name] = Member(Replica(name, 1), "h:1")
        else:
            present.pop(name, None)
        if present != before:
            unchanged_since_ns = now_ns
        membership.observe(present, now_ns=now_ns)
