"""The read model: what people see of a cluster, its locks, groups and events, made of the answers of servers."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.core.client import LocksFound
from lockring.errors import InvalidRequest
from lockring.protocol import (
    EventRecord,
    EventsReply,
    GroupMember,
    HolderRecord,
    LockRecord,
    ServerStatus,
    View,
    WaiterRecord,
)
from lockring.slots import SLOTS
from lockring.views.cluster import COLOURS, ClusterView, MemberReport, cluster_view, member_colours
from lockring.views.events import event_views
from lockring.views.filters import LockFilter, event_filter, lock_filter
from lockring.views.groups import group_view
from lockring.views.locks import lock_view, locks_view
from lockring.views.ring_arcs import ring_arcs
from lockring.views.words import duration

A, B = Replica("a", 1), Replica("b", 1)


def state_of(*slots: SlotState) -> ClusterState:
    """A cluster of A and B, with these slots again and again."""
    members = {each.node: Member(each, f"{each.node}:1", condition="active") for each in (A, B)}
    return ClusterState("c", 7, members=members, slots=slots * (SLOTS // len(slots)), coordinator="c:1")


WELL = state_of(
    SlotState(primary=A, backup=Copy(B, 1)),
    SlotState(primary=B, backup=Copy(A, 1)),
)


def report(node: str, **more: object) -> MemberReport:
    values = {"serving": SLOTS // 2, "primary": SLOTS // 2, "lease_left_ms": 9_000, "locks": 3, "waiters": 1}
    return MemberReport(ServerStatus("node", node, 1, 7, **(values | more)), 0.01)


def view_of(state: ClusterState = WELL, note: str = "", **reports: MemberReport) -> ClusterView:
    return cluster_view(state, note, {"a": report("a"), "b": report("b")} | reports)


def test_a_cluster_that_is_well_says_so() -> None:
    view = view_of()
    assert (view.health, view.summary) == ("ok", "Every slot is served and has a backup.")
    assert [each.node for each in view.members] == ["a", "b"]
    assert (view.locks, view.waiters, view.remarks) == (6, 2, [])


@pytest.mark.parametrize(
    ("state", "reports", "health", "summary"),
    [
        (state_of(SlotState()), {}, "bad", "4,096 slots without a primary: their locks cannot be acquired."),
        (state_of(SlotState(primary=A)), {}, "warn", "Every slot is served; some have no backup."),
        (WELL, {"b": MemberReport(problem="it does not answer: silent")}, "bad", "b needs a look."),
        (WELL, {"b": report("b", lease_left_ms=0)}, "bad", "b needs a look."),
        (WELL, {"b": report("b", journal_trouble="the disk is full")}, "bad", "b needs a look."),
        (
            WELL,
            {"b": report("b", away_ms=3_000)},
            "warn",
            "Every slot is served and has a backup; a change is under way.",
        ),
        (ClusterState(), {}, "bad", "There are no members yet."),
    ],
)
def test_a_cluster_says_what_is_wrong(
    state: ClusterState, reports: dict[str, MemberReport], health: str, summary: str
) -> None:
    view = view_of(state, **reports)
    assert (view.health, view.summary) == (health, summary)


def test_members_keep_their_colours_when_others_come_and_go() -> None:
    assert member_colours(["N1", "N2", "N3"]) == {"N1": 0, "N2": 1, "N3": 2}
    assert member_colours(["N1", "N3"]) == {"N1": 0, "N3": 2}
    many = member_colours([f"N{number}" for number in range(1, 30)] + ["a", "b"])
    assert set(many.values()) == set(range(COLOURS))


def test_the_note_of_a_server_is_a_remark_and_moves_are_counted() -> None:
    view = view_of(state_of(SlotState(primary=A, backup=Copy(B, 1), learner=Copy(B, 2))), "waits for leases")
    assert "Waits for leases." in view.remarks
    assert [(each.source, each.target, each.slots) for each in view.moves] == [("a", "b", SLOTS)]


def test_the_ring_has_an_arc_for_each_run_of_slots_and_a_whole_circle_in_two_halves() -> None:
    halves = ClusterState(
        "c",
        7,
        members=WELL.members,
        slots=(SlotState(primary=A),) * (SLOTS // 2) + (SlotState(primary=B),) * (SLOTS // 2),
    )
    arcs = ring_arcs(halves, view_of(halves))
    assert [(each.band, each.node) for each in arcs] == [("primary", "a"), ("primary", "b")]
    (whole,) = ring_arcs(state_of(SlotState(primary=A)), view_of())
    assert whole.path.count("M") == 2
    (vacant,) = ring_arcs(state_of(SlotState()), view_of(state_of(SlotState())))
    assert vacant.colour == -1


def lock(*, left_ms: int = 9_000, waiters: int = 0, holders: int = 1) -> LockRecord:
    return LockRecord(
        "n", 5, "a", 0 if holders < 2 else 1, 1, 7, 0,
        [HolderRecord(f"h{place}", "s", 1, 7 + place, 65_000, 10_000, left_ms) for place in range(holders)],
        [WaiterRecord(f"w{place}", "t", 1, 2_500) for place in range(waiters)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "summary"),
    [
        (lock(), "Held by h0 for 1 min 5 s."),
        (lock(waiters=2), "Held by h0 for 1 min 5 s. 2 waiters."),
        (lock(holders=3), "Held by h0 and 2 others (shared) for 1 min 5 s."),
        (lock(holders=0), "Free."),
        (
            lock(left_ms=1_000),
            "Held by h0 for 1 min 5 s. Its lease was renewed 9.0 s ago, and ends in 1.0 s unless it is renewed.",
        ),
    ],
)
def test_a_lock_says_in_a_sentence_which_holder_blocks(record: LockRecord, summary: str) -> None:
    assert lock_view(record).summary == summary


def test_a_page_of_locks_has_the_first_holder_and_counts() -> None:
    found = LocksFound([lock(waiters=1)], [(1, 300)], matched=9, has_more=True, unserved_slots=2)
    view = locks_view(found, LockFilter(text="a b"))
    (row,) = view.locks
    assert (row.holder.owner, row.waiters, row.longest_wait_s) == ("h0", 300, 2.5)
    assert (view.matched, view.after, view.unserved_slots) == (9, "n", 2)
    assert view.command == "lockring ls --limit 50 --text 'a b'"


def test_filters_are_checked_and_go_into_urls() -> None:
    wanted = lock_filter({"prefix": "jobs/", "show": "waiting", "limit": "100", "other": "x"})
    assert wanted == LockFilter("jobs/", show="waiting", limit=100)
    assert lock_filter(wanted.parameters()) == wanted
    assert lock_filter({}) == LockFilter()
    assert not LockFilter(after="x").is_narrow
    for wrong in ({"limit": "7"}, {"mode": "x"}, {"show": ""}, {"text": "x" * 1_025}, {"prefix": "\ud800"}):
        with pytest.raises(InvalidRequest):
            lock_filter(wrong)
    with pytest.raises(InvalidRequest):
        event_filter({"kind": "nothing"})


def test_a_group_says_which_share_of_the_keys_each_member_owns() -> None:
    members = [GroupMember(f"m{place}", 1, b"", "o", 10 + place) for place in range(3)]
    view = group_view("g", View(1, 12, False, members, ["m1"]), COLOURS)
    assert sum(each.key_slots for each in view.members) == SLOTS
    assert [each.is_awaited for each in view.members] == [False, True, False]
    assert view.summary == "Not settled: m1 have not yet let go of keys."
    assert group_view("g", View(1, 0, True, []), COLOURS).summary == "It has no members."


def test_events_are_the_newest_first_with_their_weight() -> None:
    events = [EventRecord(1, "joined", 9_000, node="a"), EventRecord(2, "lost", 1_000, name="x", owner="o")]
    views = event_views({"a": EventsReply(1, events, False, False, 2, "o", 0)}, wall_s=1_000_000.0)
    assert [(each.kind, each.weight, each.age_s) for each in views] == [
        ("lost", "bad", 1.0),
        ("joined", "ok", 9.0),
    ]
    assert views[0].at == "1970-01-12T13:46:39Z"


def test_durations_have_two_units_at_most() -> None:
    words = [duration(each) for each in (0, 0.44, 12.4, 59.7, 60, 185, 3_600, 7_800, 90_000, -5)]
    assert words == [
        "0.0 s",
        "0.4 s",
        "12 s",
        "1 min",
        "1 min",
        "3 min 5 s",
        "1 h",
        "2 h 10 min",
        "1 d 1 h",
        "0.0 s",
    ]


def test_views_are_written_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(view_of()))["members"][0]["node"] == "a"
