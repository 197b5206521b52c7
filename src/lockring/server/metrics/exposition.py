"""The page of metrics, in the formats that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar as FamilyExemplar

from lockring.server.metrics.figures import Buckets, Figures
from lockring.server.metrics.names import METRICS


class Exposition:
    """Writes pages of metrics. Lives in one event loop."""

    def __init__(self) -> None:
        nowhere = CollectorRegistry()
        self._of_the_process = [ProcessCollector(registry=nowhere), GCCollector(registry=nowhere)]

    def page(self, figures: Figures, accept: str) -> tuple[bytes, str]:
        """Return a page and its content type.

        Args:
            figures: the values.
            accept: the header of the request, which chooses between text and OpenMetrics. One with a malformed version
                is answered in the usual format.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it compares versions in words, such as 1.x, with numbers
            encode, content_type = choose_encoder("")
        return encode(_Source(figures, self._of_the_process)), content_type


class _Source(Collector):
    def __init__(self, figures: Figures, others: list[Collector]) -> None:
        self._figures = figures
        self._others = others

    def collect(self) -> Iterator[Family]:
        yield from families(self._figures)
        for each in self._others:
            yield from each.collect()


def families(figures: Figures) -> Iterator[Family]:
    """Return the metrics that have values, in the order of the table."""
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            if name in figures.histograms:
                yield _histogram(name, metric.meaning, figures)
        elif name in figures.values:
            is_counter = metric.kind == "counter"
            family = Family(
                name.removesuffix("_total")
                if is_counter
                else name.removesuffix("_info")
                if metric.kind == "info"
                else name,
                metric.meaning,
                metric.kind,
            )
            for labels, value in figures.values[name].items():
                family.add_sample(name, dict(labels), value)
            yield family


def _histogram(name: str, meaning: str, figures: Figures) -> Family:
    family = Family(name, meaning, "histogram")
    for labels, buckets in figures.histograms[name].items():
        _add_buckets(family, dict(labels), buckets)
    return family


def _add_buckets(family: Family, labels: dict[str, str], buckets: Buckets) -> None:
    so_far = 0
    bounds = [*(f"{bound:.10g}" if bound % 1 else f"{bound:.1f}" for bound in buckets.bounds), "+Inf"]
    for number, (bound, count) in enumerate(zip(bounds, buckets.counts, strict=True)):
        so_far += count
        found = buckets.exemplars.get(number)
        exemplar = (
            None if found is None else FamilyExemplar({"trace_id": found.trace_id}, found.value_s, found.at_s)
        )
        family.add_sample(f"{family.name}_bucket", labels | {"le": bound}, so_far, exemplar=exemplar)
    family.add_sample(f"{family.name}_count", labels, so_far)
    family.add_sample(f"{family.name}_sum", labels, buckets.total)
