"""The cleaner's decisions: policy, a folder's path from an event to its removal, and its parents' removal after it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.apps.cleaner.core.machine import CleanerCore
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.queue import PendingFolder
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.core.words import Change, FolderEvent, FolderState, Reason

DELAY_NS = 100
EMPTY = FolderState(0, stamp=1)


def core(policy: Policy | None = None, queue_max: int = 100) -> CleanerCore:
    return CleanerCore(policy or Policy(), delay_ns=DELAY_NS, queue_max=queue_max)


def event(change: Change, folder: str, at_ns: int) -> FolderEvent:
    return FolderEvent(change, folder, at_ns)


# ------------------------------------------------------------------------------ policy


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("", Reason.ROOT),
        ("a", Reason.TOP),
        ("a/.uploads/1", Reason.MULTIPART),
        ("a/repo/.git/refs", Reason.PATTERN),
        ("free/b", Reason.ALLOWED),
        ("a/kept/below", Reason.PATTERN),
        ("a/b", None),
        ("a/b/c", None),
    ],
)
def test_a_policy_says_which_folders_are_kept_and_why(folder: str, reason: Reason | None) -> None:
    policy = Policy(is_kept=lambda each: each == "a/kept", allows_empty=lambda top: top == "free")
    assert policy.keeps(folder, EMPTY) is reason


def test_children_of_the_root_are_removed_only_on_request_and_the_root_never() -> None:
    policy = Policy(children=True)
    assert policy.keeps("a", EMPTY) is None
    assert policy.keeps("", EMPTY) is Reason.ROOT


def test_an_explicit_marker_is_removed_only_on_request() -> None:
    marker = FolderState(0, is_explicit=True)
    assert Policy().keeps("a/b", marker) is Reason.MARKER
    assert Policy(markers=True).keeps("a/b", marker) is None


# ------------------------------------------------------------------------ a folder's way


def test_a_folder_that_became_empty_is_removed_after_the_delay_and_not_before() -> None:
    cleaner = core()
    assert cleaner.on_event(event(Change.REMOVED, "a/b", 10), now_ns=11)
    assert cleaner.found("a/b", EMPTY, since_ns=10, is_mine=True) is None
    assert cleaner.take_due(now_ns=109) is None
    pending = cleaner.take_due(now_ns=110)
    assert pending == PendingFolder("a/b", 10, 1)
    assert cleaner.judge(pending, EMPTY, is_mine=True, now_ns=110) == "remove"


@pytest.mark.parametrize(
    ("look", "is_mine", "reason"),
    [
        (FolderState(1), True, "not empty"),
        (EMPTY, False, "another worker's"),
        (Reason.GONE, True, "gone already"),
        (Reason.DENIED, True, "no permission"),
    ],
)
def test_a_folder_is_kept_if_a_condition_fails_when_its_removal_is_due(
    look: FolderState | Reason, is_mine: bool, reason: str
) -> None:
    cleaner = core()
    assert cleaner.judge(PendingFolder("a/b", 0, 1), look, is_mine=is_mine, now_ns=200) == "keep"
    assert cleaner.tally.kept == {reason: 1}


def test_a_folder_that_was_written_to_and_is_empty_again_waits_once_more() -> None:
    cleaner = core()
    assert (
        cleaner.judge(PendingFolder("a/b", 0, 1), FolderState(0, stamp=2), is_mine=True, now_ns=200) == "wait"
    )
    assert cleaner.tally.restarted == 1
    assert cleaner.next_due_ns() == 300


def test_a_creation_takes_a_folder_out_of_the_queue() -> None:
    cleaner = core()
    cleaner.found("a/b", EMPTY, since_ns=10, is_mine=True)
    assert not cleaner.on_event(event(Change.CREATED, "a/b", 20), now_ns=21)
    assert cleaner.waiting == 0


def test_an_event_from_the_future_counts_as_of_now() -> None:
    cleaner = core()
    cleaner.on_event(event(Change.CREATED, "a/b", 10**18), now_ns=20)
    assert cleaner.on_event(event(Change.REMOVED, "a/b", 30), now_ns=30)


def test_lost_events_restart_every_delay() -> None:
    cleaner = core()
    cleaner.found("a/b", EMPTY, since_ns=10, is_mine=True)
    cleaner.on_events_lost(now_ns=90)
    assert cleaner.next_due_ns() == 190


def test_folders_of_other_workers_are_never_queued() -> None:
    cleaner = core()
    assert cleaner.found("a/b", EMPTY, since_ns=0, is_mine=False) is Reason.OTHERS
    cleaner.found("a/c", EMPTY, since_ns=0, is_mine=True)
    assert cleaner.keep_only(lambda folder: False) == 1
    assert cleaner.waiting == 0


def test_a_full_queue_says_what_it_dropped() -> None:
    cleaner = core(queue_max=2)
    for number in range(5):
        cleaner.found(f"a/{number}", EMPTY, since_ns=0, is_mine=True)
    assert (cleaner.waiting, cleaner.dropped) == (2, 3)


# ------------------------------------------------------------------------------ parents


def test_a_parent_that_became_empty_by_a_removal_follows_at_once() -> None:
    cleaner = core()
    assert cleaner.removed("a/b/c") == "a/b"
    follower = cleaner.follows("a/b", EMPTY, is_mine=True, now_ns=200)
    assert follower is not None
    assert cleaner.judge(follower, EMPTY, is_mine=True, now_ns=200) == "remove"


def test_a_parent_with_recent_changes_waits_for_the_delay() -> None:
    cleaner = core()
    cleaner.on_event(event(Change.CREATED, "a/b", 150), now_ns=150)
    cleaner.on_event(event(Change.REMOVED, "a/b", 160), now_ns=160)
    assert cleaner.follows("a/b", EMPTY, is_mine=True, now_ns=200) is None
    assert cleaner.next_due_ns() == 300


@pytest.mark.parametrize(("look", "is_mine"), [(FolderState(1), True), (EMPTY, False), (Reason.GONE, True)])
def test_a_parent_that_is_not_empty_or_not_ours_does_not_follow(
    look: FolderState | Reason, is_mine: bool
) -> None:
    assert core().follows("a/b", look, is_mine=is_mine, now_ns=200) is None


def test_after_a_child_of_the_root_nothing_follows() -> None:
    assert core().removed("a") is None


# -------------------------------------------------------------- events in whatever order


class World:
    """The true state of one folder, whose events arrive late and in any order."""

    def __init__(self) -> None:
        self.changes: list[FolderEvent] = []
        self.entries = 0

    def change(self, is_created: bool, at_ns: int) -> None:
        if is_created or self.entries:
            self.entries += 1 if is_created else -1
            self.changes.append(event(Change.CREATED if is_created else Change.REMOVED, "a/b", at_ns))

    def look(self) -> FolderState:
        return FolderState(self.entries, stamp=len(self.changes))


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_a_folder_is_removed_only_if_it_stayed_empty_for_the_delay_however_late_events_come(
    writes: list[bool], data: st.DataObject
) -> None:
    world, cleaner = World(), core()
    changed_at_ns = 0
    now_ns = 0
    untold: list[FolderEvent] = []
    for is_created in writes:
        now_ns += data.draw(st.integers(1, 150))
        before = len(world.changes)
        world.change(is_created, now_ns)
        if len(world.changes) > before:
            untold.append(world.changes[-1])
            changed_at_ns = now_ns
        for told in data.draw(st.permutations(untold)):
            if data.draw(st.booleans()):
                untold.remove(told)
                if cleaner.on_event(told, now_ns=now_ns):
                    cleaner.found("a/b", world.look(), since_ns=now_ns, is_mine=True, by_event=True)
        cleaner.check_invariants()
        now_ns += data.draw(st.integers(0, 150))
        pending = cleaner.take_due(now_ns=now_ns)
        if (
            pending is not None
            and cleaner.judge(pending, world.look(), is_mine=True, now_ns=now_ns) == "remove"
        ):
            assert world.entries == 0
            assert now_ns - changed_at_ns >= DELAY_NS
            return


@given(st.lists(st.booleans(), max_size=12), st.data())
def test_a_folder_that_stays_empty_is_found_by_its_events_in_any_order(
    writes: list[bool], data: st.DataObject
) -> None:
    world, cleaner = World(), core()
    for now_ns, is_created in enumerate([True, *writes], start=1):
        world.change(is_created, now_ns)
    for now_ns in range(100, 100 + world.entries):
        world.change(False, now_ns)
    for told in data.draw(st.permutations(world.changes)):
        if cleaner.on_event(told, now_ns=200):
            cleaner.found("a/b", world.look(), since_ns=200, is_mine=True, by_event=True)
    assert cleaner.waiting == 1, "the newest removal comes after every creation, by its time"


# ------------------------------------------------------------------------------- tally


def test_a_report_adds_up() -> None:
    tally = Tally()
    tally.begin_scan()
    for reason in (Reason.NOT_EMPTY, Reason.NOT_EMPTY, Reason.PATTERN, None, None):
        tally.saw(reason)
    tally.end_scan()
    tally.delete()
    tally.delete(was_kept_for=Reason.NOT_EMPTY)
    tally.keep(Reason.BUSY)
    assert (tally.seen, tally.deleted) == (5, 2)
    assert tally.kept == {"in use": 1, "not empty": 1, "pattern": 1}
    assert tally.seen == tally.deleted + sum(tally.kept.values())
