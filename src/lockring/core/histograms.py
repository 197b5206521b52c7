"""Durations, counted in buckets: plain integers that are cheap to add to, and read only when figures are asked for.

The buckets end at powers of two of a nanosecond. To find one takes a shift and a look at the number's length, and less
time than a search among bounds, which is felt on the path of a lone grant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

FINEST: Final = 17
"""The power of two at which the shortest bucket ends: 0.13 ms."""

_CELLS: Final = 49
"""Buckets that are counted: the last ends after a thousand years."""

SHORT: Final = tuple(range(FINEST, 34))
"""The ends of the buckets that are shown of what takes milliseconds, as powers of two: from 0.13 ms to 8.6 s."""

LONG: Final = tuple(range(20, 43, 2))
"""The same of waits and holds: from 1 ms to 73 minutes."""


class Durations:
    """Durations in buckets. Not thread-safe.

    Args:
        ends: the powers of two at which the buckets end that are shown; the last one is followed by one without an end.

    Attributes:
        cells: how many durations there are of each length, and behind that the sum of all, in nanoseconds. Parts on the
            hot path write `observe` out, since each call is felt there.
    """

    __slots__ = ("_ends", "cells")

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = ends
        self.cells = [0] * (_CELLS + 1)

    def observe(self, duration_ns: int) -> None:
        """Count one duration."""
        self.cells[(duration_ns >> FINEST).bit_length()] += 1
        self.cells[-1] += duration_ns

    @property
    def bounds(self) -> tuple[int, ...]:
        """The upper bound of each bucket but the last, in nanoseconds."""
        return tuple(1 << end for end in self._ends)

    @property
    def counts(self) -> list[int]:
        """How many durations each bucket has."""
        cells = self.cells
        cuts = [0, *(end - FINEST + 1 for end in self._ends), _CELLS]
        return [sum(cells[cuts[number] : cuts[number + 1]]) for number in range(len(cuts) - 1)]

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.cells) - self.cells[-1]

    @property
    def total(self) -> int:
        """The sum of all durations, in nanoseconds."""
        return self.cells[-1]


class Histogram:
    """Numbers in buckets with bounds of any kind. Not thread-safe.

    Attributes:
        bounds: the upper bound of each bucket but the last, which has none.
        counts: how many numbers each bucket has.
        total: the sum of all.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, number: int) -> None:
        """Count one number."""
        self.counts[bisect_left(self.bounds, number)] += 1
        self.total += number

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)
