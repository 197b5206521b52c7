"""Small things that threads do in their own way; `lockring.client.aio._support` has their counterparts for
asyncio."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lockring.client.blocking.driver import BlockingDriver
from lockring.client.grant_state import check_callback
from lockring.errors import LockringError

if TYPE_CHECKING:
    from lockring.client.group_state import ChangeCallback

Driver = BlockingDriver


class Wakeup:
    """A sleeping place for one thread of a membership, until something changes.

    A bare lock, not an event: an event has a lock inside that would block a signal handler which interrupts its own
    thread in `set`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the thread."""
        with contextlib.suppress(RuntimeError):  # it is awake
            self._lock.release()

    def wait(self, driver: Driver, until_ns: int | None) -> None:
        """Sleep until woken, or until a time. May return early."""
        driver.wait_at(self._lock, until_ns)


def check_on_change(callback: ChangeCallback) -> None:
    """Check an `on_change` callback.

    Raises:
        InvalidRequest: it cannot be called, or it is a coroutine function, whose coroutine would never run.
    """
    check_callback(callback, "on_change")


def current_task() -> object | None:
    """Return None: threads are distinguished without it."""
    return None


def leave_later(driver: Driver, group: str, leave: Callable[[], None]) -> None:
    """Leave a group without waiting, in a thread of its own.

    Not at once: callbacks may still be finishing work that must not be done by two members.
    """

    def work() -> None:
        with contextlib.suppress(LockringError):  # the membership was lost or the client closed meanwhile
            leave()

    driver.spawn(work, f"lockring-leave-{group[:40]}")
