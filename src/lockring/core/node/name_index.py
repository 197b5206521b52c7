"""The names of locks in order, slot by slot, for searches, and for lists of slots with many locks.

Acquires and releases know nothing of it. A slot's names are sorted when a search comes by, and what was added since
is found by the order in which a table keeps its locks: the newest are last. A lock that was last granted before names
were last looked at was there then, and so were all locks before it. Names whose lock is gone stay until they are
many, and are passed over.

New names are merged with the others in one step. That is counted in the effort of the search, as sorting is.

Without a search for a while the index is given up, some slots at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from lockring.core.node.lock_table import LockTable
from lockring.core.node.reign import Reign
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import NO_GENERATION, LockName, SlotNumber
from lockring.units import NS_PER_S

UNUSED_NS: Final = 600 * NS_PER_S
"""How long the index is kept after the last search."""

_INSERTED_MAX: Final = 128
"""So many new names are put in one by one; more are merged with the others."""
_EFFORT_OF_LOOK: Final = 20
_MOVED_PER_EFFORT: Final = 200
_EFFORT_OF_MERGE: Final = 4
_EFFORT_OF_NEW: Final = 10
_SORTED_PER_EFFORT: Final = 40

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

    def update(self, table: LockTable) -> int:
        """Add the names that were added to the table, and return the effort in comparisons of a name."""
        locks, mark = table.locks, self.mark
        new: list[LockName] = []
        for lock in reversed(locks.values()):
            if NO_GENERATION < lock.generation <= mark:
                break
            new.append(lock.name)
        self.mark = table.highest
        effort = self._insert(new) if len(new) <= _INSERTED_MAX else self._merge(new)
        gone = len(self.names) - len(locks)
        if gone > _GONE_MIN and gone > len(locks) // _GONE_DIVISOR:
            effort += len(self.names)
            self.names = [name for name in self.names if name in locks]
            self._joined = ""
        return effort

    def _insert(self, new: list[LockName]) -> int:
        """Put in names one by one, and return the effort: each moves all that are behind it."""
        names = self.names
        for name in new:
            at = bisect_left(names, name)
            if at == len(names) or names[at] != name:
                names.insert(at, name)
                self._joined = ""
        return len(new) * (_EFFORT_OF_LOOK + len(names) // _MOVED_PER_EFFORT)

    def _merge(self, new: list[LockName]) -> int:
        """Put in many names at once, and return the effort: the sort finds two runs, and merges them."""
        new.sort()
        names = self.names + new
        names.sort()
        names = list(dict.fromkeys(names))  # a lock that was gone, and is there again, was among them already
        if len(names) > len(self.names):
            self.names = names
            self._joined = ""
        return _EFFORT_OF_MERGE * len(names) + _EFFORT_OF_NEW * len(new)


class NameIndex:
    """The names of the locks in the slots that were searched."""

    def __init__(self) -> None:
        self._slots: dict[SlotNumber, SlotNames] = {}
        self._used_at_ns = DISTANT_PAST_NS

    def use(self, now_ns: int) -> None:
        """Note that there is a search, or a list."""
        self._used_at_ns = now_ns

    def bring(self, slot: NodeSlot) -> tuple[SlotNames, int]:
        """Bring a served slot's names up to date, or sort them, and return them, to be read; some may be gone.

        The number is the effort, in comparisons of a name.
        """
        known = self._slots.get(slot.number)
        if known is not None and known.reign is slot.reign:
            return known, known.update(slot.table)
        assert slot.reign is not None
        known = self._slots[slot.number] = SlotNames(slot.table, slot.reign)
        return known, _effort_of_sort(len(known.names))

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


def _effort_of_sort(many: int) -> int:
    """Return the effort to sort so many names: each is compared more often among more, and found later in memory."""
    return 1 + many * many.bit_length() ** 2 // _SORTED_PER_EFFORT
