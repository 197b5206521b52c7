"""The folders to remove if they stay empty.

Rules:

- A folder is in the queue once, with the time since which it is empty (`since_ns`); it is due a delay later.
- Times only move forward: information older than what is known changes nothing, in whatever order it arrives.
- A creation cancels unless it is older than the emptiness. An older one came before the removal that emptied the
  folder.
- The queue never holds more than `size_max` folders. Folders that do not fit are counted, never dropped silently.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec


class PendingFolder(msgspec.Struct, frozen=True):
    """A folder in the queue.

    Attributes:
        folder: its path.
        since_ns: since when it is empty, as far as is known.
        stamp: of the look that found it empty.
    """

    folder: str
    since_ns: int
    stamp: int | str


class CleaningQueue:
    """See the module. Not thread-safe.

    Args:
        delay_ns: how long a folder must stay empty, 0 or more.
        size_max: how many folders it may hold, 1 or more.
    """

    def __init__(self, *, delay_ns: int, size_max: int) -> None:
        assert delay_ns >= 0 and size_max >= 1, "checked where settings are read"
        self._delay_ns = delay_ns
        self._size_max = size_max
        self._pending: dict[str, PendingFolder] = {}
        # Cleaned up lazily: an item counts only while `_pending` has the same one for its folder.
        self._heap: list[tuple[int, str]] = []
        self.dropped = 0
        """How many folders ever did not fit."""

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, folder: str) -> bool:
        return folder in self._pending

    @property
    def is_full(self) -> bool:
        """Whether another folder would be dropped."""
        return len(self._pending) >= self._size_max

    def add(self, folder: str, *, since_ns: int, stamp: int | str, by_event: bool = False) -> bool:
        """Add a folder that was found empty.

        Args:
            folder: its path.
            since_ns: since when it is empty.
            stamp: of the look that found it so.
            by_event: whether an entry is known to have been removed at `since_ns`. If not, a folder that is in the
                queue with the same stamp keeps its earlier time: it has not changed since.

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
        """Remove a folder in which an entry was created, unless that was before it became empty.

        Returns:
            Whether it was removed from the queue.
        """
        known = self._pending.get(folder)
        if known is None or at_ns < known.since_ns:
            return False
        del self._pending[folder]
        return True

    def discard(self, folder: str) -> None:
        """Remove a folder, if it is in the queue."""
        self._pending.pop(folder, None)

    def keep_only(self, is_wanted: Callable[[str], bool]) -> int:
        """Remove every folder that is no longer wanted; return how many."""
        unwanted = [folder for folder in self._pending if not is_wanted(folder)]
        for folder in unwanted:
            del self._pending[folder]
        return len(unwanted)

    def restart(self, *, now_ns: int) -> None:
        """Restart the delay of every folder: what happened to them lately is unknown."""
        for each in list(self._pending.values()):
            if each.since_ns < now_ns:
                self._put(PendingFolder(each.folder, now_ns, each.stamp))

    def next_due_ns(self) -> int | None:
        """Return when the next folder is due; None if there is none."""
        self._correct()
        return self._heap[0][0] + self._delay_ns if self._heap else None

    def take_due(self, *, now_ns: int) -> PendingFolder | None:
        """Remove and return the folder that has been empty the longest, if that is the delay or more."""
        self._correct()
        if not self._heap or self._heap[0][0] + self._delay_ns > now_ns:
            return None
        _since_ns, folder = heapq.heappop(self._heap)
        return self._pending.pop(folder)

    def check_invariants(self) -> None:
        """Check, in tests, what must hold between two calls."""
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
