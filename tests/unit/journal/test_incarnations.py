"""No life has a former one's incarnation, though the clock was set back and records of former lives are lost."""

from __future__ import annotations

import pytest

from lockring.core.journal import JournalEntry, LifeBegan
from lockring.ids import Incarnation, NodeId
from lockring.journal.incarnations import next_incarnation

NONE = Incarnation(0)


def lives(*incarnations: int) -> list[JournalEntry]:
    return [LifeBegan(NodeId("N1"), Incarnation(each)) for each in incarnations]


@pytest.mark.parametrize("known", [lives(), lives(7), lives(9, 8)])
def test_a_life_takes_the_time_of_its_clock_if_all_known_lives_are_earlier(known: list[JournalEntry]) -> None:
    assert next_incarnation(Incarnation(10), 5, asked=NONE, entries=known) == 10


@pytest.mark.parametrize("known", [lives(10), lives(10, 3)])
def test_a_life_whose_clock_was_set_back_goes_beyond_the_known_ones_by_a_random_step(
    known: list[JournalEntry],
) -> None:
    assert next_incarnation(Incarnation(10), 0, asked=NONE, entries=known) == 11
    assert next_incarnation(Incarnation(2), 5, asked=NONE, entries=known) == 16


def test_a_life_goes_beyond_what_a_coordinator_asks_for_by_a_random_step_too() -> None:
    assert next_incarnation(Incarnation(10), 5, asked=Incarnation(10)) == 10
    assert next_incarnation(Incarnation(10), 5, asked=Incarnation(11)) == 16
    assert next_incarnation(Incarnation(10), 5, asked=Incarnation(11), entries=lives(20)) == 26
