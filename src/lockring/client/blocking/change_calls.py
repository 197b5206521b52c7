"""How a membership of the blocking client calls its `on_change` callbacks: one after the other, in a thread of their
own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lockring.client.blocking._support import Driver, Wakeup
from lockring.client.grant_state import report_in_thread
from lockring.client.group_state import ChangeCall

_STARTING = 0
"""In place of a thread's number while that thread is being started."""


class _Change(NamedTuple):
    calls: Sequence[ChangeCall]
    when_done: Callable[[], None] | None


class ChangeCalls:
    """The calls of one membership's callbacks. It does not refer to the membership, which may be dropped.

    Args:
        driver: the client's; its critical section guards what is here.
        group: the group's name, for the thread's name.
        wakeups: what to set once all calls have returned.
    """

    def __init__(self, driver: Driver, group: str, wakeups: list[Wakeup]) -> None:
        self._driver = driver
        self._name = f"lockring-group-{group[:40]}"
        self._wakeups = wakeups
        self._pending: deque[_Change] = deque()
        self._thread_id: int | None = None

    @property
    def is_busy(self) -> bool:
        """Whether callbacks have yet to return."""
        return self._thread_id is not None

    def runs_here(self) -> bool:
        """Whether this code is part of a callback."""
        return threading.get_ident() == self._thread_id

    def add(self, calls: Sequence[ChangeCall], when_done: Callable[[], None] | None = None) -> None:
        """Call callbacks after those that are pending, and then `when_done`; call this in the critical section."""
        self._pending.append(_Change(calls, when_done))
        if self._thread_id is None:
            self._thread_id = _STARTING
            self._driver.spawn(self._run, self._name)

    def forget(self) -> None:
        """Drop all calls: in the child of a fork they are the parent's."""
        self._pending.clear()
        self._thread_id = None

    def _run(self) -> None:
        self._thread_id = threading.get_ident()
        while (change := self._driver.guarded(self._next)) is not None:
            for callback, gained, lost in change.calls:
                try:
                    callback(gained, lost)
                except BaseException:  # noqa: BLE001 - reported; the other callbacks must be called
                    report_in_thread()
            if change.when_done is not None:
                change.when_done()

    def _next(self) -> _Change | None:
        if self._pending:
            return self._pending.popleft()
        self._thread_id = None
        for wakeup in self._wakeups:
            wakeup.set()
        return None
