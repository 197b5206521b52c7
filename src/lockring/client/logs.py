"""The client's log, `lockring.client`: losses as warnings, connections that open and close as info and debug.

Rules:

- Normal work leaves no record: requests, renewals and releases are not logged.
- A thread of its own writes the records. Events happen inside the client, where a slow handler would delay renewals,
  and a handler that calls the client would wait for itself.
- An application that configures no logging sees nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from lockring.client.grant_state import loss_of, report_in_thread
from lockring.core.client import CONNECTING, ClientCore, Ticket
from lockring.errors import LockringError
from lockring.ids import LinkId

_RECORDS_MAX: Final = 1000
"""How many records may wait to be written. Beyond it the oldest are dropped: a client may lose many locks at once."""

log = logging.getLogger("lockring.client")
logging.getLogger("lockring").addHandler(logging.NullHandler())

_records: deque[tuple[int, str, tuple[object, ...]]] = deque(maxlen=_RECORDS_MAX)
_writing = threading.Lock()


class LoggedCore(ClientCore):
    """A client core that logs when connections open and close.

    Args:
        seeds: as of the core, and so are the other ones.
        owner: see there.
        new_id: see there.
        software: see there.
        connect_timeout_ns: see there.
        origin: see there.
        credential: see there.
        start_writing: has `start_writing` called, at once or later. Where threads wait for this one, it must be later.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        owner: str,
        new_id: Callable[[], str],
        software: str,
        connect_timeout_ns: int,
        origin: str,
        credential: Callable[[], str],
        start_writing: Callable[[], object],
    ) -> None:
        super().__init__(
            seeds,
            owner=owner,
            new_id=new_id,
            software=software,
            connect_timeout_ns=connect_timeout_ns,
            origin=origin,
            credential=credential,
        )
        self._start_writing = start_writing
        self._lost_addresses: set[str] = set()

    def connected(self, endpoint: LinkId, /, *, now_ns: int) -> None:
        """Log that a connection is open, and greet the server."""
        link = self.link(endpoint)
        if link is not None:
            if link.address in self._lost_addresses:
                self._lost_addresses.discard(link.address)
                self._log(logging.INFO, "connected to %s again", link.address)
            else:
                self._log(logging.DEBUG, "connected to %s", link.address)
        super().connected(endpoint, now_ns=now_ns)

    def disconnected(
        self,
        endpoint: LinkId,
        /,
        *,
        now_ns: int,
        reason: str = "the connection was lost",
        error: LockringError | None = None,
    ) -> None:
        """Log that a link could not be opened, or broke, and handle it."""
        link = self.link(endpoint)
        if link is not None:
            if link.state == CONNECTING:
                self._log(logging.DEBUG, "no connection to %s: %s", link.address, error or reason)
            else:
                self._lost_addresses.add(link.address)
                self._log(logging.INFO, "lost the connection to %s: %s", link.address, error or reason)
        super().disconnected(endpoint, now_ns=now_ns, reason=reason, error=error)

    def _log(self, level: int, text: str, *arguments: object) -> None:
        if _add_record(level, text, arguments):
            self._start_writing()


def start_writing(starting: set[threading.Thread] | None = None) -> None:
    """Start the thread that writes, unless it runs, and wait until it does.

    Args:
        starting: has the new thread in it until it runs.
    """
    if not _records or not _writing.acquire(blocking=False):
        return
    # Not a daemon, which would end with the interpreter in the middle: the last loss is the one that counts.
    writer = threading.Thread(target=_write, args=(starting,), name="lockring-log", daemon=False)
    if starting is not None:
        starting.add(writer)
    try:
        writer.start()
    except RuntimeError:  # the system has no thread left: these records go with the next
        if starting is not None:
            starting.discard(writer)
        _writing.release()


def log_loss(ticket: Ticket, start: Callable[[], object] = start_writing) -> None:
    """Log that a lock was lost. After a fork nothing is logged: the parent goes on with what the child has lost.

    Args:
        ticket: the lock's.
        start: has `start_writing` called, at once or later.
    """
    if ticket.reason != "forked" and _add_record(
        logging.WARNING, "%s (token %d)", (loss_of(ticket), ticket.generation)
    ):
        start()


def _add_record(level: int, text: str, arguments: tuple[object, ...]) -> bool:
    """Add a record to those that wait to be written; return whether it is wanted at all."""
    if not log.isEnabledFor(level):
        return False
    _records.append((level, text, arguments))
    return True


def _write(starting: set[threading.Thread] | None) -> None:
    """Write all pending records, and end."""
    if starting is not None:
        starting.discard(threading.current_thread())
    while True:
        while _records:
            level, text, arguments = _records.popleft()
            try:
                log.log(level, text, *arguments)
            except Exception:  # noqa: BLE001 - a handler's error, reported; the other records must be written
                report_in_thread()
        _writing.release()
        if not _records or not _writing.acquire(blocking=False):
            return


def _after_fork() -> None:
    """Drop the parent's records in a forked child, where no thread writes them and the lock may be taken."""
    global _writing
    _writing = threading.Lock()
    _records.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
