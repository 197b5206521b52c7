"""The background thread of a blocking client: it runs the core's timer, and reads what no caller reads.

Rules:

- It refers to its engine weakly while it sleeps, so that a forgotten client can be noticed. The engine's finalizer
  then makes the engine the thread's `heir`: the thread closes it, and ends.
- It does not end on an error. A section that failed is mended by the next one, which reports the error to the calls
  concerned. After a failure outside sections, the thread tries again, at growing intervals; after several such
  failures, the client gives everything up and starts over.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Final, Protocol

from lockring.client.blocking.connection import ClientConnection, Watcher

_FAILURES_MAX: Final = 3
"""After more failures than this outside sections, one after the other, the client starts over."""
_PAUSE_S_MIN: Final = 0.01
_PAUSE_S_MAX: Final = 1.0

log = logging.getLogger("lockring.client")


class KeptDriver(Protocol):
    """The driver, as its background thread sees it."""

    def do_due(self, keeper: Keeper) -> float | None:
        """Do what is due; return how long to sleep in seconds, None at the end."""

    def serve(self, wire: ClientConnection, events: int) -> None:
        """Read or write on a connection that no caller reads."""

    def tear(self, cause: BaseException) -> None:
        """Mark the whole state as unreliable: the next section gives it up and starts over."""


class Keeper:
    """The background thread of one client, not started yet.

    Attributes:
        watcher: the selector at which it sleeps; any thread may wake it there.
        ident: its thread's number, 0 before it runs.
        heir: the engine, once nothing else refers to it.

    Raises:
        OSError: the system has no descriptors left.
    """

    def __init__(self, engine: KeptDriver) -> None:
        self._engine = weakref.ref(engine)
        self._failures = 0
        self.heir: KeptDriver | None = None
        self.ident = 0
        self.watcher = Watcher()
        self.thread = threading.Thread(target=self._run, name="lockring-client", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until it runs. Must not be called in a section.

        Raises:
            RuntimeError: the system has no threads left.
        """
        try:
            self.thread.start()
        except BaseException:
            self.watcher.close()
            raise
        self.ident = self.thread.ident or 0

    def wake(self) -> None:
        """Wake the thread, so that it checks what is due."""
        self.watcher.wake()

    def round(self) -> bool:
        """Do what is due, sleep until something happens, and handle that; return False at the end."""
        try:
            engine = self.heir or self._engine()
            timeout_s = None if engine is None else engine.do_due(self)
            if timeout_s is None:
                return False
            del engine
            found = self.watcher.wait(timeout_s)
            if found and (engine := self.heir or self._engine()) is not None:
                for wire, events in found:
                    engine.serve(wire, events)
            self._failures = 0
        except BaseException as error:  # noqa: BLE001 - it goes on; the section that mends reports to the calls
            self._endure(error)
        return True

    def _run(self) -> None:
        self.ident = threading.get_ident()  # the starting thread may not have set it yet
        try:
            while self.round():
                pass
        finally:
            self.heir = None
            self.watcher.close()

    def _endure(self, error: BaseException) -> None:
        self._failures += 1
        if self._failures > _FAILURES_MAX:
            engine = self.heir or self._engine()
            if engine is not None:
                engine.tear(error)
        if self._failures == 1:
            log.error("the thread that keeps leases failed and goes on: %r", error, exc_info=error)
        time.sleep(min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2 ** min(self._failures, 10)))
