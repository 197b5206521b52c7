"""What a client has open with its nodes: sending, parking, trying again, giving up.

Whatever the client wants is at any time in exactly one place: open on a link, or parked until there is a
route and a link to send it on, or until a pause after a refusal is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from lockring.core.client.effects import CallResult, Disconnect, Resolve, SendTo
from lockring.core.client.links import Node, NodeLink
from lockring.core.client.outlook import too_late
from lockring.core.client.queries import STREAMS, PingQuery, Query, where
from lockring.core.client.recent_releases import RecentReleases
from lockring.core.client.routes import IDLE_NS, SILENCE_NS_MAX, SILENCE_NS_MIN, RouteTable
from lockring.core.client.tickets import ClientSession, NodeShare, Ticket, TicketState
from lockring.core.client.vigilance import Vigilance
from lockring.core.deadlines import DeadlineQueue
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import ClientClosed, LockLost, LockringError, NotHeld
from lockring.protocol import Acquire, Refusal, Release
from lockring.units import NS_PER_MS, NS_PER_S

ANSWER_NS: Final = NS_PER_S
"""Least time that an answer is waited for, also by who does not want to wait for the lock."""
CONNECT_TIMEOUT_NS: Final = 10 * NS_PER_S
"""How long a call without a timeout waits for the very first server to answer."""
VERDICT_NS: Final = 250 * NS_PER_MS
"""How much longer a node is waited for that has queued an acquire: by its clock the time ends a little later, and it then says
who holds the lock, or that it may not serve it any more."""
RETRY_NS_MIN: Final = 50 * NS_PER_MS
RETRY_NS_MAX: Final = NS_PER_S
PENDING: Final = TicketState.PENDING
HELD: Final = TicketState.HELD
RELEASING: Final = TicketState.RELEASING
ENDED: Final = TicketState.ENDED

AGAIN: Final = frozenset({"moved", "unavailable", "overloaded", "stale", "not-coordinator"})
"""Refusals after which the same thing may be asked again."""


Item = Ticket | Query


class Exchange(Vigilance):
    """The part of the client core that moves tickets and requests between their places."""

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        owner: str,
        new_id: Callable[[], str],
        software: str = "",
        connect_timeout_ns: int = CONNECT_TIMEOUT_NS,
        origin: str = "",
    ) -> None:
        """Make a client that has done nothing yet; it connects when there is something to do.

        Args:
            seeds: HOST:PORT of one or more servers, nodes or coordinators.
            owner: label shown to people.
            new_id: gives a random id, unique for ever, for the client and each of its sessions.
            software: what greets the servers, for their logs.
            connect_timeout_ns: how long a call without a timeout of its own waits while no server has ever answered.
            origin: where the seeds come from and what to do where none can be reached, as the end of a sentence for people.
        """
        assert seeds
        self.owner = owner
        self._new_id = new_id
        self._connect_timeout_ns = connect_timeout_ns
        self._routing = RouteTable(seeds, client=new_id(), software=software, origin=origin)
        self._effects = self._routing.effects
        self._sessions: dict[int, ClientSession] = {}
        self._session_of: dict[str, ClientSession] = {}
        self._parked: dict[Item, None] = {}
        # Times at which to look at an item, whatever it then needs.
        self._alarms: DeadlineQueue[Item] = DeadlineQueue(_matters)
        self._follows: dict[Ticket, Query] = {}
        self._lately_released = RecentReleases()
        self._wake_ns = DISTANT_FUTURE_NS
        self._closed = False

    # ------------------------------------------------------------------ small things

    def _open_session(self, ttl_ms: int) -> ClientSession:
        if self._closed:
            raise ClientClosed("the client is closed")
        session = ClientSession(self._new_id(), ttl_ms)
        self._sessions[ttl_ms] = self._session_of[session.id] = session
        shortest_ns = min(self._sessions) * NS_PER_MS
        self._routing.silence_ns = max(SILENCE_NS_MIN, min(SILENCE_NS_MAX, shortest_ns // 3))
        return session

    def _share(self, session: ClientSession, node: Node | None) -> NodeShare:
        """The share of a session at a node, or of what it holds without one, made if there is none yet."""
        replica = node.replica if node is not None else None
        share = session.shares.get(replica)
        if share is None:
            share = session.shares[replica] = NodeShare(session, replica)
            if node is not None:
                node.shares[session] = share
        return share

    def _alarm(self, at_ns: int, item: Item) -> None:
        self._alarms.push(at_ns, item)
        self._wake(at_ns)

    def _open_items(self) -> Iterator[Item]:
        """Everything that is not over for its caller."""
        yield from self._parked
        for link in self._routing.links.values():
            yield from dict.fromkeys(link.acquires.values())
            for what in link.requests.values():
                if isinstance(what, (Ticket, Query)):
                    yield what
        for session in self._sessions.values():
            for share in session.shares.values():
                yield from [ticket for ticket in share.tickets.values() if ticket.state == HELD]

    # ------------------------------------------------------------------ sending

    def _send_acquire(self, ticket: Ticket, node: Node, link: NodeLink, now_ns: int) -> None:
        session = ticket.session
        routing = self._routing
        request = routing.number(now_ns)
        share = node.shares.get(session)
        if share is None:
            share = self._share(session, node)
        if ticket.share is not None:
            ticket.share.leave(ticket)
        share.enter(ticket, request)
        share.touched = True
        if share.keepalive_at_ns == DISTANT_FUTURE_NS:
            share.keepalive_at_ns = at_ns = now_ns + session.keepalive_ns
            self._wake(at_ns)
        if ticket.link == link.id:
            if ticket.request != ticket.first_request:
                del link.acquires[ticket.request]
        else:
            ticket.link = link.id
            ticket.first_request = request
        ticket.request = request
        ticket.sent_at_ns = now_ns
        ticket.was_sent = True
        ticket.queued = False
        link.acquires[request] = ticket
        self._effects.append(
            SendTo(
                link.id,
                Acquire(
                    request,
                    session.id,
                    session.ttl_ms,
                    self.owner,
                    ticket.acquisition,
                    ticket.name,
                    ticket.mode,
                    ticket.permits,
                    ticket.wait_left_ms(now_ns),
                    (now_ns - ticket.started_at_ns) // NS_PER_MS,
                    routing.version,
                    ticket.payload,
                ),
            )
        )
        if link.check_at_ns == DISTANT_FUTURE_NS or now_ns - link.heard_at_ns >= IDLE_NS:
            self._look_after(link, now_ns)

    def _begin_release(self, ticket: Ticket, now_ns: int) -> None:
        """Let the node know that the ticket is given up; repeated until answered, or until nothing can be left."""
        ticket.unreleased = True
        # Of the acquire; else the release would be sent a second time while the first is open.
        ticket.retry_at_ns = 0
        # A lease ends at its node one TTL after the last request that it handled, lengthened for its clock.
        ticket.give_up_at_ns = now_ns + 2 * ticket.session.ttl_ns
        node = self._routing.table[ticket.slot]
        if node is not None and node.link is not None:
            self._send_release(ticket, node.link, now_ns)
        elif not self._closed:
            self._park(ticket, now_ns)

    def _release_again(self, now_ns: int, *, lost: Node | None = None) -> None:
        """Repeat the releases that may have been undone."""
        for ticket in self._lately_released.take_doubtful(self._routing.table, lost=lost, now_ns=now_ns):
            if not self._closed:
                ticket.attempts = 0
                self._begin_release(ticket, now_ns)

    def _send_release(self, ticket: Ticket, link: NodeLink, now_ns: int) -> None:
        routing = self._routing
        ticket.request = request = routing.number(now_ns)
        ticket.link = link.id
        link.requests[request] = ticket
        if not link.asked_at_ns:
            link.asked_at_ns = now_ns
            is_fresh = now_ns - link.heard_at_ns < IDLE_NS
            self._wake(now_ns + (routing.silence_ns if is_fresh else routing.doubt(link, now_ns)))
        self._effects.append(
            SendTo(
                link.id, Release(request, ticket.session.id, ticket.acquisition, ticket.name, routing.version)
            )
        )

    def _send_request(self, request: Query, link: NodeLink, now_ns: int) -> None:
        routing = self._routing
        number = routing.number(now_ns)
        request.link, request.request = link.id, number
        message = request.message(number, routing.version)
        if request.kind in STREAMS:
            link.acquires[number] = request
            request.begun_again = True
            self._effects.append(SendTo(link.id, message))
            self._look_after(link, now_ns)
        else:
            self._wake(routing.ask(link, number, request, message, now_ns))

    # ------------------------------------------------------------------ parking

    def _ask(self, request: Query, now_ns: int) -> Query:
        if self._closed:
            raise ClientClosed("the client is closed")
        if request.give_up_at_ns != DISTANT_FUTURE_NS:
            self._alarm(request.give_up_at_ns, request)
        elif not self._routing.was_ready:
            self._alarm(now_ns + self._connect_timeout_ns, request)
        self._dispatch(request, now_ns)
        return request

    def _dispatch(self, item: Item, now_ns: int) -> None:
        """Send an item that is open nowhere, or park it."""
        item.retry_at_ns = 0
        if isinstance(item, Query):
            target = where(item, self._routing)
            if target is None and item.listing is not None and item.listing.rounds and not item.listing.todo:
                self._parked.pop(item, None)
                self._answer(item, item.listing.result(), None)
                return
        else:
            target = self._routing.table[item.slot]
        link = target.link if isinstance(target, Node) else target
        if link is None:
            self._park(item, now_ns)
            return
        self._parked.pop(item, None)
        if isinstance(item, Query):
            self._send_request(item, link, now_ns)
        elif item.state == PENDING:
            assert isinstance(target, Node)
            self._send_acquire(item, target, link, now_ns)
        else:
            self._send_release(item, link, now_ns)

    def _park(self, item: Item, now_ns: int) -> None:
        """Keep an item until it can be sent."""
        item.link = 0
        target = where(item, self._routing) if isinstance(item, Query) else self._routing.table[item.slot]
        if isinstance(target, Node):
            target.wanted = True
        if item not in self._parked:
            self._parked[item] = None
            if isinstance(item, Ticket) and item.unreleased:
                self._alarm(item.give_up_at_ns, item)
                if item.state == RELEASING:
                    self._alarm(item.deadline_ns, item)
        self._wake(now_ns)

    def _retry(self, item: Item, refused: Refusal, now_ns: int) -> None:
        """Try a refused item again after a pause that grows with each refusal."""
        item.refusal = (refused.code, refused.text)
        node = self._routing.table[item.slot] if item.slot >= 0 else None
        if refused.code == "moved" and node is not None:
            if node.link is None or node.link.id != item.link:
                self._dispatch(item, now_ns)  # the routes have changed since it was sent
                return
        item.retry_at_ns = now_ns + min(RETRY_NS_MAX, RETRY_NS_MIN << min(item.attempts, 10))
        item.attempts += 1
        self._park(item, now_ns)
        self._alarm(item.retry_at_ns, item)

    def _unpark(self, now_ns: int, *, rerouted: bool = False) -> None:
        """Send what can be sent now; new routes end the pauses, except after an overload."""
        for item in list(self._parked):
            if item.retry_at_ns > now_ns and not (
                rerouted and item.refusal is not None and item.refusal[0] != "overloaded"
            ):
                continue
            self._dispatch(item, now_ns)

    def _requeue(self, link: NodeLink, now_ns: int) -> None:
        """Park all that was open on a link that is gone."""
        for item in list(dict.fromkeys(link.acquires.values())):
            if isinstance(item, Ticket) and item.share is not None:
                item.share.leave(item)
            self._park(item, now_ns)
        for what in link.requests.values():
            if isinstance(what, (Ticket, Query)):
                self._park(what, now_ns)
        link.acquires.clear()
        link.requests.clear()
        link.asked_at_ns = 0

    def _lose_link(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """A link is gone: what was open on it is parked, and its address left alone for a while."""
        routing = self._routing
        self._requeue(link, now_ns)
        node = link.node
        routing.fail(link, error, now_ns)
        if node is not None:
            self._release_again(now_ns, lost=node)
        self._wake(now_ns)
        hopeless = routing.hopeless()
        if hopeless is not None:
            for item in list(self._parked):
                self._give_up(item, hopeless, now_ns)

    def _close_link(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """End a link from our side because of an error."""
        self._effects.append(Disconnect(link.id, str(error)))
        self._lose_link(link, error, now_ns)

    def _has_any(self) -> bool:
        return any(share.tickets for session in self._sessions.values() for share in session.shares.values())

    # ------------------------------------------------------------------ endings

    def _look_at(self, item: Item, now_ns: int) -> None:
        """An item's alarm went off: do what it needs by now, if anything."""
        if not _matters(item, now_ns):
            return
        if isinstance(item, Ticket) and item.state != PENDING:
            if now_ns >= item.give_up_at_ns or (item.state == RELEASING and now_ns >= item.deadline_ns):
                if item.state == RELEASING:
                    item.state = ENDED
                    self._effects.append(Resolve(item, None))
                if now_ns >= item.give_up_at_ns and item in self._parked:
                    item.unreleased = False
                    del self._parked[item]
                    return
        elif now_ns >= item.give_up_at_ns:
            if isinstance(item, Ticket) and item.queued and item.link and not item.overdue:
                item.overdue = True
                item.give_up_at_ns = now_ns + VERDICT_NS
                self._alarm(item.give_up_at_ns, item)
                return
            self._give_up(item, too_late(self._routing, item, now_ns), now_ns)
            return
        elif item.give_up_at_ns == DISTANT_FUTURE_NS and not self._routing.was_ready:
            if now_ns >= item.started_at_ns + self._connect_timeout_ns:
                self._give_up(item, too_late(self._routing, item, now_ns), now_ns)
                return
        if item.retry_at_ns and now_ns >= item.retry_at_ns:
            self._dispatch(item, now_ns)

    def _give_up(self, item: Item, error: LockringError, now_ns: int) -> None:
        """End an item for its caller with an error; what a node may know of it is taken back."""
        if isinstance(item, Query):
            self._answer(item, None, error)
        elif item.state == PENDING:
            self._retract(item, now_ns)
            item.state = ENDED
            self._effects.append(Resolve(item, error))

    def _retract(self, ticket: Ticket, now_ns: int) -> None:
        """Take a waiting or held ticket back from wherever it is; the caller sets its state."""
        self._unlist(ticket)
        ticket.state = ENDED
        if ticket.was_sent:
            self._begin_release(ticket, now_ns)

    def _unlist(self, ticket: Ticket) -> None:
        """Take a ticket out of its share, its link and the parked ones."""
        if ticket.share is not None:
            ticket.share.leave(ticket)
        if ticket.state == PENDING:
            self._close_acquire(ticket)
            if ticket.wait_until_ns != DISTANT_FUTURE_NS:
                self._alarms.abandon()
            self._parked.pop(ticket, None)

    def _close_acquire(self, ticket: Ticket) -> None:
        """The open acquire of a waiting ticket is not open any more; later answers to it are ignored."""
        link = self._routing.links.get(ticket.link)
        if link is not None:
            link.acquires.pop(ticket.request, None)
            link.acquires.pop(ticket.first_request, None)
        ticket.link = 0

    def _answer(self, request: Query, answer: Any, error: LockringError | None) -> None:
        self._finish(request)
        self._effects.append(CallResult(request, answer, error))

    def _finish(self, request: Query) -> None:
        """Nothing more is wanted of a request."""
        if request.done:
            return
        request.done = True
        self._parked.pop(request, None)
        link = self._routing.links.get(request.link)
        if link is not None:
            link.acquires.pop(request.request, None)
            if request.request in link.requests:
                link.requests[request.request] = PingQuery()
        if request.give_up_at_ns != DISTANT_FUTURE_NS:
            self._alarms.abandon()


def not_held(ticket: Ticket) -> LockringError:
    """The error for a ticket that should be held and is not."""
    name = ticket.name
    if ticket.reason:
        return LockLost(
            f"the lock {name!r} was lost: {LockLost.explained(ticket.reason)}",
            name=name,
            reason=ticket.reason,
        )
    return NotHeld(f"the lock {name!r} is not held by this grant", name=name)


def _matters(item: Item, _at_ns: int) -> bool:
    if isinstance(item, Query):
        return not item.done
    return item.state == PENDING or item.unreleased
