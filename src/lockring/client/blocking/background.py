"""The background thread of a blocking client: how it is started, sleeps and is woken.

Rules:

- It refers to nothing that refers to the driver, so that a forgotten client is noticed: the driver's finalizer has the
  thread close the client, and stays alive as the thread's `heir` until that is done.
- It does not end on an error. A section that failed is mended by the next one, which reports the error to the calls
  concerned. After a failure outside sections, the thread tries again, at growing intervals; after several such
  failures, the client gives everything up and starts over.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

from lockring.client.blocking.connection import ClientConnection, Watcher
from lockring.client.client_log import client_log
from lockring.core.timing import DISTANT_FUTURE_NS

_FAILURES_MAX: Final = 3
"""After more failures than this outside sections, one after the other, the client starts over."""
_PAUSE_S_MIN: Final = 0.01
_PAUSE_S_MAX: Final = 1.0


class KeeperWork(Protocol):
    """The work of the background thread; each method in a section of its own."""

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
        heir: the driver of a forgotten client, until the thread has closed it.

    Raises:
        OSError: the system has no descriptors left.
    """

    def __init__(self, work: KeeperWork) -> None:
        self._work = work
        self._failures = 0
        self.heir: object = None
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
            timeout_s = self._work.do_due(self)
            if timeout_s is None:
                return False
            for wire, events in self.watcher.wait(timeout_s):
                self._work.serve(wire, events)
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
            self._work.tear(error)
        log = client_log()
        if self._failures == 1 and log is not None:
            log.error("the thread that keeps leases failed and goes on: %r", error, exc_info=error)
        time.sleep(min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2 ** min(self._failures, 10)))


class Background:
    """The place of the background thread, empty until the first call: what wakes the thread, and what it watches.

    Attributes:
        keeper: the thread, None if there is none.
        sleeping_until_ns: until when it sleeps unless it is woken; 0 if it is awake, or will be soon.
        planned_ns: when it meant to wake up, from which a stop of the process is seen.
    """

    __slots__ = ("keeper", "planned_ns", "sleeping_until_ns")

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self.sleeping_until_ns = 0
        self.planned_ns = DISTANT_FUTURE_NS

    def rouse(self) -> None:
        """Have the thread do a round, from outside a section, where it is not known whether it sleeps."""
        keeper = self.keeper
        if keeper is not None:
            keeper.wake()

    def wake(self) -> None:
        """Wake the thread if it sleeps; in a section."""
        if self.keeper is not None and self.sleeping_until_ns:
            self.sleeping_until_ns = 0
            self.keeper.wake()

    def watch(self, wire: ClientConnection, events: int) -> None:
        """Let the thread watch a connection for these events."""
        if self.keeper is not None:
            self.keeper.watcher.watch(wire, events)

    def distrust_watcher(self) -> None:
        """Have the thread begin to watch from nothing, since a section was interrupted."""
        if self.keeper is not None:
            self.keeper.watcher.stale = True
            self.sleeping_until_ns = 0
            self.keeper.wake()
