"""The incarnation of a new life: one that no former life of the node has had, even one that no record is left of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockring.core.journal import JournalEntry, LifeBegan
from lockring.ids import Incarnation

STEP_MAX: Final = 1 << 30
"""How far an incarnation may go beyond the last known one where the clock gives none: 18 minutes, in microseconds."""


def next_incarnation(
    by_clock: Incarnation, chance: int, *, asked: Incarnation, entries: Iterable[JournalEntry] = ()
) -> Incarnation:
    """Return an incarnation for a new life: by the clock, or a later one if a former life's was not lower.

    The clock may have been set back, so that former lives have had later ones. The last of those may be unknown: to a
    journal that is damaged or an older copy, and to a coordinator that does not lead any more. The number after the
    last known one could then be an unknown life's, and the new life would be taken for that, with all that it held. So
    it takes a step that no life takes twice.

    Args:
        by_clock: the wall clock, in microseconds.
        chance: a random number from 0 to `STEP_MAX` - 1.
        asked: the least one that a coordinator asks for; 0 for any.
        entries: of the node's journal.
    """
    lives = (each.incarnation for each in entries if isinstance(each, LifeBegan))
    known = max(asked - 1, *lives, 0)
    return by_clock if by_clock > known else Incarnation(known + 1 + chance)
