"""Rough counts of the entries in folders, so that not every removed file costs a look at its folder.

They are hints. If a count is too high, an emptied folder waits for the next scan, which corrects it; if it is too
low, it costs a look. No folder is ever removed because of a count. Counts of folders without recent events are
evicted, and the oldest ones if there are too many.
"""

from __future__ import annotations

from collections import OrderedDict


class _Rough:
    """The count of one folder."""

    __slots__ = ("count", "counted_at_ns", "created_at_ns", "touched_at_ns")

    def __init__(self) -> None:
        self.count: int | None = None
        self.counted_at_ns = -1
        self.created_at_ns: int | None = None
        self.touched_at_ns = 0


class RoughCounts:
    """See the module. Not thread-safe.

    Args:
        size_max: how many folders to remember, 1 or more.
        age_ns_max: how long to remember a folder without events.
    """

    def __init__(self, *, size_max: int, age_ns_max: int) -> None:
        self._size_max = size_max
        self._age_ns_max = age_ns_max
        # In the order of their last events, the oldest first.
        self._folders: OrderedDict[str, _Rough] = OrderedDict()

    def __len__(self) -> int:
        return len(self._folders)

    def created(self, folder: str, *, at_ns: int, now_ns: int) -> None:
        """Record the creation of an entry, at a time that may be past."""
        rough = self._touch(folder, now_ns)
        if rough.count is not None and at_ns > rough.counted_at_ns:  # otherwise it was counted
            rough.count += 1
        if rough.created_at_ns is None or at_ns > rough.created_at_ns:
            rough.created_at_ns = at_ns

    def removed(self, folder: str, *, at_ns: int, now_ns: int) -> bool:
        """Record the removal of an entry, and return whether the folder may be empty now.

        It cannot be if a later creation is known, or if there were more entries.
        """
        rough = self._touch(folder, now_ns)
        if rough.count is not None and rough.count > 0 and at_ns > rough.counted_at_ns:
            rough.count -= 1
        if rough.created_at_ns is not None and rough.created_at_ns > at_ns:
            return False
        return not rough.count  # 0, or unknown

    def counted(self, folder: str, count: int, *, now_ns: int) -> None:
        """Record the counted entries of a folder."""
        rough = self._touch(folder, now_ns)
        rough.count, rough.counted_at_ns = count, now_ns

    def lost(self) -> None:
        """Forget all counts: events that would have changed them did not arrive."""
        self._folders.clear()

    def forget(self, folder: str) -> None:
        """Forget a folder that is gone."""
        self._folders.pop(folder, None)

    def is_quiet(self, folder: str, *, since_ns: int) -> bool:
        """Return whether no creation in a folder is known since a time."""
        rough = self._folders.get(folder)
        return rough is None or rough.created_at_ns is None or rough.created_at_ns < since_ns

    def evict(self, *, now_ns: int) -> int:
        """Forget folders without recent events; return how many."""
        before = len(self._folders)
        while self._folders:
            rough = next(iter(self._folders.values()))
            if now_ns - rough.touched_at_ns <= self._age_ns_max:
                break
            self._folders.popitem(last=False)
        return before - len(self._folders)

    def _touch(self, folder: str, now_ns: int) -> _Rough:
        rough = self._folders.get(folder)
        if rough is None:
            rough = self._folders[folder] = _Rough()
            if len(self._folders) > self._size_max:
                self._folders.popitem(last=False)
        else:
            self._folders.move_to_end(folder)
        rough.touched_at_ns = now_ns
        return rough
