"""The names of locks in order, slot by slot, for searches alone.

Acquires and releases know nothing of it. A slot's names are sorted when a search has come by it, and what was added
since is found by the order in which a table keeps its locks: the newest are last. A lock that was last granted before
names were last looked at was there then, and so were all locks before it. Names whose lock is gone stay until they are
many, and are passed over.

Without a search for a while the index is given up, some slots at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from lockring.core.node.lock_table import LockTable
from lockring.core.node.reign import Reign
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import NO_GENERATION, SlotNumber
from lockring.units import NS_PER_S

UNUSED_NS: Final = 60 * NS_PER_S
"""How long the index is kept after the last search."""

_GONE_MIN: Final = 8
_GONE_DIVISOR: Final = 16
_FORGOTTEN_AT_ONCE: Final = 128
"""Slots whose names are given up in one turn of the node: to drop a million names takes a tenth of a second."""


class SlotNames:
    """The names of a slot's locks in one reign, in order, and perhaps some of locks that are gone.

    Attributes:
        reign: see above.
        names: in order.
        mark: the slot's highest generation when they were brought up to date.
    """

    __slots__ = ("_joined", "mark", "names", "reign")

    def __init__(self, table: LockTable, reign: Reign) -> None:
        self.reign = reign
        self.names = sorted(table.locks)
        self.mark = table.highest
        # All names in one text: a look for a part of a name then takes a microsecond, and not one for each three names.
        self._joined = ""

    def might_have(self, text: str) -> bool:
        """Return whether a name may have this text in it. It is surely in none if not."""
        if not self._joined:
            self._joined = "\n".join(self.names)
        return text in self._joined

    def update(self, table: LockTable) -> None:
        """Add the names that were added to the table."""
        names, locks, mark = self.names, table.locks, self.mark
        for lock in reversed(locks.values()):
            if NO_GENERATION < lock.generation <= mark:
                break
            at = bisect_left(names, lock.name)
            if at == len(names) or names[at] != lock.name:
                names.insert(at, lock.name)
                self._joined = ""
        self.mark = table.highest
        gone = len(names) - len(locks)
        if gone > _GONE_MIN and gone > len(locks) // _GONE_DIVISOR:
            self.names = [name for name in names if name in locks]
            self._joined = ""


class NameIndex:
    """The names of the locks in the slots that were searched."""

    def __init__(self) -> None:
        self._slots: dict[SlotNumber, SlotNames] = {}
        self._used_at_ns = DISTANT_PAST_NS

    def use(self, now_ns: int) -> None:
        """Note that there is a search."""
        self._used_at_ns = now_ns

    def find(self, slot: NodeSlot) -> SlotNames | None:
        """Bring a served slot's names up to date, and return them, to be read; None if they are unsorted."""
        known = self._slots.get(slot.number)
        if known is None or known.reign is not slot.reign:
            return None
        known.update(slot.table)
        return known

    def sort(self, slot: NodeSlot) -> None:
        """Sort the names of a served slot, for the next search. It takes some 0.5 µs for each."""
        assert slot.reign is not None
        self._slots[slot.number] = SlotNames(slot.table, slot.reign)

    def tidy(self, now_ns: int) -> None:
        """Give up what was not used for a while, some slots at a time."""
        if self._slots and now_ns - self._used_at_ns >= UNUSED_NS:
            for number in list(self._slots)[:_FORGOTTEN_AT_ONCE]:
                del self._slots[number]

    def check_invariants(self, slots: dict[SlotNumber, NodeSlot]) -> None:
        """Assert that every lock is found, without bringing anything up to date."""
        for number, known in self._slots.items():
            slot = slots.get(number)
            if slot is not None and slot.reign is known.reign:
                assert known.names == sorted(set(known.names))
                missing = set(slot.table.locks) - set(known.names)
                for lock in reversed(slot.table.locks.values()):
                    if NO_GENERATION < lock.generation <= known.mark:
                        break
                    missing.discard(lock.name)
                assert not missing, f"names are missing in the index of slot {number}"
