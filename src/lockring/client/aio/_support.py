"""Small things that asyncio does in its own way; `lockring.client.blocking._support` has their counterparts for
threads.

The modules beside this one that `client_sync/generate.py` names are the source of both faces. What differs between
them is here, in `loss_notices` and in `change_calls`, under the same names as in the blocking face.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from lockring.client.aio.driver import AsyncDriver
from lockring.client.aio.threaded_driver import ThreadedDriver
from lockring.client.group_state import ChangeCallback, check_change_callback
from lockring.clock import monotonic_ns
from lockring.errors import LockringError
from lockring.units import NS_PER_S

Driver = AsyncDriver | ThreadedDriver

_leaving: set[asyncio.Task[None]] = set()
"""Tasks that leave groups by themselves. The event loop refers to tasks only weakly."""


class Wakeup:
    """A sleeping place for one task of a membership, until something changes."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the task."""
        self._event.set()

    async def wait(self, driver: Driver, until_ns: int | None) -> None:
        """Sleep until woken, or until a time."""
        left_s = None if until_ns is None else max(0, until_ns - monotonic_ns()) / NS_PER_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), left_s)
        self._event.clear()


def check_on_change(callback: ChangeCallback) -> None:
    """Check an `on_change` callback, which may be a coroutine function.

    Raises:
        InvalidRequest: it cannot be called.
    """
    check_change_callback(callback)


def current_task() -> asyncio.Task[Any] | None:
    """Return the running task, None outside any loop: a discarded coroutine may leave its blocks there."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def leave_later(driver: Driver, group: str, leave: Callable[[], Awaitable[None]]) -> None:
    """Leave a group without waiting, on the client's loop.

    Not at once: callbacks may still be finishing work that must not be done by two members.
    """
    driver.call_at_home(functools.partial(_begin_to_leave, group, leave))


def _begin_to_leave(group: str, leave: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        with contextlib.suppress(LockringError):  # the membership was lost or the client closed meanwhile
            await leave()

    task = asyncio.get_running_loop().create_task(work(), name=f"lockring-leave-{group[:40]}")
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)
