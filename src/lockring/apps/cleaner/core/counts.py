"""Rough counts of what is in folders, so that not every removed file costs a look at its folder.

They are hints. A count that is too high lets an emptied folder wait for the next scan, which sets it right; one that
is too low costs a look. Nothing is ever removed on the word of a count. What has not been touched for long is
evicted, and the oldest when there are too many.
"""

from __future__ import annotations

from collections import OrderedDict


class _Rough:
    """What is remembered of one folder."""

    __slots__ = ("count", "counted_at_ns", "created_at_ns", "touched_at_ns")

    def __init__(self) -> None:
        self.count: int | None = None
        self.counted_at_ns = -1
        self.created_at_ns: int | None = None
        self.touched_at_ns = 0


class RoughCounts:
    """See the module. Not safe for use by several threads at once.

    Args:
        size_max: the most folders that are remembered, 1 or more.
        age_ns_max: how long a folder is remembered in which nothing happens.
    """

    def __init__(self, *, size_max: int, age_ns_max: int) -> None:
        self._size_max = size_max
        self._age_ns_max = age_ns_max
        # In the order in which they were touched, the oldest first.
        self._folders: OrderedDict[str, _Rough] = OrderedDict()

    def __len__(self) -> int:
        return len(self._folders)

    def created(self, folder: str, *, at_ns: int, now_ns: int) -> None:
        """Something was created in a folder at a time that may be past."""
        rough = self._touch(folder, now_ns)
        if rough.count is not None and at_ns > rough.counted_at_ns:  # else it was counted
            rough.count += 1
        if rough.created_at_ns is None or at_ns > rough.created_at_ns:
            rough.created_at_ns = at_ns

    def removed(self, folder: str, *, at_ns: int, now_ns: int) -> bool:
        """Something was removed from a folder; returns whether the folder may be empty now.

        It cannot be if something is known to have been created in it later, or if there was more in it.
        """
        rough = self._touch(folder, now_ns)
        if rough.count is not None and rough.count > 0 and at_ns > rough.counted_at_ns:
            rough.count -= 1
        if rough.created_at_ns is not None and rough.created_at_ns > at_ns:
            return False
        return not rough.count  # 0, or not known

    def counted(self, folder: str, count: int, *, now_ns: int) -> None:
        """A folder was looked at and its entries counted."""
        rough = self._touch(folder, now_ns)
        rough.count, rough.counted_at_ns = count, now_ns

    def lost(self) -> None:
        """Forget all counts: events that would have changed them did not arrive."""
        self._folders.clear()

    def forget(self, folder: str) -> None:
        """A folder is gone."""
        self._folders.pop(folder, None)

    def is_quiet(self, folder: str, *, since_ns: int) -> bool:
        """Whether nothing is known to have been created in a folder since a time."""
        rough = self._folders.get(folder)
        return rough is None or rough.created_at_ns is None or rough.created_at_ns < since_ns

    def evict(self, *, now_ns: int) -> int:
        """Forget what has not been touched for long; returns how many folders."""
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
