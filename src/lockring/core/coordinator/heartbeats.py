"""Heartbeats on their way to being acknowledged.

A heartbeat is acknowledged by a read of the store that was begun after it came. One read serves all that wait when
it begins; those that come meanwhile wait for the next. Only the newest of each connection is kept: it is worth
more than the older ones. After a read that failed, its heartbeats wait again, for a moment.
"""

from __future__ import annotations

from collections.abc import Callable

from lockring.core.coordinator.store_health import PAUSE_NS_MIN
from lockring.core.effects import Connection


class Heartbeats:
    """The newest heartbeat of every connection, and those being confirmed. Not safe for use by several tasks."""

    def __init__(self) -> None:
        self._waiting: dict[Connection, int] = {}
        self._confirming: dict[Connection, int] = {}
        self._confirm_from_ns: int | None = None

    def add(self, connection: Connection, sequence: int) -> None:
        """A heartbeat came; it waits for the next read."""
        self._waiting[connection] = sequence

    def drop(self, connection: Connection) -> None:
        """The connection has ended."""
        self._waiting.pop(connection, None)
        self._confirming.pop(connection, None)

    def next_deadline_ns(self, may_confirm: Callable[[Connection], bool], *, now_ns: int) -> int | None:
        """When a read can begin for what waits, None if nothing does."""
        if not any(map(may_confirm, self._waiting)):
            return None
        return now_ns if self._confirm_from_ns is None else self._confirm_from_ns

    def begin(self, may_confirm: Callable[[Connection], bool], *, now_ns: int) -> bool:
        """A read can begin now: choose what it confirms. Returns whether there is anything to confirm."""
        if self._confirm_from_ns is not None and now_ns < self._confirm_from_ns:
            return False
        self._confirm_from_ns = None
        self._confirming = {c: sequence for c, sequence in self._waiting.items() if may_confirm(c)}
        for connection in self._confirming:
            del self._waiting[connection]
        return bool(self._confirming)

    def confirmed(self) -> dict[Connection, int]:
        """The read succeeded: what may be acknowledged, as sequence by connection."""
        confirmed, self._confirming = self._confirming, {}
        return confirmed

    def failed(self, *, pause_ns: int, now_ns: int) -> None:
        """The read failed or was given up: try again after this pause."""
        if self._confirming:
            self._waiting = {**self._confirming, **self._waiting}
            self._confirming = {}
            self._confirm_from_ns = now_ns + max(pause_ns, PAUSE_NS_MIN)

    def connections(self) -> list[Connection]:
        """All connections with heartbeats that are not acknowledged."""
        return [*self._waiting, *self._confirming]
