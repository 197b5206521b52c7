"""The end of the program: all sessions end, so that other clients need not wait for leases to run out.

This happens when the interpreter exits normally: at the end of the main module, by `sys.exit`, or by an uncaught error.
It comes after all non-daemon threads have ended, since those may still work under locks, and after the functions that
the program has registered with `atexit` since it imported the client. It does not happen after `os._exit`, after a
signal that kills the process, or in a forked child for the sessions of its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from lockring.client.client_log import client_log
from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from concurrent.futures import Future  # costs the import of a blocking client some milliseconds

_BOUND_NS: Final = 1_200 * NS_PER_MS
"""How long all clients together may take. A node has one second to answer; the rest is for connections and threads."""


class SessionOwner(Protocol):
    """A driver, as far as the end of the program concerns it."""

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close. Returns a function that waits for the end of that, at most until a time in ns."""


_drivers: dict[int, weakref.ref[SessionOwner]] = {}
_pids: set[int] = set()
"""Processes of `multiprocessing` that say goodbye by a finalizer, since they end without `atexit`."""


def remember(driver: SessionOwner) -> None:
    """End a driver's sessions at the end of the program, if the driver still exists then."""
    key = id(driver)
    _drivers[key] = weakref.ref(driver, lambda _: _drivers.pop(key, None))


def expect_end() -> None:
    """Make sure that `say_goodbye` runs at the end of this process, even if `multiprocessing` started it."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None or os.getpid() in _pids:
        return
    from multiprocessing.util import Finalize

    _pids.add(os.getpid())
    Finalize(None, say_goodbye, exitpriority=0)


def say_goodbye() -> None:
    """End the sessions of all clients, and wait for the answers for about a second in all."""
    until_ns = monotonic_ns() + _BOUND_NS
    ends = []
    for reference in list(_drivers.values()):
        driver = reference()
        try:
            end = None if driver is None else driver.begin_goodbye()
        except Exception as error:  # noqa: BLE001 - reported
            _report(error)
            continue
        if end is not None:
            ends.append(end)
    for end in ends:
        try:
            end(until_ns)
        except Exception as error:  # noqa: BLE001 - reported
            _report(error)


def _report(error: Exception) -> None:
    log = client_log()
    if log is not None:
        text = "the sessions of a client could not be ended at the end of the program"
        log.error(text, exc_info=error)


atexit.register(say_goodbye)


def wait_for(closing: Future[None]) -> Callable[[int], None]:
    """Return a function that waits until a client has closed, or a time has come."""

    def wait(until_ns: int) -> None:
        with contextlib.suppress(TimeoutError):
            closing.result(max(0, until_ns - monotonic_ns()) / NS_PER_S)

    return wait
