"""A new life's reading of a journal, entry by entry."""

from __future__ import annotations

import pytest

from lockring.core.journal import (
    OWN_TENURE,
    ClusterSeen,
    EmptySlot,
    JournalEntry,
    JournalFound,
    LifeBegan,
    ReignEnd,
)
from lockring.core.node.recovery import Recovery, recover
from lockring.core.node.sessions import Sessions
from lockring.ids import Generation, SlotNumber
from lockring.protocol import HandOverSlot, Mutation, Put, Remove, Resume, Snapshot, Tail

SLOT = SlotNumber(7)


def read(*entries: JournalEntry, is_complete: bool = True) -> Recovery:
    return recover(JournalFound(list(entries), is_complete), Sessions(), 0)


def put(number: int) -> Put:
    return Put(f"lock/{number}", 0, 1, "s", number, "me", 1_000, number, 0)


def snapshot(
    *holders: Put, since: int = 5, joined: int = 5, index: int = 3, part: int = 0, last: bool = True
) -> Snapshot:
    return Snapshot(7, since, joined, 1, index, 9, part, last, list(holders))


def tail(after: int, *mutations: Mutation, since: int = 5, joined: int = 5) -> Tail:
    return Tail(7, since, joined, after, 9, list(mutations))


def names(recovery: Recovery) -> list[str]:
    assert recovery.damage == ""
    return sorted(recovery.slots[SLOT].table.locks)


def test_content_and_what_follows_it_are_replayed() -> None:
    found = read(snapshot(put(1), index=3), tail(3, put(2)), tail(4, put(3)))
    assert names(found) == ["lock/1", "lock/2", "lock/3"]
    assert found.slots[SLOT].content == (5, 5)


def test_tails_that_follow_one_another_are_replayed_whatever_stands_between_them() -> None:
    other = Snapshot(8, 5, 5, 1, 0, 9, 0, True, [])
    gone = Remove("lock/2", "s", 2)
    tails = [tail(3, put(2)), tail(4, put(3), gone), tail(6, put(4))]
    found = read(snapshot(put(1), index=3), tails[0], other, tails[1], LifeBegan("A", 1), tails[2])
    assert names(found) == ["lock/1", "lock/3", "lock/4"]
    assert found.slots[SLOT].content == (5, 7)
    assert tails == [tail(3, put(2)), tail(4, put(3), gone), tail(6, put(4))], "what was found stays as it is"


def test_the_highest_generation_of_any_tail_counts() -> None:
    high = Tail(7, 5, 5, 4, Generation(30), [put(3)])
    found = read(snapshot(put(1), index=3), tail(3, put(2)), high, tail(5, put(4)))
    assert found.slots[SLOT].table.highest == 30


def test_tails_before_the_first_start_are_skipped_up_to_it() -> None:
    found = read(
        tail(0, put(1)), tail(1, put(2)), tail(2, put(3)), snapshot(put(2), index=2), tail(2, put(3))
    )
    assert names(found) == ["lock/2", "lock/3"]


def test_entries_before_the_first_start_of_a_slot_are_skipped() -> None:
    """As where a rewrite has made the older segments needless."""
    found = read(tail(1, put(1)), tail(2, put(2)), snapshot(put(1), put(2), index=3), tail(3, put(3)))
    assert names(found) == ["lock/1", "lock/2", "lock/3"]


def test_a_reign_may_begin_before_the_rewrite_has_come_to_its_slot() -> None:
    """It goes on from what only the older segments had, while a part of another snapshot was coming in."""
    found = read(
        snapshot(put(8), last=False),
        Resume(7, 6, OWN_TENURE, 3, 9),
        tail(0, put(1), since=6, joined=OWN_TENURE),
        snapshot(put(1), since=6, joined=OWN_TENURE, index=1),
        tail(1, put(2), since=6, joined=OWN_TENURE),
    )
    assert names(found) == ["lock/1", "lock/2"]


def test_a_rewrite_may_repeat_what_older_entries_have_said() -> None:
    found = read(
        snapshot(put(1), index=3), tail(3, put(2)), snapshot(put(1), put(2), index=4), tail(4, put(3))
    )
    assert names(found) == ["lock/1", "lock/2", "lock/3"]


def test_a_rewrite_may_know_of_more_tokens_than_what_has_come_before_it() -> None:
    """As where a copy had seen them in another stream, whose entries are needless after the rewrite."""
    rewritten = Snapshot(7, 5, 5, 1, 3, Generation(40), 0, True, [put(1)])
    found = read(snapshot(put(1), index=3), rewritten)
    assert names(found) == ["lock/1"]
    assert found.slots[SLOT].table.highest == 40


def test_parts_of_a_snapshot_without_its_end_change_nothing() -> None:
    found = read(
        snapshot(put(1), index=3),
        snapshot(put(5), joined=6, index=8, last=False),
        snapshot(put(6), joined=6, index=8, part=1, last=False),
    )
    assert names(found) == ["lock/1"]
    assert len(found.slots[SLOT].parts) == 2


def test_a_hand_over_is_replayed_before_the_reign_that_it_begins() -> None:
    end = HandOverSlot(7, 5, 5, 3, 4, 9, [put(2)])
    found = read(snapshot(put(1), index=3), ReignEnd(end), Resume(7, 6, OWN_TENURE, 5, 4))
    assert names(found) == ["lock/1", "lock/2"]
    assert found.slots[SLOT].origin == OWN_TENURE


@pytest.mark.parametrize(
    "entries",
    [
        [tail(3, put(1))],
        [snapshot(put(1), part=1)],
        [snapshot(put(1), index=3), tail(4, put(2))],
        [snapshot(put(1), index=3), tail(3, put(2)), tail(5, put(3)), tail(6, put(4))],
        [snapshot(put(1), index=3), tail(2, put(1)), tail(3, put(2)), tail(4, put(3))],
        [snapshot(put(1), index=3), tail(3, put(2)), tail(3, put(2))],
        [snapshot(put(1), index=3), tail(3, put(2)), tail(4)],
        [snapshot(put(1), index=3), tail(3, put(2)), tail(4, put(3), since=6), tail(5, put(4))],
        [snapshot(put(1), index=3), tail(3, put(2)), tail(4, put(3), joined=6), tail(5, put(4))],
        [snapshot(put(1), index=3), tail(3, put(2), joined=6)],
        [snapshot(put(1), index=3), Resume(7, 6, OWN_TENURE, 5, 4)],
        [snapshot(put(1), index=3), snapshot(put(2), index=8, part=1)],
        [snapshot(put(1), index=3), ReignEnd(HandOverSlot(7, 5, 5, 4, 4, 9, []))],
        [EmptySlot(7, -1), tail(0, put(1))],
        [EmptySlot(4096, -1)],
    ],
    ids=[
        "no start",
        "no first part",
        "a tail is missing",
        "a tail is missing between others",
        "old tails before new ones",
        "a tail twice",
        "an empty tail",
        "a tail of another reign between others",
        "a tail of another tenure between others",
        "another tenure",
        "a resume from elsewhere",
        "a part is missing",
        "the end of another content",
        "content of an empty slot",
        "no such slot",
    ],
)
def test_a_contradiction_makes_all_content_worthless(entries: list[JournalEntry]) -> None:
    other = Snapshot(8, 5, 5, 1, 0, 9, 0, True, [])
    seen = ClusterSeen("c", 5, 2_000)
    sessions = Sessions()
    found = recover(JournalFound([LifeBegan("A", 1), seen, other, *entries], True), sessions, 0)
    assert found.damage
    assert (found.slots, found.lives, found.seen) == ({}, (), seen)
    assert len(sessions) == 0


def test_a_slot_that_was_cleared_has_nothing() -> None:
    found = read(LifeBegan("A", 1), snapshot(put(1)), EmptySlot(7, -1))
    assert (found.slots, found.damage, found.lives) == ({}, "", (1,))
