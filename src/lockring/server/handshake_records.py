"""Records of the audit log on TLS handshakes that failed: few enough that no stranger can fill the disk with them.

Rules:

- Each reason, at each port, has at most one record a second. It says how many more there were since the one before.
- So each failed handshake is either a record of its own, or counted in a later one: `look` sees to the last of them.
- Reasons beyond a bound share one record a second at each port. A reason that is quiet for a second makes room.
"""

from __future__ import annotations

from typing import Final

from lockring.security.audit import AuditLog
from lockring.units import NS_PER_S

REASONS_MAX: Final = 20
"""Reasons at all ports that have records of their own, within a second."""

_EVERY_NS: Final = NS_PER_S
_OTHER: Final = ""


class _Reason:
    """One reason at one port: its last record, and the handshakes since.

    Attributes:
        text: the sentence of the handshake that came last.
        origin: where that came from.
        waiting: the handshakes that have no record yet.
        written_ns: when the last record was written.
    """

    __slots__ = ("origin", "text", "waiting", "written_ns")

    def __init__(self, now_ns: int) -> None:
        self.text = self.origin = ""
        self.waiting = 0
        self.written_ns = now_ns - _EVERY_NS


class HandshakeRecords:
    """The records of one server. Lives in one event loop.

    Args:
        audit: the log.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._reasons: dict[tuple[str, str], _Reason] = {}

    def note(self, port: str, origin: str, reason: str, *, now_ns: int) -> None:
        """Record a handshake that has failed, or count it for the next record.

        Args:
            port: where it failed, such as "lock port".
            origin: HOST:PORT of the other side.
            reason: a clause.
            now_ns: the monotonic clock.
        """
        key = (port, reason)
        if key not in self._reasons and len(self._reasons) >= REASONS_MAX:
            self.look(now_ns)
            if len(self._reasons) >= REASONS_MAX:
                key = (port, _OTHER)
        found = self._reasons.setdefault(key, _Reason(now_ns))
        found.text = f"a TLS handshake at the {port} failed: {reason}"
        found.origin = origin
        found.waiting += 1
        self._write_if_due(found, now_ns)

    def look(self, now_ns: int) -> None:
        """Write the records that are due, and forget the reasons that have none. Called at least once a second."""
        for key, found in list(self._reasons.items()):
            if now_ns - found.written_ns >= _EVERY_NS and not found.waiting:
                del self._reasons[key]
            else:
                self._write_if_due(found, now_ns)

    def close(self) -> None:
        """Write what waits, at once."""
        for found in self._reasons.values():
            if found.waiting:
                self._write(found)

    def _write_if_due(self, found: _Reason, now_ns: int) -> None:
        if found.waiting and now_ns - found.written_ns >= _EVERY_NS:
            found.written_ns = now_ns
            self._write(found)

    def _write(self, found: _Reason) -> None:
        self._audit.write(
            "denied", "refused", origin=found.origin, reason=found.text, left_out=found.waiting - 1
        )
        found.waiting = 0
