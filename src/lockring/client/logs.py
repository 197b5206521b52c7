"""The client's log, `lockring.client`: losses and long waits as warnings, connections as info and debug.

Rules:

- Normal work leaves no record: requests, renewals and releases are not logged.
- A thread of its own writes the records. Events happen inside the client, where a slow handler would delay renewals,
  and a handler that calls the client would wait for itself.
- An application that configures no logging sees nothing; see `client_log`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from lockring.client.client_log import client_log
from lockring.client.grant_state import loss_of, report_in_thread
from lockring.core.client import CONNECTING, ClientCore, LongWait, Ticket
from lockring.core.refusals import holder_of
from lockring.errors import LockringError
from lockring.holders import Holder
from lockring.ids import LinkId
from lockring.log_events import event
from lockring.native import from_native

_RECORDS_MAX: Final = 1000
"""How many records may wait to be written. Beyond it the oldest are dropped: a client may lose many locks at once."""

_DEBUG: Final = 10
_INFO: Final = 20
_WARNING: Final = 30
"""The levels of `logging`, which may not be loaded."""

_records: deque[tuple[int, str, tuple[object, ...], dict[str, object] | None]] = deque(maxlen=_RECORDS_MAX)
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
            place=(
                from_native(socket.gethostname()).encode(errors="replace").decode(),
                os.getpid(),
            ),
        )
        self._start_writing = start_writing
        self._lost_addresses: set[str] = set()

    def connected(self, endpoint: LinkId, /, *, now_ns: int) -> None:
        """Log that a connection is open, and greet the server."""
        link = self.link(endpoint)
        if link is not None:
            if link.address in self._lost_addresses:
                self._lost_addresses.discard(link.address)
                self._log(_INFO, "connected to %s again", link.address)
            else:
                self._log(_DEBUG, "connected to %s", link.address)
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
                self._log(_DEBUG, "no connection to %s: %s", link.address, error or reason)
            else:
                self._lost_addresses.add(link.address)
                self._log(_INFO, "lost the connection to %s: %s", link.address, error or reason)
        super().disconnected(endpoint, now_ns=now_ns, reason=reason, error=error)

    def log_long_wait(self, wait: LongWait) -> None:
        """Log that an acquire has waited for long, and for which holder."""
        holder = holder_of(wait.notice.holders[0])
        facts = event(
            "lock-wait-long",
            lock=wait.ticket.name,
            waited_s=round(wait.waited_s, 3),
            position=wait.notice.position,
            holder=holder.owner,
            fencing_token=holder.fencing_token,
            held_s=holder.held_s,
            host=holder.host,
            pid=holder.pid,
        )
        if _add_record(_WARNING, "%s", (_words_of_wait(wait, holder),), facts):
            self._start_writing()

    def _log(self, level: int, text: str, *arguments: object) -> None:
        if _add_record(level, text, arguments):
            self._start_writing()


def _words_of_wait(wait: LongWait, holder: Holder) -> str:
    place = f" (host {holder.host}, process {holder.pid})" if holder.host else ""
    more = len(wait.notice.holders) - 1
    others = f" and {more} more" if more else ""
    ahead = wait.notice.position - 1
    queue = f"; {ahead} wait{'s' if ahead == 1 else ''} before this call" if ahead > 0 else ""
    return (
        f"the lock {wait.ticket.name!r} has not been granted for {wait.waited_s:.0f} s: it has been held by"
        f" {holder.owner!r}{place}{others} for {holder.held_s:.0f} s (token {holder.fencing_token}){queue}"
    )


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
        _WARNING, "%s (token %d)", (loss_of(ticket), ticket.generation)
    ):
        start()


def _add_record(
    level: int, text: str, arguments: tuple[object, ...], facts: dict[str, object] | None = None
) -> bool:
    """Add a record, with the event that it is about, to those that wait; return whether it is wanted at all."""
    log = client_log()
    if log is None or not log.isEnabledFor(level):
        return False
    _records.append((level, text, arguments, facts))
    return True


def _write(starting: set[threading.Thread] | None) -> None:
    """Write all pending records, and end."""
    if starting is not None:
        starting.discard(threading.current_thread())
    log = client_log()
    assert log is not None, "there are records only where there is a logger"
    while True:
        while _records:
            level, text, arguments, facts = _records.popleft()
            try:
                log.log(level, text, *arguments, extra=facts)
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
