"""Durations, counted in buckets: plain integers that are cheap to add to, and read only when figures are asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from lockring.units import NS_PER_MS, NS_PER_S

SHORT_NS: Final[tuple[int, ...]] = tuple(
    NS_PER_MS * tenths // 10
    for tenths in (1, 2, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000)
)
"""Bounds of buckets for what takes milliseconds: from 0.1 ms to 10 s."""

LONG_NS: Final[tuple[int, ...]] = tuple(
    NS_PER_MS * ms
    for ms in (1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000, 7_200_000)
)
"""Bounds of buckets for waits and holds: from 1 ms to two hours."""


class Histogram:
    """Durations in buckets. Not thread-safe.

    Attributes:
        bounds: the upper bound of each bucket but the last, which has none.
        counts: how many durations each bucket has.
        total: the sum of all durations, in the unit of the bounds.
    """

    # Parts on the hot path write `observe` out, since each call is felt in the time of a lone grant.
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one duration, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)


def seconds(ns: int) -> float:
    """Return nanoseconds as seconds."""
    return ns / NS_PER_S
