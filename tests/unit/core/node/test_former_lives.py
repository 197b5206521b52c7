"""Former lives: which content of a journal stays, and for how long."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Copy, Replica, SlotState
from lockring.core.node.former_lives import FormerLives
from lockring.core.node.recovery import Recovery
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.ids import SlotNumber

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
