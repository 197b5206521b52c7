"""A node's service to clients: the parts that serve them, which know nothing of each other, and what joins them.

- `clients`: the connections; `trouble`: what they get when the node cannot serve.
- `generations`: where fencing tokens come from.
- `grants`: grants and queues; `session_leases`: when sessions run out, and what ends with them.
- `acquires`, `renewals`, `queries`, `watches`, `groups`: the requests.
- `lock_events`: what happens to watched locks, from `grants` to `watches` and `groups`.
- `reports`: what the node says of itself; `orders`: what it passes on to the coordinator.
- `dispatch`: which request goes to which of them.
"""

from __future__ import annotations

from typing import Any

from lockring.core.access import GranteeOf
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.effects import Broadcast, Refuse
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.acquires import Acquisitions
from lockring.core.node.admission import AdmittedClient
from lockring.core.node.askers import Askers
from lockring.core.node.blockers import Blockers
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.core.node.dispatch import ClientRequests, Needs, RequestHandler
from lockring.core.node.generations import Generations
from lockring.core.node.grants import NodeGrants
from lockring.core.node.groups import Groups, check_group_request
from lockring.core.node.lock_events import LockEvents
from lockring.core.node.orders import OperatorOrders
from lockring.core.node.queries import Queries
from lockring.core.node.renewals import Renewals
from lockring.core.node.reports import NodeReports
from lockring.core.node.roles import NewGenerations, ReignBegan, SlotChange
from lockring.core.node.session_leases import SessionLeases
from lockring.core.node.sessions import Sessions
from lockring.core.node.similar import SimilarNames
from lockring.core.node.trouble import Troubles
from lockring.core.node.validation import check_acquire
from lockring.core.node.watches import Watches
from lockring.core.refusals import refusal_of
from lockring.core.route_book import routes_for_all
from lockring.errors import ProtocolError
from lockring.ids import NO_REQUEST, ConnectionId
from lockring.protocol import (
    Acquire,
    Break,
    CloseSession,
    Describe,
    DescribeGroup,
    Drain,
    FindSimilar,
    FollowGroup,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    Keepalive,
    List,
    Message,
    OnBehalfOf,
    Refusal,
    Release,
    ReleaseReply,
    Undrain,
    Unwatch,
    ViewAck,
    Watch,
)


class ClientService:
    """A node's service to its clients.

    Attributes:
        clients: their connections.
        troubles: why the node cannot serve as it should.
        requests: where their requests go.
        reports: what the node says of itself.
        grants, groups: those of the node, for its status and its checks.
    """

    def __init__(
        self,
        context: NodeContext,
        sessions: Sessions,
        tie: CoordinatorTie,
        orders: OperatorOrders,
        *,
        grantee_of: GranteeOf | None,
    ) -> None:
        self._context = context
        self.clients = ConnectedClients(context)
        guard = AccessGuard(context, self.clients, sessions)
        self.troubles = Troubles(context, self.clients)
        generations = Generations(context)
        askers = Askers(context, grantee_of)
        self._events = LockEvents()
        blockers = Blockers(context, self.clients)
        self.grants = NodeGrants(
            context, self.clients, self.troubles, generations, self._events, guard=guard, blockers=blockers
        )
        self._leases = SessionLeases(context, self.clients, sessions, self.grants)
        self.groups = Groups(context, self.clients, generations, self._events)
        self._watches = Watches(context, self.clients, self._events, self._leases, guard=guard)
        self._queries = Queries(
            context, self.clients, self.grants, self.groups, guard=guard, blockers=blockers
        )
        acquisitions = Acquisitions(
            context, self.clients, self.troubles, self.grants, self._leases, blockers=blockers
        )
        renewals = Renewals(context, self.clients, self.grants, self._leases)
        self.reports = NodeReports(
            context,
            tie,
            troubles=self.troubles,
            sessions=sessions,
            grants=self.grants,
            clients=self.clients,
            guard=guard,
        )

        def take_other(connection: ConnectionId, message: Message) -> None:
            if not isinstance(message, OnBehalfOf):
                self._refuse_kind(connection, message)
                return
            client = self.clients.by_connection[connection]
            missing = askers.announced(connection, client, message.identity)
            if missing is not None:
                self.disconnected(connection)
                context.outbox.add(Refuse(connection, refusal_of(missing.error())))

        def pass_on(connection: ConnectionId, message: Drain | Undrain, now_ns: int) -> None:
            access = self.clients.by_connection[connection].access
            orders.pass_on(connection, message, None if access is None else access.identity)

        self.requests = ClientRequests(
            context,
            self.clients,
            self.troubles,
            {
                Acquire: RequestHandler(acquisitions.acquire, Needs.REIGN, check_acquire),
                Release: RequestHandler(acquisitions.release, Needs.RIGHT_TO_SERVE),
                Keepalive: RequestHandler(renewals.keepalive),
                CloseSession: RequestHandler(renewals.close_session),
                Describe: RequestHandler(self._queries.describe, Needs.RIGHT_TO_SERVE),
                List: RequestHandler(self._queries.list_locks),
                FindSimilar: RequestHandler(SimilarNames(context, self.clients, guard=guard).find),
                Break: RequestHandler(self._queries.break_lease, Needs.RIGHT_TO_SERVE),
                Watch: RequestHandler(self._watches.watch, Needs.RIGHT_TO_SERVE),
                Unwatch: RequestHandler(self._unwatch),
                DescribeGroup: RequestHandler(
                    self.groups.describe, Needs.RIGHT_TO_SERVE, check_group_request
                ),
                FollowGroup: RequestHandler(self.groups.follow, Needs.RIGHT_TO_SERVE, check_group_request),
                ViewAck: RequestHandler(self.groups.view_acknowledged),
                GetState: RequestHandler(self.reports.send_state),
                GetStatus: RequestHandler(self.reports.send_status),
                GetEvents: RequestHandler(self.reports.send_events),
                GetRoutes: RequestHandler(self._send_all_routes),
                Drain: RequestHandler(pass_on),
                Undrain: RequestHandler(pass_on),
            },
            guard=guard,
            sessions=sessions,
            take_other=take_other,
        )
        self._queues: tuple[DeadlineQueue[Any], ...] = (
            sessions.queue,
            self.grants.timeouts,
            self._queries.broken,
            self._queries.searches.sorting,
            self.groups.windows,
        )

    # ------------------------------------------------------------------ connections

    def connected(self, connection: ConnectionId, admitted: AdmittedClient) -> None:
        """Serve a client that was welcomed. Its older connections end here; an older one that comes late is closed."""
        hello = admitted.hello
        reason = "superseded by a newer connection of this client"
        if self.clients.is_outdated(hello.client, hello.connection):
            self._context.outbox.close(connection, reason)
            return
        other = self.clients.connection_of(hello.client)
        if other is not None:
            # Before the new one: what was sent on the old connection may still arrive, and must not be listened to.
            self.disconnected(other)
            self._context.outbox.close(other, reason)
        self.troubles.greet(connection, self._context.now_ns)
        self.clients.add(connection, hello, admitted.access)
        self._context.outbox.add(Broadcast((connection,), self._context.routes.whole()))

    def disconnected(self, connection: ConnectionId) -> None:
        """End what a connection's client waits for and watches; its holders stay, since its lease lasts."""
        client = self.clients.remove(connection)
        if client is None:
            return
        self.grants.withdraw_all(reversed(list(client.waiters)))  # from the ends of long queues
        self._watches.disconnected(connection, client)
        self.groups.disconnected(connection, client)

    def _refuse_kind(self, connection: ConnectionId, message: Message) -> None:
        """End a connection that sends what no client may send: what else it sends cannot be trusted either."""
        self.disconnected(connection)
        text = f"a node does not accept {type(message).__name__} from a client"
        self._context.outbox.add(Refuse(connection, Refusal(NO_REQUEST, ProtocolError.code, text)))

    def send_routes(self) -> None:
        """Send all clients where the primaries are now, made once for all of them."""
        clients = {connection: each.differences for connection, each in self.clients.by_connection.items()}
        for effect in routes_for_all(clients, self._context.routes):
            self._context.outbox.add(effect)

    def _send_all_routes(self, connection: ConnectionId, message: GetRoutes, now_ns: int) -> None:
        """Send all routes to a client whom a difference did not fit."""
        del message, now_ns
        self._context.outbox.add(Broadcast((connection,), self._context.routes.whole()))

    def _unwatch(self, connection: ConnectionId, message: Unwatch, now_ns: int) -> None:
        """End a watch, be it of a lock or of a group: clients number both alike."""
        known = self._watches.unwatch(connection, message.watch) or self.groups.unfollow(
            connection, message.watch
        )
        self._context.outbox.send(connection, ReleaseReply(message.request, known))

    # ------------------------------------------------------------------ slots

    def slots_changed(self, changes: list[SlotChange], now_ns: int) -> None:
        """Begin and end the service in slots, in the order in which the roles changed."""
        for change in changes:
            if isinstance(change, ReignBegan):
                self._leases.reign_began(change.slot, now_ns)
                self._queries.reign_began(change.slot, now_ns)
            elif isinstance(change, NewGenerations):
                self.grants.serve_slot(change.slot, now_ns)
            else:
                self.grants.reign_ended(change)
                self._watches.reign_ended(change.number)
                self.groups.reign_ended(change.number)

    # ------------------------------------------------------------------ time

    def deadline_before_ns(self, at_ns: int) -> int:
        """Return when `on_timer` has something to do, or `at_ns` if that is earlier."""
        if self.groups.has_more or self._queries.searches.under_way:
            return min(at_ns, self._context.now_ns)
        for queue in self._queues:
            if queue.soonest_ns < at_ns:
                at_ns = queue.soonest_ns
        return at_ns

    def has_work_left(self) -> bool:
        """Return whether a part of a search was left for the next turns, which may follow without a pause."""
        return bool(self._queries.searches.under_way)

    def on_timer(self, now_ns: int) -> None:
        """End what has run out: waits, broken leases, sessions; form views."""
        self.grants.time_out_due(now_ns)
        self._queries.end_broken_due(now_ns)
        self._leases.expire_due(now_ns)
        self.groups.form_due(now_ns)
        self._queries.searches.on_timer(now_ns)

    def on_tick(self, now_ns: int) -> None:
        """Look at what no input brings on."""
        self.requests.retry_parked(now_ns)
        self.grants.on_tick(now_ns)
        self._queries.searches.keep_names(now_ns)
        self.troubles.look(now_ns)

    def answer(self, now_ns: int) -> None:
        """Send what was decided in this turn and may leave: grants, news of watched locks, views."""
        if self.grants.unanswered:
            self.grants.answer_grants(now_ns)
        if self._events.changed:
            self.groups.locks_changed(self._watches.send_news(now_ns), now_ns)
        if self.groups.open:
            self.groups.send_views(now_ns)

    def check_invariants(self, waiters: int) -> None:
        """Assert that counts agree with the tables, in which so many wait."""
        assert waiters == self.grants.waiters
        assert waiters == sum(len(client.waiters) for client in self.clients.by_connection.values())
        self.groups.check_invariants()
        self._queries.searches.index.check_invariants(self._context.slots)
