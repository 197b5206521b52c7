"""From samples to figures: quantiles, medians over rounds, fairness, and the figures of a history of holds."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.results import Measurement, Values


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which that share of the samples lies: the nearest sample, without interpolation.

    Args:
        ordered: samples, ascending, at least one.
        share: 0 to 1.
    """
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies(samples_ns: Iterable[int]) -> Values:
    """Return the figures of some durations, in microseconds; none without samples."""
    ordered = sorted(samples_ns)
    if not ordered:
        return {}
    return {
        "median_us": quantile(ordered, 0.5) / 1e3,
        "p99_us": quantile(ordered, 0.99) / 1e3,
        "max_us": ordered[-1] / 1e3,
    }


class Spread(NamedTuple):
    """A figure over the rounds of a run.

    Attributes:
        median: the median of the rounds' figures.
        low: the least of them.
        high: the greatest of them.
        rounds: the number of rounds.
    """

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of the rounds' figures; there is at least one."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return the spread of the rounds' figures, None if there are none."""
    return spread(values) if values else None


def neighbour_ratios(ours: Sequence[Values], theirs: Sequence[Values], name: str) -> list[float]:
    """Return a figure of each of our slices, as a multiple of theirs just before and just after it.

    The machine's speed changes within seconds, and what changes it evenly is in the mean of the two neighbours.

    Args:
        ours: slices with the figure and "at_s", ascending.
        theirs: the same of another peer, in the same round.
        name: the figure.
    """
    found = []
    others = [(values["at_s"], values[name]) for values in theirs if name in values]
    for values in ours:
        before = [other for at_s, other in others if at_s <= values["at_s"]][-1:]
        after = [other for at_s, other in others if at_s > values["at_s"]][:1]
        if name in values and before + after:
            times = ratio(values[name], statistics.fmean(before + after))
            found += [] if times is None else [times]
    return found


class Summary:
    """The figures of all rounds of a run, by workload, variant and peer."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
        self._notes: dict[tuple[str, str, str], dict[str, None]] = {}
        self._rounds: dict[tuple[str, str, str], dict[int, Measurement]] = {}
        for each in measurements:
            key = (each.workload, each.variant, each.peer)
            self._rounds.setdefault(key, {})[each.round] = each
            values = self._values.setdefault(key, {})
            notes = self._notes.setdefault(key, {})
            for name, value in each.values.items():
                values.setdefault(name, []).append(value)
            if each.note:
                notes[each.note] = None

    def get(self, workload: str, variant: str, peer: str, name: str) -> Spread | None:
        """Return a figure, or None if it was not measured."""
        return spread_of(self._values.get((workload, variant, peer), {}).get(name, []))

    def median(self, workload: str, variant: str, peer: str, name: str) -> float | None:
        """Return the median of a figure over the rounds, or None if it was not measured."""
        found = self.get(workload, variant, peer, name)
        return None if found is None else found.median

    def times(self, workload: str, variant: str, peers: tuple[str, str], name: str) -> Spread | None:
        """Return the first peer's figure as a multiple of the second's, or None if no round has both.

        Peers that took turns are compared by neighbouring slices, and a round's ratio is the median of those. Others
        are compared by the figures of each round.
        """
        ours, theirs = (self._rounds.get((workload, variant, peer), {}) for peer in peers)
        ratios = []
        for round_, mine in ours.items():
            if round_ not in theirs:
                continue
            other = theirs[round_]
            if near := neighbour_ratios(mine.slices, other.slices, name):
                ratios.append(statistics.median(near))
            elif (plain := ratio(mine.values.get(name), other.values.get(name))) is not None:
                ratios.append(plain)
        return spread_of(ratios)

    def variants(self, workload: str) -> list[str]:
        """Return the variants of a workload, in the order of their first measurement."""
        return list(dict.fromkeys(variant for work, variant, _ in self._values if work == workload))

    def peers(self, workload: str, variant: str) -> list[str]:
        """Return the peers of a variant, in the order of their first measurement."""
        return [peer for work, var, peer in self._values if (work, var) == (workload, variant)]

    def notes(self, workload: str, variant: str, peer: str) -> list[str]:
        """Return the notes, each sentence once."""
        return list(self._notes.get((workload, variant, peer), ()))


def ratio(of: float | None, to: float | None) -> float | None:
    """Return one figure as a multiple of another; None if either is missing or both are zero."""
    if of is None or to is None:
        return None
    if to == 0:
        return math.inf if of else None
    return of / to


class Hold(NamedTuple):
    """One time that a process held the lock.

    Attributes:
        got_ns: the end of `acquire`.
        released_ns: the start of `release`.
        process: number of the process.
    """

    got_ns: int
    released_ns: int
    process: int


def history(slices: Iterable[Iterable[Hold]], *, seconds: float, processes: int) -> Values:
    """Return the figures of several processes' contention for one lock.

    A hand-over goes from the call of `release` to the return of the next `acquire`. Those to another process are
    counted apart, since a process that takes its own lock again hands nothing over.

    Args:
        slices: the holds of all processes, by one clock, in each stretch of contention.
        seconds: the duration of all stretches.
        processes: their number, including those without a grant.
    """
    pairs: list[tuple[Hold, Hold]] = []
    counts = [0] * processes
    for holds in slices:
        ordered = sorted(holds)
        pairs += itertools.pairwise(ordered)
        for hold in ordered:
            counts[hold.process] += 1
    others = [(before, after) for before, after in pairs if before.process != after.process]
    values = {
        "grants_per_s": sum(counts) / seconds,
        "to_another_per_s": len(others) / seconds,
        "overlaps": float(sum(after.got_ns < before.released_ns for before, after in pairs)),
        "fairness": max(counts) / max(1, min(counts)),
        "grants_least": float(min(counts)),
    }
    return values | latencies(after.got_ns - before.released_ns for before, after in others)
