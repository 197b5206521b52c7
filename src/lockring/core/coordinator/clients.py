"""The clients of a coordinator: they get the routes, and notices of what keeps slots from being served."""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState
from lockring.core.access import (
    NEVER_THROTTLED,
    REQUIREMENTS,
    Condition,
    Grantee,
    Newcomer,
    Requirement,
    Verb,
    missing_right,
)
from lockring.core.effects import Broadcast, Effect, Send, denied_entry
from lockring.core.refusals import refusal_of
from lockring.core.route_book import RouteBook, routes_for_all
from lockring.errors import LockringError, Overloaded, ProtocolError, WrongCluster
from lockring.ids import NO_INCARNATION, NO_NODE, NO_REQUEST, ClusterId, ConnectionId, Incarnation, NodeId
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    Message,
    Probe,
    Routes,
    TroubleNotice,
    Undrain,
    Welcome,
)
from lockring.units import NS_PER_S

_REQUESTS: Final = GetState | GetStatus | GetRoutes | GetEvents | Probe | Drain | Undrain

REPORT_NS: Final = NS_PER_S
"""Minimum time between two reports of what the coordinator waits for: the sentence may change many times a second."""


def welcome_to(
    state: ClusterState,
    leader: str,
    node: NodeId = NO_NODE,
    incarnation: Incarnation = NO_INCARNATION,
    *,
    has_others: bool,
) -> Welcome:
    """Return the answer to an accepted first message.

    Args:
        state: the newest state that this coordinator knows.
        leader: HOST:PORT of the coordinator that leads, or of this one.
        node: for a node, its own id.
        incarnation: for a node, its own incarnation.
        has_others: whether other coordinators share the store.
    """
    return Welcome(
        protocol=PROTOCOL,
        cluster=state.cluster,
        role="coordinator",
        node=node,
        incarnation=incarnation,
        version=state.version,
        coordinator=leader,
        has_others=has_others,
        probes=True,
    )


class Clients:
    """The connections of strangers and clients, and the routes and notices that clients get.

    A stranger is a connection whose first message is still to come. Not safe for use by several tasks.

    Args:
        now_ns: the monotonic clock, in nanoseconds. The first report is due `REPORT_NS` later: most waits at a start
            are shorter.
    """

    def __init__(self, *, now_ns: int) -> None:
        self._strangers: dict[ConnectionId, Newcomer] = {}
        # Each with whether it takes differences.
        self._connections: dict[ConnectionId, bool] = {}
        # Of clients, at a coordinator that checks rights.
        self._access: dict[ConnectionId, Grantee] = {}
        self._cluster = ""
        self._routes = RouteBook()
        self._has_routes = False
        self._note = ""
        self._reported_at_ns = now_ns

    def __contains__(self, connection: ConnectionId) -> bool:
        return connection in self._connections

    def await_hello(self, connection: ConnectionId, newcomer: Newcomer) -> None:
        """Add a stranger."""
        self._strangers[connection] = newcomer

    def awaits_hello(self, connection: ConnectionId) -> bool:
        """Return whether a connection is a stranger's."""
        return connection in self._strangers

    def access_of(self, connection: ConnectionId) -> Grantee | None:
        """Return the rights of a client, None at a coordinator that checks none."""
        return self._access.get(connection)

    def take_stranger(self, connection: ConnectionId) -> Newcomer:
        """Forget a stranger whose first message has come, and return what its shell knows of it."""
        return self._strangers.pop(connection)

    def refuse_if_denied(
        self, connection: ConnectionId, message: Message, effects: list[Effect], *, now_ns: int
    ) -> bool:
        """Refuse a client's request that comes too soon or lacks a right, and return whether it was refused.

        An order that a node passes on is one of the requests that its client may make at that node.

        Args:
            connection: the client's.
            message: the request.
            effects: takes the refusal.
            now_ns: the monotonic clock, in nanoseconds.
        """
        access = self._access.get(connection)
        if access is None or not isinstance(message, _REQUESTS):
            return False
        if access.is_enforced and type(message) not in NEVER_THROTTLED:
            try:
                access.quota.check_request(now_ns)
            except Overloaded as error:
                effects.append(Send(connection, refusal_of(error, message.request)))
                return True
        node = message.node if isinstance(message, Drain | Undrain) else NO_NODE
        missing = missing_right(access, REQUIREMENTS[type(message)], node)
        if missing is None and isinstance(message, GetEvents):
            # A coordinator has events of the cluster alone.
            missing = missing_right(access, Requirement(Condition.EVERYTHING, Verb.READ))
        if missing is None:
            return False
        effects.append(denied_entry(access, missing, connection))
        if not access.is_enforced:
            return False
        if message.request != NO_REQUEST:  # a refusal without a number would be one of the connection
            effects.append(Send(connection, refusal_of(missing.error(), message.request)))
        return True

    def admit(
        self,
        connection: ConnectionId,
        hello: ClientHello,
        access: Grantee | None,
        note: str,
        *,
        left_ms: int,
    ) -> list[Message]:
        """Add a client, and return the messages that follow its welcome.

        Args:
            connection: the client's.
            hello: its first message.
            access: its rights, None at a coordinator that checks none.
            note: a sentence on what the coordinator waits for, "" if for nothing.
            left_ms: how much longer that takes at most, 0 if that is unknown.
        """
        self._connections[connection] = hello.differences
        if access is not None:
            self._access[connection] = access
        messages: list[Message] = [self._routes.whole()] if self._has_routes else []
        # As of now: the last report may be old, and the longest time left in it with it.
        return [*messages, _notice(note, left_ms)] if note else messages

    def drop(self, connection: ConnectionId) -> None:
        """Forget a stranger or a client that is gone; other connections are ignored."""
        self._strangers.pop(connection, None)
        self._connections.pop(connection, None)
        self._access.pop(connection, None)

    def pop_misled(self, cluster: ClusterId) -> list[ConnectionId]:
        """Forget all clients if the cluster has another id than they were given, and return their connections.

        A client keeps the first id that it receives, so it must reconnect to learn the one that counts.
        """
        if cluster == self._cluster:
            return []
        self._cluster = cluster
        connections, self._connections, self._access = list(self._connections), {}, {}
        return connections

    def publish(self, state: ClusterState) -> list[Effect]:
        """Record the routes of a new state, and return their broadcast if they differ from the previous ones."""
        is_first, self._has_routes = not self._has_routes, True
        # The version rises with every write, and most writes change no route.
        if not self._routes.learn(state) and not is_first:
            return []
        return routes_for_all(self._connections, self._routes, has_any=not is_first)

    def whole_routes(self) -> Routes:
        """Return all routes, for a client whom a difference did not fit."""
        return self._routes.whole()

    def next_report_ns(self, note: str) -> int | None:
        """Return when `report` is due, None if clients know what the coordinator waits for."""
        return None if note == self._note else self._reported_at_ns + REPORT_NS

    def report(self, note: str, *, left_ms: int, now_ns: int) -> list[Effect]:
        """Record what the coordinator waits for, and return its broadcast to all clients.

        Args:
            note: a sentence on the wait, "" if there is none.
            left_ms: the longest time left, 0 if that is unknown.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._note, self._reported_at_ns = note, now_ns
        return self._to_all(_notice(note, left_ms))

    def _to_all(self, message: Message) -> list[Effect]:
        return [Broadcast(tuple(self._connections), message)] if self._connections else []


def _notice(note: str, left_ms: int) -> TroubleNotice:
    """Return what the coordinator waits for as clients get it."""
    if not note:
        return TroubleNotice("")
    if left_ms:
        return TroubleNotice("leases", note, left_ms=left_ms)
    return TroubleNotice("no-primary", note)


def why_not_greet(hello: ClientHello, cluster: ClusterId) -> LockringError | None:
    """Return the error that keeps a client out, None if it is admitted.

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
