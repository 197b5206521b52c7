"""Former lives: which content of a journal stays, and for how long."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Copy, Replica, SlotState
from lockring.core.node.former_lives import FormerLives
from lockring.core.node.recovery import Recovery
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.ids import Incarnation, SlotNumber
from lockring.protocol import FORMER_LIVES_MAX

FORMER, PRESENT, OTHER = Replica("a", 1), Replica("a", 2), Replica("b", 1)


@pytest.fixture
def lives() -> FormerLives:
    slots = {SlotNumber(3): NodeSlot(SlotNumber(3), Sessions())}
    return FormerLives(PRESENT, Recovery(slots, (FORMER.incarnation,), None, ""), 0)


@pytest.mark.parametrize(
    "state",
    [
        SlotState(primary=FORMER),
        SlotState(primary=OTHER, backup=Copy(FORMER, 5)),
        SlotState(primary=OTHER, learner=Copy(FORMER, 5)),
    ],
    ids=["primary", "backup", "learner"],
)
def test_content_stays_while_a_state_names_a_former_life_in_any_place(
    lives: FormerLives, state: SlotState
) -> None:
    assert lives.keeps(state), "also a learner may be in sync by the next state"


def test_content_goes_once_a_state_names_other_replicas_only(lives: FormerLives) -> None:
    assert not lives.keeps(SlotState(primary=OTHER))
    assert not lives.keeps(SlotState(primary=OTHER, learner=Copy(PRESENT, 5)))


def test_a_node_that_starts_again_and_again_vouches_for_its_first_lives_and_its_last() -> None:
    found = tuple(Incarnation(number) for number in range(1, 3 * FORMER_LIVES_MAX))
    lives = FormerLives(Replica("a", found[-1] + 1), Recovery({}, found, None, ""), 0).lives
    assert len(lives) == FORMER_LIVES_MAX
    assert (lives[0], lives[-1]) == (found[0], found[-1])
