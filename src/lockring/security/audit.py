"""The audit log: one line of JSON per act: the identity and its proof, the place, the act, and the outcome.

A server hands records over and goes on: a thread writes them. If it cannot keep up, or the disk is full, records are
dropped and counted, and the next line that is written says how many. No record has a secret.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from lockring.clock import monotonic_ns, wall_ns
from lockring.core.access import Act, Outcome
from lockring.errors import ConfigError
from lockring.log_events import event
from lockring.protocol.identities import Identity
from lockring.system_errors import reason_of
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_MS, NS_PER_S

WAITING_MAX: Final = 20_000
"""Records that wait to be written: about 20 MB."""

STDERR: Final = "-"
"""Stands for standard error in the place of a file."""

_CLOSE_S_MAX: Final = 2.0
_REOPEN_NS: Final = NS_PER_S
_BATCH: Final = 500
_MODE: Final = 0o600

log = logging.getLogger("lockring.audit")


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"origin": "from"}):
    """One act.

    Attributes:
        at: when, in ISO 8601 with milliseconds.
        server: the node or coordinator that has written it.
        act: see `Act`.
        who: the identity's name; "" if it has none yet.
        how: how it was proven: "certificate", "token", "jwt", "node" or "none".
        origin: HOST:PORT of the other side; written as `from`.
        via: the node that has forwarded the request, "" if none has.
        name: the lock, node or file in question.
        fencing_token: of the grant, 0 if there is none.
        right: the right that was asked for, such as "acquire".
        outcome: see `Outcome`.
        rule: the rule that decided, as the ACL file writes it, "" if none matched.
        reason: a sentence, for what was refused or lost.
        count: for "dropped", how many records are missing.
        left_out: for a TLS handshake, how many more have failed since the record before, for the same reason.
    """

    at: str
    server: str
    act: Act
    who: str = ""
    how: str = ""
    origin: str = ""
    via: str = ""
    name: str = ""
    fencing_token: int = 0
    right: str = ""
    outcome: Outcome
    rule: str = ""
    reason: str = ""
    count: int = 0
    left_out: int = 0


class AuditLog:
    """Writes records to a file. Any thread may hand records over.

    Args:
        place: the file, or "-" for standard error. It is made if it is missing, and its owner alone may read it. One
            that was moved away, as by logrotate, is made again within a second.
        server: the name of this server.
        waiting_max: how many records may wait.

    Attributes:
        dropped: how many records are missing in all.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, place: str, *, server: str, waiting_max: int = WAITING_MAX) -> None:
        self.dropped = 0
        self._server = server
        self._path = None if place == STDERR else Path(place)
        self._waiting: deque[AuditRecord] = deque()
        self._waiting_max = waiting_max
        self._unreported = 0
        self._counting = threading.Lock()
        self._wakes = threading.Event()
        self._is_closed = False
        self._is_torn = False
        self._trouble = RepeatedTrouble()
        self._encoder = msgspec.json.Encoder()
        self._looked_ns = 0
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigError(f"the audit log {place} cannot be written: {reason_of(error)}") from None
        self._thread = threading.Thread(target=self._run, name="lockring-audit", daemon=True)
        self._thread.start()

    def write(
        self,
        act: Act,
        outcome: Outcome,
        *,
        identity: Identity | None = None,
        origin: str = "",
        via: str = "",
        name: str = "",
        fencing_token: int = 0,
        right: str = "",
        rule: str = "",
        reason: str = "",
        left_out: int = 0,
    ) -> None:
        """Hand a record over, and return at once; see `AuditRecord` for its fields."""
        if self._is_closed or len(self._waiting) >= self._waiting_max:
            with self._counting:
                self.dropped += 1
                self._unreported += 1
            return
        self._waiting.append(
            AuditRecord(
                at=_time(wall_ns()),
                server=self._server,
                act=act,
                who="" if identity is None else identity.name,
                how="" if identity is None else identity.method,
                origin=origin,
                via=via,
                name=name,
                fencing_token=fencing_token,
                right=right,
                outcome=outcome,
                rule=rule,
                reason=reason,
                left_out=left_out,
            )
        )
        if not self._wakes.is_set():
            self._wakes.set()

    def close(self) -> bool:
        """Write what waits, and end; return whether all of it was written within two seconds."""
        self._is_closed = True
        self._wakes.set()
        self._thread.join(_CLOSE_S_MAX)
        return not self._thread.is_alive() and not self._waiting and not self._unreported

    # ----------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            self._wakes.wait()
            self._wakes.clear()
            is_last = self._is_closed
            while self._waiting or self._unreported:
                if not self._write_some():
                    break
            if is_last:
                if self._path is not None:
                    os.close(self._descriptor)
                return

    def _write_some(self) -> bool:
        """Write some records, and return whether that worked; those that were not written are dropped."""
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        with self._counting:
            missing, self._unreported = self._unreported, 0
        if missing:
            batch.append(self._gap(missing))
        lines = [self._encoder.encode(each) + b"\n" for each in batch]
        written = 0
        try:
            self._reopen_if_moved()
            if self._is_torn:  # a disk that was full has taken half of a line
                os.write(self._descriptor, b"\n")
                self._is_torn = False
            data = memoryview(b"".join(lines))
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._drop(batch, lines, written)
            told = self._trouble.fails(
                f"the audit log cannot be written, and records are missing in it: {reason_of(error)}",
                now_ns=monotonic_ns(),
            )
            if told:
                log.error("%s", told, extra=event("audit-log-failed"))
            return False
        so_far = self._trouble.ends(now_ns=monotonic_ns())
        if so_far:
            log.info("the audit log is written again (%s)", so_far, extra=event("audit-log-works-again"))
        return True

    def _drop(self, batch: list[AuditRecord], lines: list[bytes], written: int) -> None:
        """Count the records that were not written whole."""
        end = 0
        for record, line in zip(batch, lines, strict=True):
            begin, end = end, end + len(line)
            if end > written:
                self._is_torn = self._is_torn or begin < written
                with self._counting:
                    self._unreported += record.count or 1
                    self.dropped += 0 if record.count else 1

    def _gap(self, missing: int) -> AuditRecord:
        return AuditRecord(
            at=_time(wall_ns()),
            server=self._server,
            act="dropped",
            outcome="failed",
            count=missing,
            reason="records are missing here: they came faster than they could be written",
        )

    def _open(self) -> int:
        if self._path is None:
            return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
        self._file = os.fstat(descriptor)
        return descriptor

    def _reopen_if_moved(self) -> None:
        """Open the file again if another one, or none, has its name."""
        now_ns = monotonic_ns()
        if self._path is None or now_ns - self._looked_ns < _REOPEN_NS:
            return
        self._looked_ns = now_ns
        try:
            found = self._path.stat()
            if (found.st_dev, found.st_ino) == (self._file.st_dev, self._file.st_ino):
                return
        except FileNotFoundError:
            pass  # moved, and not made again yet
        former = self._descriptor
        self._descriptor = self._open()
        os.close(former)


def _time(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, NS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest_ns // NS_PER_MS:03d}Z"
