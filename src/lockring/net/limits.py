"""Counts the connections of one port against its limits, and logs what was refused.

Clients have a limit of their own. Beyond it a reserve is kept for the members of the cluster and for connections
whose role is not yet known: a crowd of clients must not cut a node off from the others.
"""

from __future__ import annotations

import logging
from typing import Final

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Overloaded
from lockring.log_events import event
from lockring.net.descriptors import CLIENTS_MAX, RESERVED_MAX, ConnectionRoom
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

_CALM_NS: Final = 60 * NS_PER_S

log = logging.getLogger("lockring.net")


class ConnectionLimits:
    """The connection counts of one port. Lives in one event loop.

    Args:
        clients_max: how many clients to accept, if the system allows as many.
    """

    def __init__(self, clients_max: int = CLIENTS_MAX) -> None:
        self._clients_max = clients_max
        self._reserved = RESERVED_MAX
        self._clients = 0
        self._connections = 0
        self._full = RepeatedTrouble(calm_ns=_CALM_NS)

    def fit(self, room: ConnectionRoom) -> None:
        """Lower the limits to what the process has descriptors for."""
        if room.clients < self._clients_max:
            self._clients_max = room.clients
            if room.remark:
                log.warning("%s", room.remark, extra=event("descriptors-limited"))
        self._reserved = room.reserved

    def count_open(self) -> None:
        """Count a new connection, which `count_closed` must uncount even after a refusal.

        Raises:
            Overloaded: the port has too many connections.
        """
        self._connections += 1
        if self._connections > self._clients_max + self._reserved:
            raise self._refuse(f"{self._connections - 1} connections")

    def require_client_room(self) -> None:
        """Check that there is room for one more client, and log once that clients are refused if there is none.

        Raises:
            Overloaded: the port has as many clients as it may have.
        """
        if self._clients >= self._clients_max:
            raise self._refuse(f"{self._clients} client connections")

    def count_client(self) -> None:
        """Count an open connection as a client's. There must be room for it."""
        assert self._clients < self._clients_max
        self._clients += 1

    def count_closed(self, *, is_client: bool) -> None:
        """Uncount a connection that has ended."""
        self._connections -= 1
        if is_client:
            self._clients -= 1
        if self._full.is_on and self._clients < self._clients_max and self._connections <= self._clients_max:
            self._full.ends(now_ns=monotonic_ns())

    def _refuse(self, what: str) -> Overloaded:
        text = f"this server has {what}, which is its limit"
        line = self._full.fails(text, now_ns=monotonic_ns())
        if line:
            log.warning("clients are refused: %s", line, extra=event("clients-refused"))
        return Overloaded(f"{text}; try again later, or another node")


class RefusalLog:
    """Log lines about refused connections, few enough that strangers cannot fill the log with them."""

    def __init__(self) -> None:
        self._by_code: dict[str, RepeatedTrouble] = {}

    def write(self, level: int, action: str, remote: str, error: LockringError, *, is_member: bool) -> None:
        """Log an action against a connection.

        Each one against a member gets a line. Others may connect as often as they like, so theirs are logged as one
        repeated trouble per error code.

        Args:
            level: of the log line.
            action: what was done, such as "refused a client".
            remote: the other side's address.
            error: the cause.
            is_member: whether the connection is a member's.
        """
        text = str(error)
        if not is_member:
            trouble = self._by_code.setdefault(error.code, RepeatedTrouble())
            text = trouble.fails(text, now_ns=monotonic_ns())
        if text:
            log.log(
                level, "%s at %s: %s", action, remote, text, extra=event("connection-refused", remote=remote)
            )
