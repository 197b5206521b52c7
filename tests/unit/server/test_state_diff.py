"""The changes from one cluster state to the next, in sentences."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.server.state_diff import StateNews, shares, whole
from lockring.slots import SLOTS

N1, N2, N3 = (Replica(f"N{number}", 1) for number in (1, 2, 3))


def state_of(
    *slots: SlotState, members: tuple[Replica, ...] = (N1, N2, N3), **conditions: Any
) -> ClusterState:
    """A state whose first slots are given, and the others vacant."""
    known = {
        each.node: Member(each, f"127.0.0.1:950{each.node[1:]}", 1, conditions.get(each.node, "active"))
        for each in members
    }
    return ClusterState("c", 1, "t", known, (*slots, *[SlotState()] * (SLOTS - len(slots))))


def slot(epoch: int, primary: Replica | None, backup: Replica | None = None, *, base: int = 1) -> SlotState:
    return SlotState(epoch, epoch, base, primary, None if backup is None else Copy(backup, epoch))


def news(*states: ClusterState, me: str | None = None) -> list[str]:
    collected = StateNews(me)
    for old, new in itertools.pairwise(states):
        collected.note(old, new)
    return collected.take_lines()


def test_members_that_come_go_drain_and_come_back_are_named() -> None:
    nobody = state_of(members=())
    both = state_of(members=(N1, N2))
    again = state_of(members=(Replica("N1", 2), N2), N2="draining")
    assert news(nobody, both, again, nobody) == [
        "N1 joined, at 127.0.0.1:9501",
        "N2 joined, at 127.0.0.1:9502",
        "N1 was restarted, at 127.0.0.1:9501",
        "N2 is draining",
        "N1 left",
        "N2 left",
    ]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (slot(1, None), slot(2, N1), "N1 begins to serve 2 slots"),
        (slot(1, N1, N2), slot(2, N2, N1), "2 slots moved from N1 to N2"),
        (slot(1, N1, N2), slot(2, N2), "N2 took over 2 slots of N1"),
        (slot(1, N1, N2), slot(2, N1), "N1 continues without N2's copy of 2 slots"),
        (slot(1, N1), slot(2, N2, base=2), "2 slots of N1 lost both copies; N2 starts them empty"),
        (slot(1, N1), slot(2, None), "2 slots of N1 are not served by any node"),
    ],
)
def test_what_happens_to_slots_is_counted_by_kind(before: SlotState, after: SlotState, line: str) -> None:
    assert news(state_of(before, before), state_of(after, after)) == [line]
    assert news(state_of(before, before), state_of(after, after), me="N3") == []


def test_nodes_that_are_back_with_their_journals_are_not_said_to_take_over() -> None:
    again, members = Replica("N1", 2), (Replica("N1", 2), N2, N3)
    for me in (None, "N1"):
        before = state_of(slot(1, N1, N2), slot(1, N1, N2), members=members)
        after = state_of(slot(2, again, N2), slot(2, again, N2), members=members)
        assert news(before, after, me=me) == ["N1 has 2 slots back from its journal"]
    copied = slot(1, N2, N1)
    back = msgspec.structs.replace(copied, epoch=2, backup=Copy(again, 1))
    other = msgspec.structs.replace(copied, epoch=2, backup=Copy(again, 2))
    before, after = state_of(copied, members=members), state_of(back, members=members)
    assert news(before, after) == ["N1 has its copy of 1 slot back from its journal"]
    assert news(before, after, me="N3") == []
    assert news(before, state_of(other, members=members)) == []


def test_only_a_coordinator_reports_that_a_node_has_failed() -> None:
    before, after = state_of(slot(1, N1, N2)), state_of(slot(2, N2))
    coordinator = StateNews(None, absent=lambda: ["N1"])
    coordinator.note(before, after)
    assert coordinator.take_lines() == ["N2 took over 1 slot of N1, which failed"]
    restarted = state_of(slot(2, N2), members=(Replica("N1", 2), N2, N3))
    assert "N2 took over 1 slot of N1, which left or was restarted" in news(before, restarted)


def test_the_state_at_a_servers_start_is_not_reported_as_news() -> None:
    found = state_of(slot(1, N1, N2), slot(1, N1, N2))
    assert news(ClusterState(), found)[3:] == ["2 slots had N1 as the primary"]
    assert news(ClusterState(), found, me="N1")[3:] == []


def test_a_drain_that_was_undone_is_reported() -> None:
    drained, active = state_of(N2="draining"), state_of()
    assert news(drained, active) == ["N2 is no longer draining: it may have slots again"]


def test_slots_of_primaries_that_are_gone_are_not_counted_as_served() -> None:
    state = state_of(slot(1, N1, N2), slot(1, N1, N2), slot(1, N2, N1), slot(1, N3))
    assert (
        whole(state, ["N1"]) == "2 of 4096 slots served, 0 with a copy in sync; 2 slots of N1, which is gone"
    )


def test_a_node_without_a_lease_is_not_said_to_serve() -> None:
    state = state_of(slot(1, N1, N2), slot(1, N2, N1))
    assert shares(state, N1) == "serves 1 slot, has the copy of 1"
    assert shares(state, N1, may_serve=False) == (
        "should serve 1 slot but may not without a lease, has the copy of 1"
    )


def test_a_move_in_many_steps_is_one_line_that_distinguishes_it_from_a_failure() -> None:
    """The slots' ends alone would look like a failure: at the end the former primary has no copy any more."""
    begin = state_of(slot(1, N1, N2), slot(1, N1, N2))
    first = state_of(slot(2, N2, N1), slot(1, N1, N2))
    second = state_of(slot(2, N2, N1), slot(3, N2, N1))
    end = state_of(slot(4, N2, N3), slot(4, N2, N3))
    assert news(begin, first, second, end) == ["2 slots moved from N1 to N2"]


def test_lines_are_taken_once() -> None:
    collected = StateNews(None)
    collected.note(state_of(), state_of(slot(2, N1)))
    assert collected.take_lines() == ["N1 begins to serve 1 slot"]
    assert collected.take_lines() == []


def test_a_reservation_of_generations_is_no_news() -> None:
    before = slot(1, N1, N2)
    after = msgspec.structs.replace(before, generation_below=5)
    assert news(state_of(before), state_of(after)) == []


def test_a_node_that_was_removed_reads_that_in_its_own_log() -> None:
    assert news(state_of(), state_of(members=(N2, N3)), me="N1") == ["this node was removed from the cluster"]


def test_summaries_count_what_is_served_copied_and_moving() -> None:
    learning = msgspec.structs.replace(slot(1, N1), learner=Copy(N2, 1))
    state = state_of(slot(1, N1, N2), slot(1, N2, N1), learning)
    assert whole(state) == "3 of 4096 slots served, 2 with a copy in sync, 1 being copied"
    assert shares(state, N1) == "serves 2 slots, has the copy of 1; 1 without a copy elsewhere"
    assert shares(state, N2) == "serves 1 slot, has the copy of 1"
