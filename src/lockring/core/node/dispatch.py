"""A node's service to clients: who is connected, whose requests go where, and what waits until it can be answered.

What cannot be answered yet, since the slot is about to be this node's, or since the asker knows a newer cluster state
than this node, is parked for a while rather than refused, so that nobody polls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lockring.core.deadlines import DeadlineQueue
from lockring.core.node.acquires import Acquisitions
from lockring.core.node.groups import Groups
from lockring.core.node.locks import LockHolder, LockWaiter
from lockring.core.node.queries import Queries
from lockring.core.node.renewals import Renewals
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.core.node.trouble import Troubles
from lockring.core.node.watches import Watches
from lockring.errors import LockringError
from lockring.protocol import (
    Acquire,
    Break,
    CloseSession,
    Describe,
    DescribeGroup,
    FollowGroup,
    Keepalive,
    List,
    LossNotice,
    Message,
    Refusal,
    Release,
    Unwatch,
    ViewAck,
    Watch,
)
from lockring.slots import slot_of
from lockring.units import ms_to_ns

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore

PARKED_MAX: Final = 100_000
"""Requests that may be parked at a node."""

PARKED_NS: Final = 5_000_000_000
"""How long a request may be parked: longer than any failover with the default leases takes."""


class ConnectedClient:
    """A client's connection: what ends with it."""

    __slots__ = ("client", "follows", "number", "waiters", "watches")

    def __init__(self, client: str, number: int) -> None:
        self.client = client
        self.number = number
        self.waiters: dict[LockWaiter, None] = {}
        self.watches: dict[int, str] = {}
        self.follows: dict[int, str] = {}


class ParkedRequest:
    """A request that waits until it can be answered."""

    __slots__ = ("arrived_ns", "connection", "message", "slot")

    def __init__(self, connection: int, message: Any, slot: int, arrived_ns: int) -> None:
        self.connection = connection
        self.message = message
        self.slot = slot
        self.arrived_ns = arrived_ns

    def since_ns(self) -> int:
        """Since when its sender has been waiting."""
        waited_ms = self.message.waited_ms if isinstance(self.message, Acquire) else 0
        return self.arrived_ns - ms_to_ns(waited_ms)


class ClientRequests:
    """What a node does for clients.

    Attributes:
        connections: clients' connections by number.
        locking, keeping, queries, watching, groups, troubles: the parts.
        handlers: who answers which request.
    """

    def __init__(self, node: NodeCore, sessions: Sessions) -> None:
        self._node = node
        self._sessions = sessions
        self.connections: dict[int, ConnectedClient] = {}
        self.locking = Acquisitions(node, self)
        self.keeping = Renewals(node, self, sessions)
        self.queries = Queries(node, self)
        self.watching = Watches(node, self)
        self.groups = Groups(node, self)
        self.troubles = Troubles(node, node.now_ns)
        self._queues: tuple[DeadlineQueue[Any], ...] = (
            sessions.queue,
            self.locking.timeouts,
            self.queries.broken,
            self.groups.windows,
        )
        self._connection_of: dict[str, int] = {}
        self._parked: dict[int, list[ParkedRequest]] = {}
        self._parked_count = 0
        self.handlers: dict[type[Message], Callable[[int, Any, int], None]] = {
            Acquire: self.locking.acquire,
            Release: self.locking.release,
            Keepalive: self.keeping.keepalive,
            CloseSession: self.keeping.close_session,
            Describe: self.queries.describe,
            List: self.queries.list_locks,
            Watch: self.watching.watch,
            Unwatch: self.watching.unwatch,
            Break: self.queries.break_lease,
            DescribeGroup: self.groups.look,
            FollowGroup: self.groups.follow,
            ViewAck: self.groups.seen,
        }

    # ------------------------------------------------------------------ inputs

    def connected(self, connection: int, client: str, number: int) -> None:
        """A client's hello was welcomed. Its older connections end here; an older one that comes late is closed."""
        other = self._connection_of.get(client)
        if other is not None:
            if self.connections[other].number > number:
                self._node.close(connection, "superseded by a newer connection of this client")
                return
            self.disconnected(other)
            self._node.close(other, "superseded by a newer connection of this client")
        self.troubles.greet(connection, self._node.now_ns)
        self.connections[connection] = ConnectedClient(client, number)
        self._connection_of[client] = connection

    def disconnected(self, connection: int) -> None:
        """A connection is gone: its waiters and watches go with it, its holders stay."""
        client = self.connections.pop(connection, None)
        if client is None:
            return
        del self._connection_of[client.client]
        self.locking.withdraw_all(reversed(list(client.waiters)))  # from the ends of long queues
        self.watching.disconnected(connection, client.watches)
        self.groups.disconnected(connection, client.follows)

    def receive(self, connection: int, message: Message, now_ns: int) -> None:
        """A client's request. Anything that is no client's request is refused."""
        if connection not in self.connections:
            return
        handler = self.handlers.get(type(message))
        if handler is None:
            self.refuse(
                connection, message, "protocol", f"a node takes no {type(message).__name__} from a client"
            )
            return
        try:
            handler(connection, message, now_ns)
        except LockringError as error:
            self.refuse(connection, message, error.code, str(error))

    def deadline_before_ns(self, at_ns: int) -> int:
        """When `on_timer` has something to do, or `at_ns` if that is earlier."""
        if self.groups.has_more:
            return min(at_ns, self._node.now_ns)
        for queue in self._queues:
            heap = queue.heap
            if heap and heap[0][0] < at_ns:
                at_ns = heap[0][0]
        return at_ns

    def on_timer(self, now_ns: int) -> None:
        """End what has run out: waits, broken leases, sessions."""
        self.locking.time_out_due(now_ns)
        self.queries.end_broken_due(now_ns)
        self.keeping.expire_due(now_ns)
        self.groups.form_due(now_ns)

    def on_tick(self, now_ns: int) -> None:
        """Look at what no input brings on."""
        self.retry_parked(now_ns)
        self.locking.on_tick(now_ns)
        self.troubles.look(now_ns)

    # ------------------------------------------------------------------ reigns

    def reign_began(self, data: NodeSlot, now_ns: int) -> None:
        """A slot is served here from now on: the sessions that have something in it start afresh."""
        for share in data.table.shares.values():
            self._sessions.extend(share.session, now_ns + share.session.lifetime_ns)
        self.queries.reign_began(data, now_ns)

    def reign_ended(self, data: NodeSlot) -> None:
        """A slot is not served here any more: whoever waits for news of it is told to go elsewhere."""
        self.locking.reign_ended(data)
        self.watching.reign_ended(data)
        self.groups.reign_ended(data)

    # ------------------------------------------------------------------ parking

    def elsewhere(self, connection: int, message: Any, slot: int, now_ns: int) -> None:
        """The slot is not served here now: park the request if it may be soon, else say where to go."""
        state = self._node.state
        primary = state.slots[slot].primary
        if primary != self._node.replica and primary is not None and message.version <= state.version:
            self.refuse_moved(connection, message.request, message.name)
        elif self._parked_count >= PARKED_MAX:
            self.refuse(connection, message, "overloaded", f"{PARKED_MAX} requests wait at this node already")
        else:
            self._parked.setdefault(slot, []).append(ParkedRequest(connection, message, slot, now_ns))
            self._parked_count += 1

    def retry_parked(self, now_ns: int) -> None:
        """Something may have changed: answer what can be answered now, those who have waited longest first."""
        for slot in list(self._parked):
            state = self._node.state.slots[slot]
            data = self._node.slots.get(slot)
            served = (
                data is not None
                and data.reign is not None
                and self._node.coordinator_lease_left_ns(now_ns) > 0
            )
            moved = state.primary is not None and state.primary != self._node.replica
            group = self._parked.pop(slot)
            self._parked_count -= len(group)
            for parked in sorted(group, key=ParkedRequest.since_ns):
                if parked.connection not in self.connections:
                    continue
                if now_ns - parked.arrived_ns >= PARKED_NS:
                    self.refuse(parked.connection, parked.message, "unavailable", self.not_served(slot))
                elif served or (moved and parked.message.version <= self._node.state.version):
                    self._try_again(parked, now_ns)
                else:
                    self._keep_parked(parked)

    def _try_again(self, parked: ParkedRequest, now_ns: int) -> None:
        before = self._parked_count
        self.receive(parked.connection, parked.message, now_ns)
        if self._parked_count > before:
            self._parked[parked.slot][-1].arrived_ns = parked.arrived_ns

    def _keep_parked(self, parked: ParkedRequest) -> None:
        self._parked.setdefault(parked.slot, []).append(parked)
        self._parked_count += 1

    # ------------------------------------------------------------------ telling

    def tell_lost(self, entry: LockHolder | LockWaiter, reason: str) -> None:
        """Tell a client that a holder, or a waiter, of its is no more.

        Of a holder only what this node has the right to say: it may be held elsewhere by now.
        """
        if isinstance(entry, LockWaiter):
            self._node.send(
                entry.request.connection,
                Refusal(
                    entry.request.request, "unavailable", "the session was not kept alive", entry.lock.name
                ),
            )
            return
        connection = entry.session.connection
        slot = slot_of(entry.lock.name)
        if connection in self.connections and self._node.may_serve(slot, now_ns=self._node.now_ns):
            self._node.send(
                connection, LossNotice(entry.session.id, entry.acquisition, entry.lock.name, reason)
            )

    def refuse(self, connection: int, message: Any, code: str, text: str) -> None:
        """Refuse a request with an error of `lockring.errors`."""
        self._node.send(
            connection, Refusal(getattr(message, "request", 0), code, text, getattr(message, "name", ""))
        )

    def refuse_moved(self, connection: int, request: int, name: str) -> None:
        """Refuse a request since another node has the lock's slot."""
        if connection in self.connections:
            slot = slot_of(name)
            primary = self._node.state.slots[slot].primary
            text = (
                f"lock {name!r} is served by {primary}"
                if primary
                else f"nobody serves slot {slot} at present"
            )
            self._node.send(connection, Refusal(request, "moved", text, name, self._node.state.version))

    def not_served(self, slot: int) -> str:
        """Why a request about a slot cannot be answered."""
        why = self.troubles.text(slot, self._node.now_ns) or "try again"
        return f"node {self._node.replica.node} may not serve slot {slot} at present; {why}"
