"""The folders that are to be removed if they stay empty.

Rules:

- A folder is in the queue once, with the time since which it is empty (`since_ns`); it is due a delay later.
- Times only move forward: what is older than what is known already changes nothing, in whatever order it is told.
- A creation cancels if it is not older than the emptiness. One that is older came before what emptied the folder.
- The queue never holds more than `size_max` folders. What does not fit is counted, never forgotten silently.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec


class PendingFolder(msgspec.Struct, frozen=True):
    """A folder in the queue.

    Attributes:
        folder: which.
        since_ns: since when it is empty, as far as is known.
        stamp: of the look that found it empty.
    """

    folder: str
    since_ns: int
    stamp: int | str


class CleaningQueue:
    """See the module. Not safe for use by several threads at once.

    Args:
        delay_ns: how long a folder must stay empty, 0 or more.
        size_max: the most folders it holds, 1 or more.
    """

    def __init__(self, *, delay_ns: int, size_max: int) -> None:
        assert delay_ns >= 0 and size_max >= 1, "checked where settings are read"
        self._delay_ns = delay_ns
        self._size_max = size_max
        self._pending: dict[str, PendingFolder] = {}
        # Corrected lazily: an item counts only while it is what `_pending` has for its folder.
        self._heap: list[tuple[int, str]] = []
        self.dropped = 0
        """How many folders did not fit, ever."""

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, folder: str) -> bool:
        return folder in self._pending

    @property
    def is_full(self) -> bool:
        """Whether a folder more would be dropped."""
        return len(self._pending) >= self._size_max

    def add(self, folder: str, *, since_ns: int, stamp: int | str, by_event: bool = False) -> bool:
        """Take a folder that was found empty.

        Args:
            folder: which.
            since_ns: since when it is empty.
            stamp: of the look that found it so.
            by_event: whether something is known to have been removed at `since_ns`. If not, a folder that is in
                the queue with the same stamp keeps its earlier time: it did not change since.

        Returns:
            Whether it is in the queue now; if not, it was dropped, and counted.
        """
        known = self._pending.get(folder)
        if known is not None:
            if since_ns <= known.since_ns or (known.stamp == stamp and not by_event):
                return True
        elif self.is_full:
            self.dropped += 1
            return False
        self._put(PendingFolder(folder, since_ns, stamp))
        return True

    def cancel(self, folder: str, *, at_ns: int) -> bool:
        """Take a folder out since something was created in it, unless that was before it became empty.

        Returns:
            Whether it was taken out.
        """
        known = self._pending.get(folder)
        if known is None or at_ns < known.since_ns:
            return False
        del self._pending[folder]
        return True

    def discard(self, folder: str) -> None:
        """Take a folder out, if it is in."""
        self._pending.pop(folder, None)

    def keep_only(self, is_wanted: Callable[[str], bool]) -> int:
        """Take out every folder that is not wanted any more; returns how many."""
        unwanted = [folder for folder in self._pending if not is_wanted(folder)]
        for folder in unwanted:
            del self._pending[folder]
        return len(unwanted)

    def restart(self, *, now_ns: int) -> None:
        """Let the delay of every folder begin anew: what happened to them lately is not known."""
        for each in list(self._pending.values()):
            if each.since_ns < now_ns:
                self._put(PendingFolder(each.folder, now_ns, each.stamp))

    def next_due_ns(self) -> int | None:
        """When the next folder is due; None if there is none."""
        self._correct()
        return self._heap[0][0] + self._delay_ns if self._heap else None

    def take_due(self, *, now_ns: int) -> PendingFolder | None:
        """Take the folder out that has been empty for the longest time, if that is the delay or more."""
        self._correct()
        if not self._heap or self._heap[0][0] + self._delay_ns > now_ns:
            return None
        _since_ns, folder = heapq.heappop(self._heap)
        return self._pending.pop(folder)

    def check_invariants(self) -> None:
        """For tests: what must hold between two calls."""
        assert len(self._pending) <= self._size_max
        assert len(self._heap) <= 2 * len(self._pending) + 64
        items = set(self._heap)
        for folder, each in self._pending.items():
            assert each.folder == folder
            assert (each.since_ns, folder) in items

    def _put(self, pending: PendingFolder) -> None:
        self._pending[pending.folder] = pending
        heapq.heappush(self._heap, (pending.since_ns, pending.folder))
        if len(self._heap) > 2 * len(self._pending) + 64:
            self._heap = [(each.since_ns, each.folder) for each in self._pending.values()]
            heapq.heapify(self._heap)

    def _correct(self) -> None:
        while self._heap:
            since_ns, folder = self._heap[0]
            known = self._pending.get(folder)
            if known is not None and known.since_ns == since_ns:
                return
            heapq.heappop(self._heap)
