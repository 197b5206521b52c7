"""The end of the program: what is still held is given up, so that others need not wait for leases to run out.

It comes when the interpreter ends normally: at the end of the main module, by `sys.exit`, or by an error that nothing caught; after all
threads that are no daemons have ended, since those may still work under locks, and after what the program itself has
registered with `atexit` since it imported the client. It does not come after `os._exit`, after a signal that kills, or for what a
forked child has from its parent.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS

_BOUND_NS: Final = 1_200 * NS_PER_MS
"""How long all clients together may take: a node has a second to answer."""

log = logging.getLogger("lockring.client")


class SessionOwner(Protocol):
    """What has sessions to end."""

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close; returns what waits for the end of that, until a time in ns."""


_engines: dict[int, weakref.ref[SessionOwner]] = {}
_pids: set[int] = set()
"""Processes of `multiprocessing` that are to say goodbye: those end without `atexit`."""


def remember(engine: SessionOwner) -> None:
    """Say goodbye for an engine at the end of the program, if it lives by then."""
    key = id(engine)
    _engines[key] = weakref.ref(engine, lambda _: _engines.pop(key, None))


def expect_end() -> None:
    """This process has something to end now: see to it that its end is noticed, whatever started it."""
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
    for reference in list(_engines.values()):
        engine = reference()
        try:
            end = None if engine is None else engine.begin_goodbye()
        except Exception:
            log.exception("the end of the program could not be told to the lock servers")
            continue
        if end is not None:
            ends.append(end)
    for end in ends:
        try:
            end(until_ns)
        except Exception:
            log.exception("the end of the program could not be told to the lock servers")


atexit.register(say_goodbye)
