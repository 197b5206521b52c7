"""Drives one core from an event loop: one flush per turn of the loop, and one armed timer.

Inputs arrive in many callbacks of one turn. `schedule` requests a flush after all of them, so that their effects
leave together. The flush also arms the timer for the core's next deadline.

When little is going on, there is no second input to wait for, and a trip around the loop costs as much as handling a
request. So `flush_if_idle` flushes at once, unless the last flush was only a moment ago and more input is likely.

A timer that fires late must not expire a lease whose renewal has arrived in time but is still unread: after a stall
(a paused process, a busy loop), uvloop runs timers before it reads the sockets. So a due timer first lets the loop go
around once, which reads what has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from lockring.clock import monotonic_ns
from lockring.core.machine import Machine
from lockring.units import NS_PER_S, NS_PER_US

_DELAY_S_MIN: Final = 0.001  # the granularity of the loop's timers
_DELAY_S_MAX: Final = 3600.0
_MOMENT_NS: Final = 20 * NS_PER_US
"""Shorter than a client's pause between requests; longer than the pause between two connections read in one turn."""

EffectT = TypeVar("EffectT")


class TakeEffects(Protocol[EffectT]):
    """Takes a machine's effects in the place of its `take_effects`."""

    def __call__(self, *, now_ns: int) -> list[EffectT]:
        """Return the effects of a turn, given the monotonic clock of its input or a later one, and by a fresh one."""


class CoreLoop(Generic[EffectT]):
    """Runs a machine in its event loop. Not thread-safe.

    Args:
        machine: the core. Its inputs but `on_timer` come from elsewhere, followed by `schedule` or one of the flushes.
        carry_out: carries out the effects of one turn, in their order.
        read_clock: reads the monotonic clock for `on_timer`.
        take_effects: called in the place of the machine's. It does what must come before any effect, then
            reads the clock and calls that.
        has_work_left: says at a deadline that has passed whether the machine has left work for turns without a pause,
            with what has arrived in between. Otherwise the next turn comes a millisecond later.
    """

    def __init__(
        self,
        machine: Machine[Any, EffectT, Any],
        carry_out: Callable[[list[EffectT]], None],
        *,
        read_clock: Callable[[], int] = monotonic_ns,
        take_effects: TakeEffects[EffectT] | None = None,
        has_work_left: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._machine = machine
        self._carry_out = carry_out
        self._read_clock = read_clock
        self._take_effects = machine.take_effects if take_effects is None else take_effects
        self._reads_clock = take_effects is not None
        self._has_work_left = has_work_left
        self._scheduled = False
        self._stopped = False
        self._timer: asyncio.Handle | None = None
        self._armed_ns = 0
        self._flushed_ns = 0

    def schedule(self) -> None:
        """Flush once, at the end of this turn of the loop. Repeated calls cost little."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def flush_if_idle(self, now_ns: int) -> int:
        """Flush at once, unless more input is likely in this turn of the loop; then schedule a flush.

        Args:
            now_ns: when the input arrived.

        Returns:
            The clock at the end.
        """
        if self._scheduled or now_ns - self._flushed_ns < _MOMENT_NS:
            self.schedule()
            return monotonic_ns()
        return self._flush(now_ns if self._reads_clock else monotonic_ns())

    def flush(self) -> int:
        """Flush now, even if more input is likely, and return the clock at the end."""
        return self._flush(monotonic_ns())

    def stop(self) -> None:
        """Never call the core again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self, now_ns: int) -> int:
        if self._stopped:
            return monotonic_ns()
        self._carry_out(self._take_effects(now_ns=now_ns))
        self._flushed_ns = now_ns = monotonic_ns()
        self._arm()
        return now_ns

    def _turn(self) -> None:
        self._scheduled = False
        self.flush()

    def _arm(self) -> None:
        deadline_ns = self._machine.next_deadline_ns()
        if deadline_ns is None or self._stopped:
            return
        if self._timer is not None:
            if self._armed_ns <= deadline_ns:
                return  # it fires early enough and arms the next one: cheaper than a new timer each turn
            self._timer.cancel()
        delay_s = (deadline_ns - monotonic_ns()) / NS_PER_S
        self._armed_ns = deadline_ns
        if delay_s <= 0 and self._has_work_left is not None and self._has_work_left():
            self._timer = self._loop.call_soon(self._fired)
        else:
            self._timer = self._loop.call_later(min(max(delay_s, _DELAY_S_MIN), _DELAY_S_MAX), self._fired)

    def _fired(self) -> None:
        self._loop.call_soon(self._read_first)  # runs before the loop reads the sockets …

    def _read_first(self) -> None:
        self._loop.call_soon(self._tick)  # … and this one after

    def _tick(self) -> None:
        self._timer = None
        if self._stopped:
            return
        deadline_ns = self._machine.next_deadline_ns()
        if deadline_ns is not None and monotonic_ns() >= deadline_ns:
            self._machine.on_timer(now_ns=self._read_clock())
            self._carry_out(self._take_effects(now_ns=monotonic_ns()))
        self._arm()
