"""The timer of the asyncio driver: it fires when the core is due, and waits a little more after a stall.

After a stall of the process or the loop, the loop must first read the messages that arrived meanwhile, or the core
would judge a server silent that has answered.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
"""A timer that fires this late has seen a stall of the process or the loop."""
_STALL_S: Final = 0.005
"""How long the loop may then read what has arrived."""


class TimedDriver(Protocol):
    """The driver, as its timer sees it."""

    def on_timer(self) -> None:
        """Process the deadlines that have passed."""


class StallTimer:
    """One timer, armed for one time. It refers to its driver weakly, since the loop refers to the timer."""

    def __init__(self, driver: TimedDriver) -> None:
        self._driver = weakref.ref(driver)
        self._handle: asyncio.TimerHandle | None = None
        self._due_ns = 0

    def arm(self, loop: asyncio.AbstractEventLoop, due_ns: int) -> None:
        """Fire at this time, or earlier: a timer that fires too early is left alone, which costs less."""
        if self._handle is not None:
            if self._due_ns <= due_ns:
                return
            self._handle.cancel()
        self._due_ns = due_ns
        delay_s = max(0, due_ns - monotonic_ns()) / NS_PER_S
        self._handle = loop.call_later(delay_s, self._fired, loop)

    def disarm(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fired(self, loop: asyncio.AbstractEventLoop) -> None:
        if monotonic_ns() - self._due_ns > _STALL_NS:
            self._handle = loop.call_later(_STALL_S, self._fire)
        else:
            self._fire()

    def _fire(self) -> None:
        self._handle = None
        driver = self._driver()
        if driver is not None:
            driver.on_timer()
