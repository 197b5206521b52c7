"""A node's connected clients, and the refusals and notices that they get."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from lockring.core.access import Grantee
from lockring.core.node.context import NodeContext
from lockring.core.node.locks import LockHolder, LockWaiter
from lockring.ids import NO_REQUEST, ClientId, ConnectionId, GreetingNumber, LockName, RequestNumber
from lockring.protocol import ClientHello, LossNotice, Refusal
from lockring.slots import slot_of

HOST_CHARS_MAX: Final = 253
PID_MAX: Final = 2**32
FORMER_MAX: Final = 10_000
"""Connections that are over whose clients' places are kept."""


class ClientPlace(NamedTuple):
    """Where the process of a client is, as the client says.

    Attributes:
        client: the client's random id.
        host: the name of its host, "" if it does not say.
        pid: the number of its process there, 0 if it does not say.
        ended_at_ns: when its connection ended, None while it has one.
    """

    client: ClientId
    host: str
    pid: int
    ended_at_ns: int | None = None


class ConnectedClient:
    """One client's connection, and what ends with it.

    Attributes:
        own: the identity and rights of the connection, None at a server that checks none.
        access: those by which its requests are judged: of the client itself, or at a node's connection of the identity
            for which the node forwards requests.
        client: the client's random id.
        number: which of the client's connections this is.
        differences: whether the client takes differences of routes.
        place: where its process is.
        waiters: its acquires in queues.
        watches: the lock of each watch, by request.
        follows: the lock of each group that it follows, by request.
    """

    __slots__ = ("access", "client", "differences", "follows", "number", "own", "place", "waiters", "watches")

    def __init__(self, hello: ClientHello, access: Grantee | None) -> None:
        self.own = self.access = access
        self.client = hello.client
        self.number = hello.connection
        self.differences = hello.differences
        self.place = ClientPlace(
            hello.client, hello.host[:HOST_CHARS_MAX], hello.pid if 0 < hello.pid <= PID_MAX else 0
        )
        self.waiters: dict[LockWaiter, None] = {}
        self.watches: dict[RequestNumber, LockName] = {}
        self.follows: dict[RequestNumber, LockName] = {}


class ConnectedClients:
    """All clients' connections.

    Attributes:
        by_connection: by the shell's number of the connection.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self.by_connection: dict[ConnectionId, ConnectedClient] = {}
        self._connection_of: dict[ClientId, ConnectionId] = {}
        # Of connections that are over, the last ones last: holders outlive them, until their leases end.
        self._former: dict[ConnectionId, ClientPlace] = {}

    def connection_of(self, client: ClientId) -> ConnectionId | None:
        """Return the present connection of a client, None if it has none."""
        return self._connection_of.get(client)

    def is_outdated(self, client: ClientId, number: GreetingNumber) -> bool:
        """Return whether the client has opened a newer connection already, so that this hello came late."""
        other = self._connection_of.get(client)
        return other is not None and self.by_connection[other].number > number

    def add(self, connection: ConnectionId, hello: ClientHello, access: Grantee | None) -> None:
        """Serve a client that has greeted on this connection, with its rights."""
        self.by_connection[connection] = ConnectedClient(hello, access)
        self._connection_of[hello.client] = connection

    def remove(self, connection: ConnectionId) -> ConnectedClient | None:
        """Forget a connection, and return what ends with it; None if no client was served on it."""
        client = self.by_connection.pop(connection, None)
        if client is not None:
            del self._connection_of[client.client]
            if client.place.host:
                if len(self._former) >= FORMER_MAX:
                    del self._former[next(iter(self._former))]
                self._former[connection] = client.place._replace(ended_at_ns=self._context.now_ns)
        return client

    def place_of(self, connection: ConnectionId | None) -> ClientPlace | None:
        """Return where the client of a connection is, or was when that ended; None if it is not known."""
        if connection is None:
            return None
        present = self.by_connection.get(connection)
        if present is not None:
            return present.place
        former = self._former.get(connection)
        if former is not None and former.client in self._connection_of:
            return former._replace(ended_at_ns=None)  # it has come back, and not used its session since
        return former

    # ------------------------------------------------------------------ refusals and notices

    def refuse(
        self, connection: ConnectionId, message: Any, code: str, text: str, *, is_handled: bool = True
    ) -> None:
        """Refuse a request with an error of `lockring.errors`, on behalf of its handler or not."""
        self._context.outbox.counters.refuse(type(message).__name__, code, is_handled=is_handled)
        refusal = Refusal(getattr(message, "request", NO_REQUEST), code, text, getattr(message, "name", ""))
        self._context.outbox.send(connection, refusal)

    def refuse_moved(
        self, connection: ConnectionId, request: RequestNumber, name: LockName, kind: str
    ) -> None:
        """Refuse a request of this kind because another node serves the lock's slot."""
        if connection not in self.by_connection:
            return
        self._context.outbox.counters.refuse(kind, "moved")
        state = self._context.state
        number = slot_of(name)
        primary = state.slots[number].primary
        text = (
            f"lock {name!r} is served by {primary}" if primary else f"no node serves slot {number} at present"
        )
        self._context.outbox.send(connection, Refusal(request, "moved", text, name, state.version))

    def is_forwarded(self, connection: ConnectionId, access: Grantee | None) -> bool:
        """Return whether a request with these rights is one that the connection's client has forwarded for another."""
        client = self.by_connection.get(connection)
        return client is not None and client.own is not access

    def notify_lost(self, entry: LockHolder | LockWaiter, reason: str) -> None:
        """Notify a client that one of its holders or waiters was dropped.

        Of a holder a node reports only what it has the right to report: after the end of its reign the grant may
        live on at another node.
        """
        outbox = self._context.outbox
        if isinstance(entry, LockWaiter):
            request = entry.request
            text = "the session was not kept alive"
            outbox.send(request.connection, Refusal(request.request, "unavailable", text, entry.lock.name))
            return
        connection = entry.session.connection
        now_ns = self._context.now_ns
        if connection in self.by_connection and self._context.rights.may_serve(
            slot_of(entry.lock.name), now_ns=now_ns
        ):
            notice = LossNotice(
                entry.session.id, entry.acquisition, entry.lock.name, reason, entry.generation
            )
            outbox.send(connection, notice)
