"""The background thread of a blocking client: it runs the core's timer, and reads what no caller reads.

Rules:

- It refers to its engine weakly while it sleeps, so that a client that is forgotten can be noticed. Who notices makes the
  engine its `heir`: the thread then closes it, and ends.
- It does not end on an error. A section that failed is mended by the next one, which tells those concerned; what fails
  outside of sections is tried again, ever more slowly, and after some failures everything is given up and begun again.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Final, Protocol

from lockring.client.blocking.connection import ClientConnection, Watcher

_FAILURES_MAX: Final = 3
"""So many failures outside of sections, one after the other, are taken for lasting."""
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
        """Trust nothing of the present state any more: the next section gives it up and begins again."""


class Keeper:
    """One such thread, not started yet.

    Attributes:
        watcher: what it sleeps at; any thread may wake it there.
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
        """Start the thread, and wait until it runs; so not in a section.

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
        """Let it look what there is to do."""
        self.watcher.wake()

    def round(self) -> bool:
        """Do what is due, sleep until something happens, and see to that; False at the end."""
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
        except BaseException as error:  # noqa: BLE001 - it goes on; who is concerned is told by the section that mends
            self._endure(error)
        return True

    def _run(self) -> None:
        self.ident = threading.get_ident()  # the thread that starts this one may not have come to it
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
