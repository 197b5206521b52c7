"""The handshakes under way at a port: how many, how long, and how they end.

A handshake of an honest client takes milliseconds. So when there are too many under way, the oldest is dropped for the
newest: a crowd that begins handshakes and never goes on keeps no other client out, and takes little memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.log_events import event
from lockring.troubles import RepeatedTrouble

HANDSHAKE_S_MAX: Final = 5.0
"""How long a handshake may take."""

UNDER_WAY_MAX: Final = 512
"""Handshakes under way at a port: about 25 MB."""

LINGER_S: Final = 1.0
"""How long a refused connection stays, so that the reason arrives: the system would answer later bytes with a reset,
which destroys it."""

REASONS_MAX: Final = 20
"""Kinds of failure that are logged each as a trouble of its own; further ones share one."""

log = logging.getLogger("lockring.tls")

FailureReport = Callable[[str, str], None]
"""Called with HOST:PORT of the other side, and the reason as a clause, for each handshake that fails."""


class PendingHandshake(Protocol):
    """A connection whose handshake is under way.

    Attributes:
        remote: HOST:PORT of its other side.
    """

    remote: str

    def drop(self, reason: str) -> None:
        """End the connection at once, and give the reason to the caller that waits for it, if there is one."""


class HandshakeGate:
    """Counts and bounds the handshakes of a port. Lives in one event loop.

    Args:
        under_way_max: how many may be under way.
        timeout_s: how long each may take.
        on_failure: see `FailureReport`; for the audit log.
        logs: whether failures are logged; a caller that dials reports them itself.

    Attributes:
        completed: handshakes that ended well.
        failed: those that did not: refused certificates, bytes that are not TLS, connections that ended.
        timed_out: those that took too long.
        crowded_out: those that were dropped for newer ones.
        parting: refused connections that are still there for their last words.
    """

    def __init__(
        self,
        *,
        under_way_max: int = UNDER_WAY_MAX,
        timeout_s: float = HANDSHAKE_S_MAX,
        on_failure: FailureReport | None = None,
        logs: bool = True,
    ) -> None:
        self.completed = self.failed = self.timed_out = self.crowded_out = 0
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._logs = logs
        self._under_way_max = under_way_max
        self.parting = 0
        self._timers: dict[PendingHandshake, asyncio.TimerHandle] = {}
        self._troubles: dict[str, RepeatedTrouble] = {}

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return len(self._timers)

    def begin(self, handshake: PendingHandshake) -> None:
        """Count a handshake that begins, and drop the oldest if there are too many."""
        if len(self._timers) >= self._under_way_max:
            oldest = next(iter(self._timers))
            self.crowded_out += 1
            reason = f"there were {self._under_way_max} handshakes under way, and newer ones come first"
            self._end(oldest, reason)
            oldest.drop(reason)
        loop = asyncio.get_running_loop()
        self._timers[handshake] = loop.call_later(self._timeout_s, self._too_slow, handshake)

    def complete(self, handshake: PendingHandshake) -> None:
        """Count a handshake that has ended well."""
        self.completed += 1
        self._timers.pop(handshake).cancel()

    def fail(self, handshake: PendingHandshake, reason: str) -> None:
        """Count a handshake that has failed, and log that; does nothing after its end."""
        if handshake in self._timers:
            self.failed += 1
            self._end(handshake, reason)

    def part(self, transport: asyncio.Transport) -> None:
        """End a connection so that what was written arrives, unless too many end at this moment."""
        if transport.is_closing():
            return
        if self.parting >= self._under_way_max or not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:
            transport.abort()  # the other side has reset it at this moment
            return
        self.parting += 1
        asyncio.get_running_loop().call_later(LINGER_S, self._parted, transport)

    def _parted(self, transport: asyncio.Transport) -> None:
        self.parting -= 1
        transport.abort()

    def _too_slow(self, handshake: PendingHandshake) -> None:
        self.timed_out += 1
        reason = f"it took longer than {self._timeout_s:g} s"
        self._end(handshake, reason)
        handshake.drop(reason)

    def _end(self, handshake: PendingHandshake, reason: str) -> None:
        self._timers.pop(handshake).cancel()
        if self._logs:
            self._log(handshake, reason)
        if self._on_failure is not None:
            self._on_failure(handshake.remote, reason)

    def _log(self, handshake: PendingHandshake, reason: str) -> None:
        key = reason if reason in self._troubles or len(self._troubles) < REASONS_MAX else "other reasons"
        trouble = self._troubles.setdefault(key, RepeatedTrouble())
        told = trouble.fails(f"a TLS handshake failed: {reason}", now_ns=monotonic_ns())
        if told:
            log.info(
                "%s, at %s", told, handshake.remote, extra=event("handshake-failed", remote=handshake.remote)
            )
