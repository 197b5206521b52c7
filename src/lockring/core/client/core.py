"""The client, without I/O: what both clients' drivers and the simulation run.

Theory of operation:

- A call makes a ticket (`acquire`) or a query (`describe`, …). It is sent to the primary of its slot, or *parked*
  until there is a route and a link to it. Open calls on a link that broke are parked again; calls that were refused as
  moved, unavailable or overloaded wait a moment and are sent again.
- An acquire is repeated under the same acquisition number, so it never makes a second holder or waiter. A release
  names its acquisition and is repeated until it is answered, or until no lease can be left.
- A promise of a node counts from when the request was sent. Once a deadline has passed, the ticket is lost:
  `GrantLost` comes out, and a release is sent, so that others need not wait for the node's own clock.
- Inputs return nothing, or a ticket or query; `take_effects` returns the work for the shell. `next_deadline_ns` is a
  lower bound: it may come early, never late. Not thread-safe: a shell with threads guards it with a lock, and reads
  the clock inside.

The parts know nothing of the core, and only of the parts before them:

    Links, RouteTable, DialPlan   connections to servers; each slot's primary; which server to dial next
    ClientSessions                sessions, and their tickets at each node
    OutgoingRequests              messages, and the numbers and times of requests
    GroupMemberships              subscriptions of members to their groups
    OutstandingCalls              tickets and queries that wait for an answer, and where
    Losses, CallEndings           how a held lock ends against its holder's will, and a call without what it asked for
    ClientRenewals                grants, keepalives, promises
    Shutdown, Refusals, Moves     what follows from a close, a refusal, and a change of links, routes or cluster
    Inbox                         which part takes which message
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final
from zlib import crc32

from lockring.cluster_state import Replica
from lockring.core.client.agenda import Agenda
from lockring.core.client.call_endings import CallEndings
from lockring.core.client.dialing import DialPlan
from lockring.core.client.effects import ClientEffect
from lockring.core.client.exchanges import LockTerms, TicketExchange
from lockring.core.client.groups import GroupMemberships, subscription_of
from lockring.core.client.inbox import Inbox
from lockring.core.client.links import (
    SILENCE_NS_MAX,
    SILENCE_NS_MIN,
    ClientProcess,
    Links,
    NodeLink,
    no_credential,
)
from lockring.core.client.listings import FindProgress, ListProgress
from lockring.core.client.losses import Losses
from lockring.core.client.moves import Moves
from lockring.core.client.outlook import Outlooks, Wait
from lockring.core.client.outstanding import Item, OutstandingCalls
from lockring.core.client.queries import (
    BreakOrder,
    MemberQuestion,
    OrderOnBehalf,
    PageRequest,
    Query,
    QueryKind,
    query_about_lock,
    query_anywhere,
)
from lockring.core.client.refusals import Refusals
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.request_log import RequestLog
from lockring.core.client.requests import OutgoingRequests
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.shutdown import Shutdown
from lockring.core.client.status import ClientStatus, check_invariants_of, status_of
from lockring.core.client.tickets import (
    ENDED,
    HELD,
    PENDING,
    RELEASING,
    ClientSession,
    OnBehalf,
    Ticket,
    deadline_ns_of,
    is_believed,
    not_held,
)
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import ClientClosed, LockringError, Unavailable
from lockring.ids import (
    AcquisitionNumber,
    ClientId,
    Generation,
    LinkId,
    LockName,
    NodeId,
    SessionId,
    SlotNumber,
    Version,
)
from lockring.protocol import (
    WAIT_FOREVER,
    GetEvents,
    GetStatus,
    GrantReply,
    LockSearch,
    Message,
    Mode,
    ReleaseReply,
)
from lockring.protocol.identities import Identity
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS, NS_PER_S

ANSWER_NS: Final = NS_PER_S
"""Minimum time to wait for a server's answer, even of an acquire that does not wait for the lock."""
CONNECT_TIMEOUT_NS: Final = 10 * NS_PER_S
"""How long a call without a timeout waits for the very first server to answer."""


class ClientCore:
    """The client's state machine: a `Machine` whose endpoints are links. See the module for the rules."""

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        owner: str,
        new_id: Callable[[], str],
        software: str = "",
        connect_timeout_ns: int = CONNECT_TIMEOUT_NS,
        origin: str = "",
        credential: Callable[[], str] = no_credential,
        place: tuple[str, int] = ("", 0),
        session_per_acquisition: bool = False,
    ) -> None:
        """Make a client that has done nothing yet; it connects when there is something to do.

        Args:
            seeds: HOST:PORT of one or more servers, nodes or coordinators.
            owner: label shown to people.
            new_id: returns a random id, unique forever, for the client and each of its sessions.
            software: name and version of the client, for the servers' logs.
            connect_timeout_ns: how long a call without a timeout of its own waits while no server has ever answered.
            origin: where the seeds come from and what to do if none can be reached, as the end of a sentence for
                people.
            credential: returns the token or JWT to show to a server that is greeted, "" for none.
            place: the host and the number of its process, for clients that wait for what it holds; "" and 0 to not say.
            session_per_acquisition: give each acquisition a session of its own, which ends with it; for a client that
                acts for others.
        """
        assert seeds
        self._agenda = agenda = Agenda()
        log = RequestLog()
        self._links = links = Links(
            agenda, client=ClientId(new_id()), process=ClientProcess(software, *place), credential=credential
        )
        self._routes = routes = RouteTable(links)
        dialing = DialPlan(agenda, links, routes, seeds=seeds, origin=origin)
        self._sessions = sessions = ClientSessions(new_id, per_acquisition=session_per_acquisition)
        self._requests = requests = OutgoingRequests(agenda, log, links, routes, sessions, owner=owner)
        self._memberships = memberships = GroupMemberships(agenda, log, links)
        self._outstanding = outstanding = OutstandingCalls(
            agenda, links, routes, requests, memberships, sessions=sessions
        )
        losses = Losses(agenda, memberships, outstanding)
        self._endings = endings = CallEndings(
            agenda,
            links,
            Outlooks(links, routes, dialing),
            losses,
            outstanding,
            connect_timeout_ns=connect_timeout_ns,
        )
        self._renewals = renewals = ClientRenewals(
            agenda=agenda,
            log=log,
            links=links,
            routes=routes,
            sessions=sessions,
            requests=requests,
            outstanding=outstanding,
            losses=losses,
        )
        self._shutdown = Shutdown(agenda, log, links, routes)
        self._moves = Moves(
            agenda=agenda,
            log=log,
            links=links,
            routes=routes,
            dialing=dialing,
            sessions=sessions,
            outstanding=outstanding,
            endings=endings,
            losses=losses,
            renewals=renewals,
            memberships=memberships,
        )
        self._inbox = Inbox(
            agenda=agenda,
            outstanding=outstanding,
            losses=losses,
            renewals=renewals,
            memberships=memberships,
            refusals=Refusals(outstanding, endings, renewals, self._shutdown),
            moves=self._moves,
            shutdown=self._shutdown,
        )

    # ------------------------------------------------------------------ tickets

    def acquire(
        self,
        name: LockName,
        *,
        ttl_ms: int,
        now_ns: int,
        wait_ms: int = WAIT_FOREVER,
        mode: int = Mode.EXCLUSIVE,
        permits: int = 1,
        payload: bytes = b"",
        on_behalf: OnBehalf | None = None,
        traceparent: str = "",
    ) -> Ticket:
        """Begin to acquire a lock; `Resolve` brings the outcome.

        Args:
            name: a checked lock name.
            ttl_ms: the lease; acquisitions with the same TTL share a session, unless each has its own.
            now_ns: the time.
            wait_ms: longest wait for other holders, 0 to try once, or `WAIT_FOREVER`. An unreachable server is waited
                for at least `ANSWER_NS`.
            mode: exclusive, shared or semaphore.
            permits: of a semaphore, how many.
            payload: what others see of the holder, at most `protocol.PAYLOAD_BYTES_MAX`.
            on_behalf: the program for which it is acquired, if that is another one; for a client with a session per
                acquisition. With the grant the client's part ends: the program renews it, and releases it.
            traceparent: the trace that the node continues (W3C Trace Context), "" for none.

        Raises:
            ClientClosed: the client was closed.
        """
        session = self._sessions.by_ttl_ms.get(ttl_ms)
        if session is None or self._shutdown.is_begun:
            session = self._open_session(ttl_ms, on_behalf)
        acquisition: AcquisitionNumber = session.used + 1  # type: ignore[assignment]  # born here
        session.used = acquisition
        # As `slots.slot_of`, without its check: the name was checked when the lock object was made.
        slot: SlotNumber = crc32(name.encode()) % SLOTS  # type: ignore[assignment]  # born here
        exchange = TicketExchange(now_ns)
        if (
            wait_ms >= 0 or payload or mode or traceparent
        ):  # an exclusive lock, whose mode is 0, has no permits
            exchange.terms = LockTerms(mode, permits, wait_ms, payload, traceparent)
        ticket = Ticket(session, acquisition, name, slot, exchange)
        if wait_ms >= 0:
            wait_ns = wait_ms * NS_PER_MS
            exchange.give_up_at_ns = at_ns = now_ns + (wait_ns if wait_ns > ANSWER_NS else ANSWER_NS)
            self._outstanding.alarm(at_ns, ticket)
        elif not self._links.was_ready:
            self._endings.limit(ticket, now_ns)
        node = self._routes.table[slot]
        if node is not None and node.link is not None:
            self._requests.send_acquire(ticket, node, node.link, now_ns)
        else:
            self._outstanding.park(ticket, now_ns)
        return ticket

    def _open_session(self, ttl_ms: int, on_behalf: OnBehalf | None) -> ClientSession:
        self._check_open()
        session = self._sessions.open(ttl_ms, on_behalf)
        # Silence must be noticed in time to renew the shortest lease elsewhere.
        shortest_ns = self._sessions.shortest_ttl_ms * NS_PER_MS
        self._links.silence_ns = max(SILENCE_NS_MIN, min(SILENCE_NS_MAX, shortest_ns // 3))
        return session

    def _check_open(self) -> None:
        if self._shutdown.is_begun:
            raise ClientClosed("the client is closed")

    def release(self, ticket: Ticket, *, now_ns: int) -> None:
        """Begin to release a held ticket; `Resolve` follows once it is confirmed, or once its lease has ended anyway.

        Raises:
            LockLost: it was lost before; nothing is left to release.
            NotHeld: it was released before, or never held.
        """
        if ticket.state == HELD and deadline_ns_of(ticket) <= now_ns:
            self._renewals.expire(ticket, now_ns)
        if ticket.state != HELD:
            raise not_held(ticket)
        share = ticket.share
        assert share is not None
        share.leave(ticket)
        ticket.state = RELEASING
        self._outstanding.begin_release(ticket, now_ns)

    def cancel(self, ticket: Ticket, *, now_ns: int) -> None:
        """Withdraw a ticket whatever its state, so that nothing of it is left; no `Resolve` follows.

        Of a release this ends only the wait: the release itself goes on. A membership stops following its group.
        """
        query = self._memberships.query_of(ticket)
        if query is not None:
            self.leave(query, now_ns=now_ns)
        if ticket.state in (PENDING, HELD):
            self._endings.retract(ticket, now_ns)
        ticket.state = ENDED

    # ------------------------------------------------------------------ queries

    def describe(self, name: LockName, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask for one lock; the answer is a `DescribeReply`."""
        return self._ask(query_about_lock(QueryKind.DESCRIBE, name, now_ns, give_up_at_ns), now_ns)

    def list_locks(self, prefix: str, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask for all locks whose name starts with `prefix`; the answer is a `LockRecords`, by name."""
        query = query_anywhere(QueryKind.LIST, prefix, now_ns, give_up_at_ns)
        query.listing = ListProgress()
        return self._ask(query, now_ns)

    def search(
        self, prefix: str, search: LockSearch, *, limit: int, give_up_at_ns: int, now_ns: int
    ) -> Query:
        """Ask for the first locks by name that a search wants, at most `limit`; the answer is a `LocksFound`."""
        query = query_anywhere(QueryKind.FIND, prefix, now_ns, give_up_at_ns)
        query.listing = FindProgress(search, limit, prefix)
        return self._ask(query, now_ns)

    def watch(self, name: LockName, *, now_ns: int) -> Query:
        """Watch one lock: `Update` comes at once and after every change, until `abandon` or a `CallResult`."""
        return self._ask(query_about_lock(QueryKind.WATCH, name, now_ns), now_ns)

    def break_lock(
        self, name: LockName, generation: Generation, *, force: bool, give_up_at_ns: int, now_ns: int
    ) -> Query:
        """End a holder's lease by its generation; the answer is a `BreakReply`."""
        order = BreakOrder(generation, force)
        query = query_about_lock(QueryKind.BREAK, name, now_ns, give_up_at_ns, detail=order)
        return self._ask(query, now_ns)

    def get_state(self, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask any server for the cluster state; the answer is a `StateReply`."""
        return self._ask(query_anywhere(QueryKind.STATE, "", now_ns, give_up_at_ns), now_ns)

    def drain(self, node: NodeId, *, undo: bool = False, give_up_at_ns: int, now_ns: int) -> Query:
        """Move everything off a node (`DrainReply`), or with `undo` let it have slots again (`UndrainReply`)."""
        kind = QueryKind.UNDRAIN if undo else QueryKind.DRAIN
        return self._ask(query_anywhere(kind, node, now_ns, give_up_at_ns), now_ns)

    def look(self, name: LockName, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask for the members of the group whose lock is `name`; the answer is a `View`."""
        return self._ask(query_about_lock(QueryKind.LOOK, name, now_ns, give_up_at_ns), now_ns)

    def abandon(self, request: Query, *, now_ns: int) -> None:
        """Withdraw a query whose answer is not wanted any more; ends a watch."""
        self._outstanding.abandon_query(request, now_ns)

    def _ask(self, query: Query, now_ns: int) -> Query:
        self._check_open()
        query.asker = self._outstanding.asker
        if query.exchange.give_up_at_ns != DISTANT_FUTURE_NS:
            self._outstanding.alarm(query.exchange.give_up_at_ns, query)
        else:
            self._endings.limit(query, now_ns)
        self._outstanding.dispatch(query, now_ns)
        return query

    # ------------------------------------------------------------------ on behalf of others

    def ask_for(self, asker: Identity | None) -> None:
        """Ask further queries on behalf of an identity, for a server that acts for its clients; None for itself."""
        self._outstanding.asker = asker

    def renew_for(
        self, session: SessionId, name: LockName, *, ttl_ms: int, give_up_at_ns: int, now_ns: int
    ) -> Query:
        """Renew the only acquisition of a session, which this client need not have made.

        The answer is a `KeepaliveReply` that speaks of it. The program counts the promise from before it asked.
        """
        order = OrderOnBehalf(session, ttl_ms)
        query = query_about_lock(QueryKind.RENEW, name, now_ns, give_up_at_ns, detail=order)
        return self._ask(query, now_ns)

    def release_for(self, session: SessionId, name: LockName, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Release the only acquisition of a session, which this client need not have made.

        The answer is a `ReleaseReply`. If the query was `sent` more than once, an earlier request may have released it.
        """
        order = OrderOnBehalf(session)
        query = query_about_lock(QueryKind.RELEASE, name, now_ns, give_up_at_ns, detail=order)
        return self._ask(query, now_ns)

    def list_page(self, prefix: str, page: PageRequest, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask one member for one page of its locks; the answer is a `ListReply`, or `StaleVersion` if it has left."""
        query = query_anywhere(QueryKind.PAGE, prefix, now_ns, give_up_at_ns, detail=page)
        return self._ask(query, now_ns)

    def ask_member(
        self, replica: Replica, message: GetStatus | GetEvents, *, give_up_at_ns: int, now_ns: int
    ) -> Query:
        """Ask a member about itself. The answer is a `StatusReply` or `EventsReply`; `StaleVersion` if it has left."""
        kind = QueryKind.MEMBER_STATUS if isinstance(message, GetStatus) else QueryKind.MEMBER_EVENTS
        detail = MemberQuestion(replica, message)
        return self._ask(query_anywhere(kind, "", now_ns, give_up_at_ns, detail=detail), now_ns)

    # ------------------------------------------------------------------ groups

    def follow(self, ticket: Ticket, *, now_ns: int) -> Query:
        """Begin to follow the group of a held membership: `GroupChange` comes with each change.

        The query's `subscription` has what the member knows. It ends with the membership, or with `leave`.

        Raises:
            LockLost, NotHeld: the ticket is not held.
            ClientClosed: the client was closed.
        """
        return self._ask(self._memberships.begin(ticket, now_ns), now_ns)

    def told(self, request: Query, *, now_ns: int) -> None:
        """Note that the program's callbacks have finished for one `GroupChange` that was `awaited`."""
        subscription_of(request).callbacks_pending -= 1
        self._inbox.acknowledge(request, now_ns)

    def leave(self, request: Query, *, now_ns: int) -> None:
        """Stop owning and following; then release the membership itself. A `GroupChange` brings what was owned."""
        if not subscription_of(request).ended:
            self._memberships.end(request)
            self._outstanding.abandon_query(request, now_ns)

    def owned(self, request: Query, now_ns: int) -> frozenset[int]:
        """Return the slots that a member rightly owns at this time."""
        return self._memberships.owned(request, now_ns)

    # ------------------------------------------------------------------ the end

    def close(self, *, now_ns: int) -> None:
        """End all sessions: give up everything, tell the nodes, fail what is open. See `is_closed` for the end."""
        if self._shutdown.is_begun:
            return
        self._outstanding.is_closed = True
        self._endings.end_all(list(self._open_items()))
        self._shutdown.begin(now_ns)
        self._shutdown.close_links(now_ns)

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed and has no link left."""
        return self._shutdown.is_over

    # ------------------------------------------------------------------ what the shell reports

    def connected(self, endpoint: LinkId, /, *, now_ns: int) -> None:
        """Greet the server on a link whose connection is open. See `Machine`."""
        link = self._links.by_id.get(endpoint)
        if link is not None:
            self._links.greet(link)

    def disconnected(
        self,
        endpoint: LinkId,
        /,
        *,
        now_ns: int,
        reason: str = "the connection was lost",
        error: LockringError | None = None,
    ) -> None:
        """Handle a link that could not be opened, or broke.

        Args:
            endpoint: the link.
            now_ns: the time.
            reason: a short text for people.
            error: what is wrong with the other side, if it will not get better by itself.
        """
        link = self._links.by_id.get(endpoint)
        if link is not None:
            self._moves.link_lost(link, error or Unavailable(reason), now_ns)

    def receive(self, sender: LinkId, message: Message, /, *, now_ns: int) -> None:
        """Take one message from a link. See `Machine`."""
        link = self._links.by_id.get(sender)
        if link is None:
            return
        health = link.health
        health.heard_at_ns = now_ns
        if health.doubt_at_ns != DISTANT_FUTURE_NS:
            self._links.trust(link)
        kind = type(message)
        # The two answers of the hot path come first, and never raise.
        if kind is GrantReply:
            self._renewals.granted(link, message, now_ns)  # type: ignore[arg-type]
        elif kind is ReleaseReply:
            self._inbox.released(link, message, now_ns)  # type: ignore[arg-type]
        else:
            self._inbox.receive(link, message, now_ns)
        if health.asked_at_ns:
            health.asked_at_ns = now_ns if link.requests else 0

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due. See `Machine`."""
        self._agenda.wake_at_ns = DISTANT_FUTURE_NS
        self._renewals.expire_all(now_ns)
        self._endings.on_timer(now_ns)
        self._renewals.on_timer(now_ns)
        self._moves.close_silent(now_ns)
        if self._shutdown.is_begun:
            self._shutdown.close_links(now_ns)
            return
        self._moves.maintain_links(now_ns)
        is_stuck, met_another = self._moves.is_stuck(now_ns), self._moves.has_met_another()
        self._requests.check_links(now_ns, everywhere=is_stuck, often=met_another)
        soonest_ns = self._outstanding.alarms.soonest_ns
        for share in self._sessions.shares():
            soonest_ns = min(soonest_ns, share.check_at_ns, share.keepalive_at_ns)
        self._agenda.wake(soonest_ns)

    def next_deadline_ns(self) -> int | None:
        """Return when to call `on_timer` at the latest, None if nothing is due; may be in the past."""
        wake_at_ns = self._agenda.wake_at_ns
        return wake_at_ns if wake_at_ns != DISTANT_FUTURE_NS else None

    def take_effects(self, *, now_ns: int) -> list[ClientEffect]:
        """Hand out the effects since the last call, in order, and forget them.

        The time changes nothing here: a client gives no promises that could run out on the way.
        """
        taken, self._agenda.effects = self._agenda.effects, []
        return taken

    # ------------------------------------------------------------------ the state of things

    @property
    def version(self) -> Version:
        """Version of the newest routes, 0 before the first."""
        return self._routes.version

    def members(self) -> list[Replica]:
        """Return the members that the newest routes name, none before the first."""
        return list(self._routes.members)

    def sessions(self) -> list[ClientSession]:
        """Return the sessions that were opened."""
        return self._sessions.all()

    def link(self, number: LinkId) -> NodeLink | None:
        """Return a link by its number, None if it is closed. Read it only."""
        return self._links.by_id.get(number)

    def links(self) -> list[NodeLink]:
        """Return all links. Read them only."""
        return list(self._links.by_id.values())

    def believes(self, ticket: Ticket, now_ns: int) -> bool:
        """Return whether the client rightly takes a ticket for held at this time."""
        return is_believed(ticket, now_ns)

    def waits(self, now_ns: int) -> list[Wait]:
        """Return what each open call waits for, and each watch from which nothing can come at present."""
        return self._endings.waits(self._open_items(), now_ns)

    def status(self, *, now_ns: int) -> ClientStatus:
        """Return the state of the client at this moment."""
        return status_of(self._links, self._routes, self._sessions, self._outstanding)

    def check_invariants(self) -> None:
        """Check what must hold between any two calls, in O(everything); for tests and simulations."""
        check_invariants_of(self._links, self._routes, self._sessions, self._outstanding)

    def _open_items(self) -> Iterator[Item]:
        """Return everything that is not over for its caller."""
        yield from self._outstanding.parked
        yield from self._outstanding.on_links()
        for share in self._sessions.shares():
            yield from [ticket for ticket in share.tickets.values() if ticket.state == HELD]
