"""How late the event loop of a process is, and how long garbage collections take."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

from lockring.clock import monotonic_ns
from lockring.core.histograms import SHORT_NS, Histogram
from lockring.units import NS_PER_S

_LOOK_S: Final = 0.25


class LoopWatch:
    """Watches the present event loop from `start` to `stop`.

    Attributes:
        lag: how late each look was.
        gc_ns: the time that garbage collections took.
    """

    def __init__(self) -> None:
        self.lag = Histogram(SHORT_NS)
        self.gc_ns = 0
        self._due_ns = 0
        self._gc_began_ns: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        gc.callbacks.append(self._collects)
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.callbacks.remove(self._collects)

    def _wait(self) -> None:
        self._due_ns = monotonic_ns() + int(_LOOK_S * NS_PER_S)
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        # Loops round the time of a timer to their own grain, so it may come a moment before its time.
        self.lag.observe(max(0, monotonic_ns() - self._due_ns))
        self._wait()

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        now_ns = monotonic_ns()
        if phase == "start":
            self._gc_began_ns = now_ns
        elif self._gc_began_ns is not None:
            self.gc_ns += now_ns - self._gc_began_ns
            self._gc_began_ns = None
