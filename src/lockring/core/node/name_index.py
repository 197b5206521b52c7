"""The names of locks in order, slot by slot, for searches, and for lists of slots with many locks.

Acquires and releases know nothing of it. What was added to a slot since its names were last looked at is found by the
order in which a table keeps its locks: the newest are last. A lock that was last granted before names were last looked
at was there then, and so were all locks before it. Names whose lock is gone stay until they are many, and are passed
over.

Few new names are put among the others one by one, and for many all are sorted again, whichever takes less. That is
counted in the effort of the search.

Slots with few locks are sorted by each search. The names of the others are kept, and brought up to date now and then,
some slots at a time: to sort a million names takes a quarter of a second, which would be felt in the first search.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockEntry
from lockring.core.node.reign import Reign
from lockring.core.node.slot import NodeSlot
from lockring.ids import NO_GENERATION, LockName, SlotNumber
from lockring.slots import SLOTS, all_slots

KEPT_MIN: Final = 32
"""Locks of a slot whose names are kept in order; fewer are sorted in some microseconds."""

_EFFORT_OF_INSERTION: Final = 20
_MOVED_PER_EFFORT: Final = 200
_SORTED_PER_EFFORT: Final = 40

_EFFORT_OF_JOINING: Final = 2
_CHARACTERS_PER_EFFORT: Final = 80
_EFFORT_OF_FOUND: Final = 15

_GONE_MIN: Final = 8
_GONE_DIVISOR: Final = 16

_KEPT_UP_SLOTS: Final = 256
_KEPT_UP_EFFORT: Final = 4_000
"""How many slots are looked at in one turn of the node, and how much is done there: half a millisecond's work, when the
names have left the cache of the processor."""

_UNUSED_MAX: Final = 64
"""A slot is passed by so often, mostly every two seconds, before its names as one text are given up."""


class SlotNames:
    """The names of a slot's locks in one reign, in order, and perhaps some of locks that are gone.

    Attributes:
        reign: see above.
        names: in order.
        mark: the slot's highest generation when they were brought up to date.
    """

    __slots__ = ("_joined", "_unused", "mark", "names", "reign")

    def __init__(self, table: LockTable, reign: Reign) -> None:
        self.reign = reign
        self.names = sorted(table.locks)
        self.mark = table.highest
        # All names in one text: a look for a part of a name then takes a microsecond, and not one for each three names.
        self._joined = ""
        self._unused = 0

    def with_text(self, text: str) -> tuple[list[LockName], int]:
        """Pick the names with this text in them, in order, and count the effort in comparisons of a name.

        Args:
            text: not empty.
        """
        names, effort = self.names, 0
        if "\n" in text:  # it would be found where one name ends and the next one begins
            return [name for name in names if text in name], _EFFORT_OF_FOUND * len(names)
        if not self._joined:
            self._joined = "\n".join(names)
            effort = _EFFORT_OF_JOINING * len(names)
        self._unused = 0
        joined = self._joined
        at = joined.find(text)
        effort += len(joined) // _CHARACTERS_PER_EFFORT
        if at < 0:
            return [], effort
        if joined.count("\n") >= len(names):  # some name has a line end in it
            return [name for name in names if text in name], effort + _EFFORT_OF_FOUND * len(names)
        found: list[LockName] = []
        while at >= 0:
            start, end = joined.rfind("\n", 0, at) + 1, joined.find("\n", at)
            if end < 0:
                end = len(joined)
            found.append(LockName(joined[start:end]))
            at = joined.find(text, end)
        return found, effort + _EFFORT_OF_FOUND * len(found)

    def pass_by(self) -> None:
        """Note that a while has passed. The text of all names, which takes as much memory as they do, goes unused."""
        self._unused += 1
        if self._unused >= _UNUSED_MAX:
            self._joined = ""

    def is_fresh(self, slot: NodeSlot) -> bool:
        """Return whether there is no newer name in the slot, and hardly one here whose lock is gone."""
        table = slot.table
        return (
            self.reign is slot.reign
            and self.mark == table.highest
            and len(self.names) <= 2 * len(table.locks)
        )

    def update(self, table: LockTable) -> int:
        """Add the names that were added to the table, and return the effort in comparisons of a name."""
        locks, mark = table.locks, self.mark
        newest = next(reversed(locks.values()), None)
        if newest is None or NO_GENERATION < newest.generation <= mark:
            self.mark = table.highest
            return self._drop_gone(locks)
        each = _EFFORT_OF_INSERTION + len(self.names) // _MOVED_PER_EFFORT
        sorting = _effort_of_sort(len(locks))
        new: list[LockName] = []
        for lock in reversed(locks.values()):
            if NO_GENERATION < lock.generation <= mark:
                break
            new.append(lock.name)
            if len(new) * each > sorting:
                self.names = sorted(locks)
                self.mark = table.highest
                self._joined = ""
                return sorting
        self.mark = table.highest
        self._insert(new)
        return len(new) * each + self._drop_gone(locks)

    def _drop_gone(self, locks: dict[LockName, LockEntry]) -> int:
        """Drop the names whose locks are gone, if they are many, and return the effort."""
        names = self.names
        gone = len(names) - len(locks)
        if gone <= _GONE_MIN or gone <= len(locks) // _GONE_DIVISOR:
            return 0
        self.names = [name for name in names if name in locks]
        self._joined = ""
        return len(names)

    def _insert(self, new: list[LockName]) -> None:
        """Put in names one by one. Each moves all that are behind it."""
        names = self.names
        for name in new:
            at = bisect_left(names, name)
            if at == len(names) or names[at] != name:
                names.insert(at, name)
                self._joined = ""


class NameIndex:
    """The names of the locks in the slots that have many."""

    def __init__(self) -> None:
        self._slots: dict[SlotNumber, SlotNames] = {}
        self._kept_min = KEPT_MIN
        self._next = 0

    def bring(self, slot: NodeSlot) -> tuple[SlotNames, int]:
        """Bring a served slot's names up to date, or sort them, and return them, to be read; some may be gone.

        The number is the effort, in comparisons of a name.
        """
        known = self._slots.get(slot.number)
        if known is not None and known.reign is slot.reign:
            return known, known.update(slot.table)
        assert slot.reign is not None
        known = SlotNames(slot.table, slot.reign)
        if len(known.names) >= self._kept_min:
            self._slots[slot.number] = known
        return known, _effort_of_sort(len(known.names))

    def first_name(self, slot: NodeSlot) -> LockName | None:
        """Return a name that no lock in a served slot comes before; None if that is not known without some work."""
        known, table = self._slots.get(slot.number), slot.table
        if known is None or known.reign is not slot.reign:
            return None
        newest = next(reversed(table.locks.values()), None)
        if newest is None or not NO_GENERATION < newest.generation <= known.mark:
            return None
        return known.names[0]

    def keep_up(self, slots: dict[SlotNumber, NodeSlot]) -> bool:
        """Bring the names of the next slots up to date where there are many, and drop those of other slots.

        Returns:
            Whether most of the time went into sorting, so that names of other slots are likely to wait for it too.
        """
        effort, sorting, first = 0, 0, self._next
        for number in all_slots()[first : first + _KEPT_UP_SLOTS]:
            if effort >= _KEPT_UP_EFFORT:
                break
            self._next = number + 1
            slot, known = slots.get(number), self._slots.get(number)
            if slot is None or slot.reign is None or len(slot.table.locks) < self._kept_min:
                if known is not None:
                    del self._slots[number]
                continue
            if known is not None:
                known.pass_by()
            if known is None or not known.is_fresh(slot):
                spent = self.bring(slot)[1]
                effort += spent
                if spent >= _effort_of_sort(len(slot.table.locks)):
                    sorting += spent
        if self._next >= SLOTS:
            self._next = 0
        return 2 * sorting >= _KEPT_UP_EFFORT

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
