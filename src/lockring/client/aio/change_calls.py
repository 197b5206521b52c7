"""Calls of `on_change` callbacks of the asyncio client: one after the other, each in a task of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from lockring.client.aio._support import Driver, Wakeup
from lockring.client.group_state import ChangeCall, ChangeCallback
from lockring.ring.key_ring import KeySet

_inside: ContextVar[asyncio.Task[None] | None] = ContextVar("lockring_change", default=None)
"""The task of the callback in which this code runs, even through another task such as `wait_for` makes."""


class ChangeCalls:
    """The calls of one membership's callbacks. It does not refer to the membership, which may be dropped.

    Args:
        driver: the client's driver.
        group: the group's name, for the tasks' names.
        wakeups: set once all calls have returned.
    """

    def __init__(self, driver: Driver, group: str, wakeups: list[Wakeup]) -> None:
        self._name = f"lockring-group-{group[:40]}"
        self._wakeups = wakeups
        self._pending: deque[ChangeCall | Callable[[], None]] = deque()
        """Callbacks with their arguments, and functions to call once all callbacks before them have returned."""
        self._calling: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether callbacks have yet to return."""
        return self._calling is not None

    def runs_here(self) -> bool:
        """Whether this code is part of a callback."""
        return self._calling is not None and _inside.get() is self._calling

    def add(self, calls: Sequence[ChangeCall], when_done: Callable[[], None] | None = None) -> None:
        """Call callbacks after those that are pending, and then `when_done`."""
        self._pending += calls
        if when_done is not None:
            self._pending.append(when_done)
        if self._calling is None:
            self._call_next()

    def forget(self) -> None:
        """Drop all calls: in the child of a fork they belong to the parent."""
        self._pending.clear()
        self._calling = None

    def _call_next(self) -> None:
        # The end of each call starts the next one. A single task for all calls could be cancelled by one of them.
        self._calling = None
        while self._pending and self._calling is None:
            each = self._pending.popleft()
            if not isinstance(each, tuple):
                each()
                continue
            # A task of its own: if the callback gets it cancelled, nothing else ends with it.
            self._calling = asyncio.get_running_loop().create_task(_call(*each), name=self._name)
            self._calling.add_done_callback(self._called)
        if self._calling is None:
            for wakeup in self._wakeups:
                wakeup.set()

    def _called(self, call: asyncio.Task[None]) -> None:
        if call.cancelled():
            _report(asyncio.CancelledError("it was cancelled"))
        elif (error := call.exception()) is not None:
            _report(error)
        self._call_next()


async def _call(callback: ChangeCallback, gained: KeySet, lost: KeySet) -> None:
    _inside.set(asyncio.current_task())
    result = callback(gained, lost)
    if inspect.isawaitable(result):
        await result


def _report(error: BaseException) -> None:
    context = {"message": "a lockring on_change callback failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
