"""The cleaner's queue and rough counts: bounds, delays, and events in any order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lockring.apps.cleaner.core.counts import RoughCounts
from lockring.apps.cleaner.core.queue import CleaningQueue

DELAY_NS = 10
FOLDERS = st.sampled_from(["a", "a/b", "a/b/c", "d", "e/f"])
TIMES = st.integers(min_value=0, max_value=60)

adding = st.tuples(st.just("add"), FOLDERS, TIMES, st.integers(0, 3))
cancelling = st.tuples(st.just("cancel"), FOLDERS, TIMES, st.just(0))
discarding = st.tuples(st.just("discard"), FOLDERS, st.just(0), st.just(0))
restarting = st.tuples(st.just("restart"), FOLDERS, TIMES, st.just(0))
taking = st.tuples(st.just("take"), FOLDERS, TIMES, st.just(0))
Step = tuple[str, str, int, int]


class Twin:
    """The queue in its simplest form: a dictionary that is searched from end to end."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.since: dict[str, tuple[int, int]] = {}
        self.dropped = 0

    def do(self, what: str, folder: str, at: int, stamp: int) -> object:
        known = self.since.get(folder)
        if what == "add":
            if known is None and len(self.since) == self.size_max:
                self.dropped += 1
                return False
            if known is None or ((known[1] != stamp or folder == "d") and at > known[0]):
                self.since[folder] = (at, stamp)
            return True
        if what == "cancel":
            if known is None or at < known[0]:
                return False
            del self.since[folder]
            return True
        if what == "discard":
            self.since.pop(folder, None)
        if what == "restart":
            self.since = {name: (max(at, since), each) for name, (since, each) in self.since.items()}
        if what == "take":
            due = sorted((since, name) for name, (since, _) in self.since.items() if since + DELAY_NS <= at)
            if due:
                del self.since[due[0][1]]
                return due[0][1]
        return None


def do(queue: CleaningQueue, what: str, folder: str, at: int, stamp: int) -> object:
    if what == "add":
        return queue.add(folder, since_ns=at, stamp=stamp, by_event=folder == "d")  # one of them by events
    if what == "cancel":
        return queue.cancel(folder, at_ns=at)
    if what == "discard":
        queue.discard(folder)
    if what == "restart":
        queue.restart(now_ns=at)
    if what == "take":
        taken = queue.take_due(now_ns=at)
        return None if taken is None else taken.folder
    return None


@given(
    st.lists(st.one_of(adding, cancelling, discarding, restarting, taking), max_size=200),
    st.integers(min_value=1, max_value=5),
)
def test_the_queue_is_a_dictionary_that_finds_due_folders_quickly(
    steps: Sequence[Step], size_max: int
) -> None:
    queue, twin = CleaningQueue(delay_ns=DELAY_NS, size_max=size_max), Twin(size_max)
    for step in steps:
        assert do(queue, *step) == twin.do(*step)
        queue.check_invariants()
        assert len(queue) == len(twin.since)
        assert all(folder in queue for folder in twin.since)
        assert queue.dropped == twin.dropped
        first = min((since for since, _ in twin.since.values()), default=None)
        assert queue.next_due_ns() == (None if first is None else first + DELAY_NS)


def test_nothing_is_due_before_its_delay_has_passed() -> None:
    queue = CleaningQueue(delay_ns=DELAY_NS, size_max=5)
    queue.add("a/b", since_ns=100, stamp=1)
    assert queue.take_due(now_ns=100 + DELAY_NS - 1) is None
    taken = queue.take_due(now_ns=100 + DELAY_NS)
    assert taken is not None and taken.folder == "a/b"
    assert queue.take_due(now_ns=1000) is None


def test_a_creation_before_the_emptiness_cancels_nothing_and_one_at_the_same_time_does() -> None:
    queue = CleaningQueue(delay_ns=DELAY_NS, size_max=5)
    queue.add("a/b", since_ns=100, stamp=1)
    assert not queue.cancel("a/b", at_ns=99)
    assert queue.cancel("a/b", at_ns=100)


def test_folders_that_do_not_fit_are_counted_and_queued_ones_stay() -> None:
    queue = CleaningQueue(delay_ns=DELAY_NS, size_max=2)
    assert [queue.add(folder, since_ns=1, stamp=0) for folder in ("a/1", "a/2", "a/3", "a/1")] == [
        True,
        True,
        False,
        True,
    ]
    assert queue.dropped == 1
    assert "a/3" not in queue


def test_unwanted_folders_leave_the_queue_at_once() -> None:
    queue = CleaningQueue(delay_ns=DELAY_NS, size_max=9)
    for number in range(6):
        queue.add(f"a/{number}", since_ns=number, stamp=0)
    assert queue.keep_only(lambda folder: folder in ("a/2", "a/4")) == 4
    assert len(queue) == 2
    taken = queue.take_due(now_ns=100)
    assert taken is not None and taken.folder == "a/2"


# ------------------------------------------------------------------------ rough counts


def counts(size_max: int = 100, age_ns_max: int = 1000) -> RoughCounts:
    return RoughCounts(size_max=size_max, age_ns_max=age_ns_max)


def test_only_the_last_removal_from_a_counted_folder_asks_for_a_look() -> None:
    rough = counts()
    rough.counted("a", 3, now_ns=0)
    assert [rough.removed("a", at_ns=at, now_ns=at) for at in (1, 2, 3)] == [False, False, True]


def test_a_removal_from_an_uncounted_folder_asks_for_a_look() -> None:
    assert counts().removed("a", at_ns=1, now_ns=1)


def test_a_removal_that_was_before_a_creation_asks_for_none_in_whatever_order_they_arrive() -> None:
    rough = counts()
    rough.created("a", at_ns=5, now_ns=6)
    assert not rough.removed("a", at_ns=4, now_ns=7)
    assert rough.removed("a", at_ns=6, now_ns=8)


def test_the_oldest_is_forgotten_when_there_are_too_many_and_what_is_old_when_time_passes() -> None:
    rough = counts(size_max=2, age_ns_max=10)
    rough.counted("a", 1, now_ns=0)
    rough.counted("b", 1, now_ns=1)
    rough.created("a", at_ns=2, now_ns=2)
    rough.counted("c", 1, now_ns=3)
    assert len(rough) == 2
    assert rough.removed("b", at_ns=4, now_ns=4), "b was the oldest, so its count is forgotten"
    assert rough.evict(now_ns=13) == 0 or len(rough) == 1
    assert rough.evict(now_ns=100) > 0
    assert len(rough) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40), st.integers(0, 5))
def test_a_count_never_hides_that_the_last_entry_went_if_all_events_arrive_in_order(
    events: list[tuple[bool, int]], start: int
) -> None:
    rough, there = counts(), start
    rough.counted("a", start, now_ns=0)
    for now_ns, (is_created, _) in enumerate(events, start=1):
        if is_created:
            there += 1
            rough.created("a", at_ns=now_ns, now_ns=now_ns)
        elif there:
            there -= 1
            may_be_empty = rough.removed("a", at_ns=now_ns, now_ns=now_ns)
            assert may_be_empty == (there == 0)


def test_a_folder_is_quiet_unless_something_was_created_in_it_lately() -> None:
    rough = counts()
    assert rough.is_quiet("a", since_ns=0)
    rough.created("a", at_ns=50, now_ns=50)
    rough.removed("a", at_ns=60, now_ns=60)
    assert not rough.is_quiet("a", since_ns=50)
    assert rough.is_quiet("a", since_ns=51)
