"""Heartbeats on their way to being acknowledged.

A heartbeat is acknowledged by a read of the store that was begun after it arrived. One read serves all that wait when
it begins; those that arrive meanwhile wait for the next. Only the newest of each connection is kept: its
acknowledgement gives the longest lease. After a read that failed, its heartbeats wait again, for a pause.
"""

from __future__ import annotations

from collections.abc import Callable

from lockring.core.coordinator.pace import Pace
from lockring.core.coordinator.store_health import PAUSE_NS_MIN
from lockring.ids import ConnectionId, SequenceNumber


class Heartbeats:
    """The newest heartbeat of every connection, and those being confirmed. Not safe for use by several tasks.

    Args:
        pace: how long a read waits, so that it serves many.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: dict[ConnectionId, SequenceNumber] = {}
        self._confirming: dict[ConnectionId, SequenceNumber] = {}
        self._confirm_from_ns: int | None = None

    def add(self, connection: ConnectionId, sequence: SequenceNumber) -> None:
        """Let a heartbeat wait for the next read."""
        self._waiting[connection] = sequence

    def drop(self, connection: ConnectionId) -> None:
        """Forget the heartbeats of a connection that has ended."""
        self._waiting.pop(connection, None)
        self._confirming.pop(connection, None)

    def next_deadline_ns(self, may_confirm: Callable[[ConnectionId], bool], *, now_ns: int) -> int | None:
        """Return when a read can begin for the waiting heartbeats, None if none waits."""
        if not any(map(may_confirm, self._waiting)):
            return None
        return now_ns if self._confirm_from_ns is None else self._confirm_from_ns

    def begin(self, may_confirm: Callable[[ConnectionId], bool], *, nodes: int, now_ns: int) -> bool:
        """Choose the heartbeats that a read begun now confirms, and return whether there are any.

        Args:
            may_confirm: reports whether a connection's heartbeat may be acknowledged at all.
            nodes: how many are connected.
            now_ns: the monotonic clock, in nanoseconds.
        """
        if self._confirm_from_ns is not None and now_ns < self._confirm_from_ns:
            return False
        pause_ns = self._pace.confirming_pause_ns(nodes)
        self._confirm_from_ns = now_ns + pause_ns if pause_ns else None
        self._confirming = {c: sequence for c, sequence in self._waiting.items() if may_confirm(c)}
        for connection in self._confirming:
            del self._waiting[connection]
        return bool(self._confirming)

    def take_confirmed(self) -> dict[ConnectionId, SequenceNumber]:
        """Hand out what a successful read allows to be acknowledged, as sequence by connection."""
        confirmed, self._confirming = self._confirming, {}
        return confirmed

    def failed(self, *, pause_ns: int, now_ns: int) -> None:
        """Let the heartbeats of a read that failed, or was given up, wait again for this pause."""
        if self._confirming:
            # Those that arrived during the read are newer, and win.
            self._waiting = {**self._confirming, **self._waiting}
            self._confirming = {}
            self._confirm_from_ns = now_ns + max(pause_ns, PAUSE_NS_MIN)

    def connections(self) -> list[ConnectionId]:
        """Return all connections with heartbeats that are not acknowledged."""
        return [*self._waiting, *self._confirming]
