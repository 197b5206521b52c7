"""A node's answers to questions about itself: the cluster state that it knows, its status, and its recent events."""

from __future__ import annotations

from lockring.core.access import Verb
from lockring.core.events import viewer_of
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.core.node.grants import NodeGrants
from lockring.core.node.sessions import Sessions
from lockring.core.node.status import (
    Doors,
    NodeHoldings,
    NodeStatus,
    holdings_of,
    server_status_of,
    status_of,
)
from lockring.core.node.trouble import Troubles
from lockring.ids import ConnectionId
from lockring.protocol import GetEvents, GetState, GetStatus, StateReply, StatusReply
from lockring.units import NS_PER_MS


class NodeReports:
    """The answers to questions about the node itself. They need no right: they are its knowledge, with its age.

    Attributes:
        doors: TLS, rights and HTTP; the shell sets them.
    """

    def __init__(
        self,
        context: NodeContext,
        tie: CoordinatorTie,
        *,
        troubles: Troubles,
        sessions: Sessions,
        grants: NodeGrants,
        clients: ConnectedClients,
        guard: AccessGuard,
    ) -> None:
        self._context = context
        self._clients = clients
        self._guard = guard
        self._tie = tie
        self._troubles = troubles
        self._sessions = sessions
        self._grants = grants
        self.doors = Doors([])

    def status(self, now_ns: int) -> NodeStatus:
        """Return this node in figures, its rights as of `now_ns` or the last input, if that was later."""
        return status_of(
            self._context,
            waiters=self._grants.waiters,
            sessions=len(self._sessions),
            now_ns=max(now_ns, self._context.now_ns),
        )

    def holdings(self, now_ns: int) -> NodeHoldings:
        """Return the node's parts in slots and locks; see `holdings_of`."""
        return holdings_of(self._context, max(now_ns, self._context.now_ns))

    def send_state(self, connection: ConnectionId, message: GetState, now_ns: int) -> None:
        """Send the newest state, and why this node cannot serve as it should."""
        note = self._tie.note
        if not note:
            self._troubles.look(now_ns)
            note = self._troubles.note(now_ns)
        age_ms = max(0, now_ns - self._tie.current_at_ns) // NS_PER_MS
        reply = StateReply(message.request, self._context.history.whole().state, note, age_ms)
        self._context.outbox.send(connection, reply)

    def send_status(self, connection: ConnectionId, message: GetStatus, now_ns: int) -> None:
        """Send the node's status by its own clock and rights."""
        status = server_status_of(
            self.status(now_ns),
            note=self._tie.note,
            away_since_ns=self._tie.away_since_ns,
            doors=self.doors,
            began_at_ns=self._context.outbox.events.began_at_ns,
            now_ns=now_ns,
        )
        self._context.outbox.send(connection, StatusReply(message.request, status))

    def send_events(self, connection: ConnectionId, message: GetEvents, now_ns: int) -> None:
        """Send the events that the node remembers, as far as the client may see them."""
        access = self._clients.by_connection[connection].access
        if access is not None:
            readable = access.permissions.tables[Verb.READ]
            if message.name:
                if not readable.allows(message.name):
                    if self._guard.refuses_name(connection, access, message, Verb.READ):
                        return
            elif not readable.allows_all(message.prefix) and not access.is_node:
                if self._guard.refuses_list(connection, access, message):
                    return
        events = self._context.outbox.events
        self._context.outbox.send(
            connection, events.answer(message, message.request, viewer_of(access), now_ns)
        )
