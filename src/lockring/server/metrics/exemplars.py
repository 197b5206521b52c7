"""Traces that show how long acquires waited: for each bucket of the histogram the last one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from lockring.core.histograms import LONG_NS
from lockring.server.metrics.figures import Exemplar
from lockring.units import NS_PER_S


class WaitExemplars:
    """The exemplars of one node. Lives in one event loop. It keeps one for each bucket and mode."""

    def __init__(self) -> None:
        self._by_mode: dict[str, dict[int, Exemplar]] = {}

    def granted(self, span: Any) -> None:
        """Keep the trace of an acquire that is granted, if its span is recorded.

        Args:
            span: OpenTelemetry's, which has just ended.
        """
        context = span.get_span_context()
        began_ns, ended_ns = getattr(span, "start_time", None), getattr(span, "end_time", None)
        if not context.trace_flags.sampled or began_ns is None or ended_ns is None:
            return
        mode = str(span.attributes.get("lockring.lock.mode", ""))
        took_ns = max(0, ended_ns - began_ns)
        exemplar = Exemplar(f"{context.trace_id:032x}", took_ns / NS_PER_S, ended_ns / NS_PER_S)
        self._by_mode.setdefault(mode, {})[bisect_left(LONG_NS, took_ns)] = exemplar

    def of(self, mode: str) -> Mapping[int, Exemplar]:
        """Return the exemplars of a mode, by the number of their bucket."""
        return self._by_mode.get(mode, {})
