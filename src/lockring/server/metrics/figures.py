"""The values of metrics at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lockring.core.histograms import Histogram
from lockring.server.metrics.names import METRICS, PREFIX_LABEL
from lockring.units import NS_PER_S


class Exemplar(NamedTuple):
    """A trace that shows one duration of a bucket.

    Attributes:
        trace_id: in hexadecimal.
        value_s: the duration.
        at_s: when it ended, in seconds since 1970.
    """

    trace_id: str
    value_s: float
    at_s: float


class Buckets(NamedTuple):
    """The values of a histogram.

    Attributes:
        bounds: the upper bounds of all buckets but the last, in the metric's unit.
        counts: of each bucket by itself.
        total: the sum of all observations.
        exemplars: by the number of the bucket.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: Mapping[int, Exemplar]


Labels = tuple[tuple[str, str], ...]


class Figures:
    """The values of all metrics of a process, while they are collected. Not thread-safe.

    Attributes:
        values: by metric and labels.
        histograms: the same for histograms.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Buckets]] = {}

    def add(self, name: str, value: float, *, prefix: str | None = None, **labels: str) -> None:
        """Add a value, which is summed where these labels have one already.

        Args:
            name: of the metric.
            value: to add.
            prefix: of the locks that are counted, None where none are counted apart.
            labels: of the metric.
        """
        there = self.values.setdefault(name, {})
        key = _key(name, prefix, labels)
        there[key] = there.get(key, 0) + value

    def add_histogram(
        self,
        name: str,
        parts: Sequence[Histogram],
        *,
        instantly: int = 0,
        unit: float = NS_PER_S,
        exemplars: Mapping[int, Exemplar] | None = None,
        prefix: str | None = None,
        **labels: str,
    ) -> None:
        """Add the sum of histograms with the same bounds.

        Args:
            name: of the metric.
            parts: the histograms.
            instantly: how many durations of nothing there were besides.
            unit: by how much to divide, to get from the unit of the histograms to that of the metric.
            exemplars: by the number of the bucket.
            prefix: see `add`.
            labels: of the metric.
        """
        counts = [sum(column) for column in zip(*(each.counts for each in parts), strict=True)]
        counts[0] += instantly
        self.histograms.setdefault(name, {})[_key(name, prefix, labels)] = Buckets(
            tuple(bound / unit for bound in parts[0].bounds),
            tuple(counts),
            sum(each.total for each in parts) / unit,
            exemplars or {},
        )


def _key(name: str, prefix: str | None, labels: dict[str, str]) -> Labels:
    assert set(labels) == set(METRICS[name].labels), f"{name} has the labels {METRICS[name].labels}"
    if prefix is not None:
        labels[PREFIX_LABEL] = prefix
    return tuple(labels.items())
