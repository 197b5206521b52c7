"""A queue of deadlines with lazy removal.

Entries are never searched for: the caller that pops one decides whether it still matters. Many entries are abandoned
long before they are due (a waiter that was granted). Their owner reports that with `abandon`; once abandoned entries
outnumber the living ones the heap is rebuilt, so memory stays proportional to the living.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from lockring.core.timing import DISTANT_FUTURE_NS

Item = TypeVar("Item")

_REBUILD_ABOVE: Final = 1024


class DeadlineQueue(Generic[Item]):
    """Items by the time at which they are due; equal times come out in the order they went in.

    Attributes:
        soonest_ns: when the next entry is due, living or not; `DISTANT_FUTURE_NS` if there is none.
    """

    __slots__ = ("_abandoned", "_count", "_heap", "_lives", "_wake", "soonest_ns")

    def __init__(self, lives: Callable[[Item, int], bool], wake: Callable[[int], None] | None = None) -> None:
        """Make an empty queue.

        Args:
            lives: whether an item entered for a time (ns) still matters; used to rebuild the heap.
            wake: called with the time (ns) of each new entry, for a machine that must be called then.
        """
        self.soonest_ns = DISTANT_FUTURE_NS
        self._heap: list[tuple[int, int, Item]] = []
        self._count = 0
        self._abandoned = 0
        self._lives = lives
        self._wake = wake

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, at_ns: int, item: Item) -> None:
        """Enter an item for a time."""
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, item))
        self.soonest_ns = self._heap[0][0]
        if self._wake is not None:
            self._wake(at_ns)

    def pop_due(self, now_ns: int) -> tuple[int, Item] | None:
        """Take out the first entry that is due, with the time it was entered for; None if none is."""
        if self.soonest_ns > now_ns:
            return None
        at_ns, _, item = heapq.heappop(self._heap)
        self._look()
        return at_ns, item

    def abandon(self) -> None:
        """Note that one entry does not matter any more."""
        self._abandoned += 1
        if self._abandoned > _REBUILD_ABOVE and self._abandoned * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._lives(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._abandoned = 0
            self._look()

    def _look(self) -> None:
        self.soonest_ns = self._heap[0][0] if self._heap else DISTANT_FUTURE_NS
