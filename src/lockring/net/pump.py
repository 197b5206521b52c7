"""Drives one core from an event loop: one flush per turn of the loop, and one armed timer.

Inputs arrive in many callbacks of one turn; `schedule` asks for a flush after them all, so that what they
caused leaves together. The flush also arms the timer for the core's next deadline.

A timer that fires late must not expire what was renewed in time by a message that has already arrived and
was only not yet read: after a stall (a paused process, a busy loop) uvloop runs timers before it looks at
the sockets. So a due timer first lets the loop go round once, and with that read what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_S

_DELAY_S_MIN: Final = 0.001  # the granularity of the loop's timers
_DELAY_S_MAX: Final = 3600.0


class Pump:
    """The heartbeat of a core in its event loop. Not thread-safe.

    Args:
        flush: takes the core's effects and carries them out.
        next_deadline_ns: the core's next deadline on the monotonic clock, or None.
        on_timer: called when that deadline has come and what has arrived was read; a flush follows.
    """

    def __init__(
        self,
        *,
        flush: Callable[[], None],
        next_deadline_ns: Callable[[], int | None],
        on_timer: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._flush = flush
        self._next_deadline_ns = next_deadline_ns
        self._on_timer = on_timer
        self._scheduled = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns = 0

    def schedule(self) -> None:
        """Flush once, at the end of this turn of the loop. Cheap when asked for many times."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def stop(self) -> None:
        """Never call the core again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        self._flush()
        self._arm()

    def _arm(self) -> None:
        deadline_ns = self._next_deadline_ns()
        if deadline_ns is None or self._stopped:
            return
        if self._timer is not None:
            if self._armed_ns <= deadline_ns:
                return  # it fires early enough and will look again: cheaper than a new timer each turn
            self._timer.cancel()
        delay_s = (deadline_ns - monotonic_ns()) / NS_PER_S
        self._armed_ns = deadline_ns
        self._timer = self._loop.call_later(min(max(delay_s, _DELAY_S_MIN), _DELAY_S_MAX), self._fired)

    def _fired(self) -> None:
        self._loop.call_soon(self._read_first)  # runs before the loop looks at the sockets …

    def _read_first(self) -> None:
        self._loop.call_soon(self._tick)  # … and this after it did

    def _tick(self) -> None:
        self._timer = None
        if self._stopped:
            return
        deadline_ns = self._next_deadline_ns()
        if deadline_ns is not None and monotonic_ns() >= deadline_ns:
            self._on_timer()
            self._flush()
        self._arm()
