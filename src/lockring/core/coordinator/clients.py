"""The clients of a coordinator: they get the routes and a word on what keeps slots from being served, and ask for the state."""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.cluster_state import ClusterState, routes_of
from lockring.core.effects import Broadcast, Connection, Effect
from lockring.errors import LockringError, ProtocolError, WrongCluster
from lockring.protocol import PROTOCOL, ClientHello, Message, Routes, TroubleNotice
from lockring.units import NS_PER_S

REPORT_NS: Final = NS_PER_S
"""The shortest time between two reports of what the coordinator waits for: a sentence may change many times a second."""


class Clients:
    """Greeted clients, and what they know. Not safe for use by several tasks.

    Args:
        now_ns: the monotonic clock, in nanoseconds. The first report is due a while later: most waits at a start are short.
    """

    def __init__(self, *, now_ns: int) -> None:
        self._connections: dict[Connection, None] = {}
        self._cluster = ""
        self._routes: Routes | None = None
        self._note = ""
        self._trouble = TroubleNotice("")
        self._reported_at_ns = now_ns

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._connections

    def admit(self, connection: Connection) -> list[Message]:
        """Take a client in, and return the messages that follow its welcome."""
        self._connections[connection] = None
        messages: list[Message] = [] if self._routes is None else [self._routes]
        return messages + ([self._trouble] if self._trouble.reason else [])

    def drop(self, connection: Connection) -> None:
        """Forget a client whose connection has ended; others are ignored."""
        self._connections.pop(connection, None)

    def drop_strangers(self, cluster: str) -> list[Connection]:
        """Forget all clients if the cluster has another id than they were given, and return their connections.

        A client keeps the first id that it hears: it has to come back and hear the one that counts.
        """
        if cluster == self._cluster:
            return []
        self._cluster = cluster
        connections, self._connections = list(self._connections), {}
        return connections

    def publish(self, state: ClusterState) -> list[Effect]:
        """Return the routes of a new state for all clients, if they differ from those before."""
        routes = routes_of(state)
        if (
            self._routes is not None
            and msgspec.structs.replace(self._routes, version=routes.version) == routes
        ):
            return []
        self._routes = routes
        return self._to_all(routes)

    def next_report_ns(self, note: str) -> int | None:
        """Return when `report` is due, None if clients know what the coordinator waits for."""
        return None if note == self._note else self._reported_at_ns + REPORT_NS

    def report(self, note: str, *, left_ms: int, now_ns: int) -> list[Effect]:
        """Return what clients and the log get to know of what the coordinator waits for.

        Args:
            note: a sentence on it, "" if it waits for nothing.
            left_ms: for how long yet, 0 if that is unknown.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._note, self._reported_at_ns = note, now_ns
        if not note:
            self._trouble = TroubleNotice("")
        elif left_ms:
            self._trouble = TroubleNotice("leases", note, left_ms=left_ms)
        else:
            self._trouble = TroubleNotice("no-primary", note)
        return self._to_all(self._trouble)

    def _to_all(self, message: Message) -> list[Effect]:
        return [Broadcast(tuple(self._connections), message)] if self._connections else []


def why_not_greet(hello: ClientHello, cluster: str) -> LockringError | None:
    """Return why a client is not let in, None if it is.

    Args:
        hello: its first message.
        cluster: the coordinator's cluster, "" before it has one.
    """
    if hello.protocol != PROTOCOL:
        return ProtocolError(
            f"the client speaks version {hello.protocol} of the protocol, this server version {PROTOCOL}"
        )
    if hello.cluster and cluster and hello.cluster != cluster:
        return WrongCluster(f"the client belongs to cluster {hello.cluster}, this coordinator to {cluster}")
    return None
