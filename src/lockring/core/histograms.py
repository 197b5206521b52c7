"""Durations, counted in buckets, and read only when figures are asked for.

A duration is noted, and counted later with some hundred others: that takes a fifth of the time, which is felt on the
path of a lone grant. The buckets end at powers of two of a nanosecond, so that the one of a duration is found by a
shift and the number's length. All at once they take no step of Python each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from operator import rshift
from typing import Final

FINEST: Final = 17
"""The power of two at which the shortest bucket ends: 0.13 ms."""

_CELLS: Final = 49
"""Buckets that are counted: the last ends after a thousand years."""

NOTED_MAX: Final = 256
"""So many durations are noted before they are counted."""

SHORT: Final = tuple(range(FINEST, 34))
"""The ends of the buckets that are shown of what takes milliseconds, as powers of two: from 0.13 ms to 8.6 s."""

LONG: Final = tuple(range(20, 43, 2))
"""The same of waits and holds: from 1 ms to 73 minutes."""


class Durations:
    """Durations in buckets. Not thread-safe.

    Args:
        ends: the powers of two at which the buckets end that are shown; the last one is followed by one without an end.

    Attributes:
        noted: durations that are not counted yet, in nanoseconds. Parts on the hot path write `observe` out, since each
            call is felt there.
    """

    __slots__ = ("_cells", "_ends", "_total", "noted")

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = ends
        self._cells = [0] * _CELLS
        self._total = 0
        self.noted: list[int] = []

    def observe(self, duration_ns: int) -> None:
        """Count one duration."""
        self.noted.append(duration_ns)
        if len(self.noted) >= NOTED_MAX:
            self.count_noted()

    def count_noted(self) -> None:
        """Count the durations that were noted."""
        self._cells = self._all_cells()
        self._total += sum(self.noted)
        self.noted.clear()

    @property
    def bounds(self) -> tuple[int, ...]:
        """The upper bound of each bucket but the last, in nanoseconds."""
        return tuple(1 << end for end in self._ends)

    @property
    def counts(self) -> list[int]:
        """How many durations each bucket has."""
        cells = self._all_cells()
        cuts = [0, *(end - FINEST + 1 for end in self._ends), _CELLS]
        return [sum(cells[cuts[number] : cuts[number + 1]]) for number in range(len(cuts) - 1)]

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self._cells) + len(self.noted)

    @property
    def total(self) -> int:
        """The sum of all durations, in nanoseconds."""
        return self._total + sum(self.noted)

    def _all_cells(self) -> list[int]:
        """Return how many durations there are of each length, with those that were noted."""
        cells = list(self._cells)
        for length, many in Counter(map(int.bit_length, map(rshift, self.noted, repeat(FINEST)))).items():
            cells[length] += many
        return cells


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
