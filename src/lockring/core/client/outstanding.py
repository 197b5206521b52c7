"""Everything that a client has open: sending it, parking it, trying it again, ending it.

Whatever the client wants is at any time in exactly one place: open on a link, or parked until there is a route and a
link to send it on, or until a pause after a refusal is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import CallResult, Resolve
from lockring.core.client.exchanges import Backoff, reset_attempts
from lockring.core.client.groups import GroupMemberships
from lockring.core.client.links import Links, Node, NodeLink, PingQuery
from lockring.core.client.queries import STREAMS, Query
from lockring.core.client.recent_releases import RecentReleases
from lockring.core.client.requests import OutgoingRequests
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import ENDED, PENDING, RELEASING, Ticket
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError, StaleVersion
from lockring.ids import NO_LINK
from lockring.protocol import Refusal
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_MS, NS_PER_S

RETRY_NS_MIN: Final = 50 * NS_PER_MS
RETRY_NS_MAX: Final = NS_PER_S
TOLD_NS_MAX: Final = 60 * NS_PER_S
"""Longest pause that a server can ask for."""

Item = Ticket | Query
"""Anything that can be open or parked."""


class OutstandingCalls:
    """The tickets and queries that wait for an answer, and the places where they wait.

    Attributes:
        parked: what is open on no link, in the order in which it came.
        alarms: times at which to look at an item, whatever it then needs.
        recent_releases: confirmed releases that a crash may undo.
        is_closed: whether the client is closing, so that nothing is parked any more.
        asker: the identity on whose behalf queries are asked from now on, None for the client's own.
    """

    def __init__(
        self,
        agenda: Agenda,
        links: Links,
        routes: RouteTable,
        requests: OutgoingRequests,
        memberships: GroupMemberships,
        *,
        sessions: ClientSessions,
    ) -> None:
        self.parked: dict[Item, None] = {}
        self.alarms: DeadlineQueue[Item] = DeadlineQueue(is_open)
        self.recent_releases = RecentReleases()
        self.is_closed = False
        self.asker: Identity | None = None
        self._agenda = agenda
        self._links = links
        self._routes = routes
        self._requests = requests
        self._memberships = memberships
        self._sessions = sessions

    # ------------------------------------------------------------------ places

    def on_links(self) -> Iterator[Item]:
        """Return every item that is open on a link."""
        for link in self._links.by_id.values():
            yield from dict.fromkeys(link.acquires.values())
            for subject in link.requests.values():
                if isinstance(subject, (Ticket, Query)):
                    yield subject

    def alarm(self, at_ns: int, item: Item) -> None:
        """Have an item looked at, at this time."""
        self.alarms.push(at_ns, item)
        # As `Agenda.wake`, without the call: every acquire with a timeout comes by.
        if at_ns < self._agenda.wake_at_ns:
            self._agenda.wake_at_ns = at_ns

    def dispatch(self, item: Item, now_ns: int) -> None:
        """Send an item that is open nowhere, or park it."""
        backoff = item.exchange.backoff
        if backoff is not None:
            backoff.retry_at_ns = 0
        target = self._aim(item)
        if isinstance(item, Query) and item.listing is not None and target is None:
            if item.listing.is_complete:
                self.parked.pop(item, None)
                self.end_query(item, item.listing.result(), None)
                return
        if isinstance(item, Query) and item.asked_member is not None and target is None:
            if self._routes.version:
                self.end_query(
                    item, None, StaleVersion(f"{item.asked_member} is not a member of the cluster")
                )
                return
        link = target.link if isinstance(target, Node) else target
        if link is None:
            self.park(item, now_ns)
            return
        self.parked.pop(item, None)
        if isinstance(item, Query):
            self._requests.send_query(item, link, now_ns)
        elif item.state == PENDING:
            assert isinstance(target, Node)
            self._requests.send_acquire(item, target, link, now_ns)
        else:
            self._requests.send_release(item, link, now_ns)

    def park(self, item: Item, now_ns: int) -> None:
        """Keep an item until it can be sent."""
        item.exchange.link = NO_LINK
        target = self._aim(item)
        if isinstance(target, Node):
            target.wanted = True
        if item not in self.parked:
            self.parked[item] = None
            if isinstance(item, Ticket) and item.exchange.unreleased:
                self.alarm(item.exchange.give_up_at_ns, item)
                if item.state == RELEASING:
                    # Its caller waits no longer than the lease lasts: after that the lock is free anyway.
                    self.alarm(item.deadline_ns, item)
        self._agenda.wake(now_ns)

    def _aim(self, item: Item) -> Node | NodeLink | None:
        """Bring an item's plan up to date, and return where it goes by it."""
        if isinstance(item, Query):
            self._routes.plan(item)
        return self._routes.where(item)

    def retry(self, item: Item, refused: Refusal, now_ns: int) -> None:
        """Try a refused item again after a pause that grows with each refusal."""
        exchange = item.exchange
        backoff = exchange.backoff = exchange.backoff or Backoff(("", ""))
        backoff.refusal = (refused.code, refused.text)
        node = self._routes.table[item.slot] if item.slot >= 0 else None
        if refused.code == "moved" and node is not None:
            if node.link is None or node.link.id != item.exchange.link:
                self.dispatch(item, now_ns)  # the routes have changed since it was sent
                return
        pause_ns = min(RETRY_NS_MAX, RETRY_NS_MIN << min(backoff.attempts, 10))
        if refused.retry_after_ms:
            pause_ns = max(pause_ns, min(TOLD_NS_MAX, refused.retry_after_ms * NS_PER_MS))
        backoff.retry_at_ns = now_ns + pause_ns
        backoff.attempts += 1
        self.park(item, now_ns)
        self.alarm(backoff.retry_at_ns, item)

    def unpark(self, now_ns: int, *, rerouted: bool = False) -> None:
        """Send what can be sent now.

        Args:
            now_ns: the time.
            rerouted: whether there are new routes. These end all pauses, except those after an overload, which new
                routes do not relieve.
        """
        for item in list(self.parked):
            backoff = item.exchange.backoff
            is_paused = backoff is not None and backoff.retry_at_ns > now_ns
            if backoff is not None and is_paused and not (rerouted and backoff.refusal[0] != "overloaded"):
                continue
            self.dispatch(item, now_ns)

    def requeue(self, link: NodeLink, now_ns: int) -> None:
        """Park all that was open on a link that is gone."""
        for item in list(dict.fromkeys(link.acquires.values())):
            if isinstance(item, Ticket) and item.share is not None:
                item.share.leave(item)
            self.park(item, now_ns)
        for subject in link.requests.values():
            if isinstance(subject, (Ticket, Query)):
                self.park(subject, now_ns)
        link.acquires.clear()
        link.requests.clear()
        link.health.asked_at_ns = 0

    # ------------------------------------------------------------------ tickets

    def begin_release(self, ticket: Ticket, now_ns: int) -> None:
        """Begin to release a ticket at its node; repeated until answered, or until nothing of it can be left there."""
        exchange = ticket.exchange
        exchange.unreleased = True
        # The acquire's pause: left standing, it would send the release a second time while the first is open.
        if exchange.backoff is not None:
            exchange.backoff.retry_at_ns = 0
        # A lease ends at its node one TTL after the last request that it handled, lengthened for its clock.
        exchange.give_up_at_ns = now_ns + 2 * ticket.session.ttl_ns
        node = self._routes.table[ticket.slot]
        if node is not None and node.link is not None:
            self._requests.send_release(ticket, node.link, now_ns)
        elif not self.is_closed:
            self.park(ticket, now_ns)

    def repeat_releases(self, now_ns: int, *, lost: Node | None = None) -> None:
        """Repeat the releases that may have been undone.

        Args:
            now_ns: the time.
            lost: a node that cannot be reached any more.
        """
        table = self._routes.table
        for ticket in self.recent_releases.take_unconfirmed(table, lost=lost, now_ns=now_ns):
            if not self.is_closed:
                reset_attempts(ticket.exchange)
                self.begin_release(ticket, now_ns)

    def finish_release(self, ticket: Ticket) -> None:
        """End a release that is confirmed, or that nothing has to be done for."""
        exchange = ticket.exchange
        exchange.unreleased = False
        exchange.link = NO_LINK
        if ticket.state == RELEASING:
            ticket.state = ENDED
            self._agenda.effects.append(Resolve(ticket, None))
        if self._sessions.per_acquisition:  # asked here too: a call for each release would be one in forty
            self.forget(ticket)

    def take_back(self, ticket: Ticket, now_ns: int) -> None:
        """Take back an acquire on behalf of a program, while the link on which it was sent is known."""
        self._requests.take_back(ticket, now_ns)

    def forget(self, ticket: Ticket) -> None:
        """Forget a ticket that no node knows any more, with its session if that is its own."""
        if self._sessions.per_acquisition:
            self._sessions.retire(ticket.session, self._routes.nodes)

    def withdraw(self, ticket: Ticket) -> None:
        """Take a ticket out of its share, its link and the parked items."""
        if ticket.share is not None:
            ticket.share.leave(ticket)
        if ticket.state == PENDING:
            self.close_acquire(ticket)
            if ticket.exchange.terms.wait_ms >= 0:
                self.alarms.abandon()
            self.parked.pop(ticket, None)

    def close_acquire(self, ticket: Ticket) -> None:
        """Close the open acquire of a waiting ticket; later answers to it are ignored."""
        exchange = ticket.exchange
        link = self._links.by_id.get(exchange.link)
        if link is not None:
            link.acquires.pop(exchange.request, None)
            link.acquires.pop(exchange.first_request, None)
        exchange.link = NO_LINK

    # ------------------------------------------------------------------ queries

    def end_query(self, query: Query, answer: Any, error: LockringError | None) -> None:
        """End a query for its caller, with an answer or an error."""
        self.drop_query(query)
        if query.subscription is not None:
            self._memberships.end(query, error)
        else:
            self._agenda.effects.append(CallResult(query, answer, error))

    def abandon_query(self, query: Query, now_ns: int) -> None:
        """End a query that its caller does not want any more."""
        link = self._links.by_id.get(query.exchange.link)
        if query.kind in STREAMS and link is not None and not query.done:
            self._requests.end_stream(query, link, now_ns)
        self.drop_query(query)

    def drop_query(self, query: Query) -> None:
        """Forget a query whose caller wants nothing more."""
        if query.done:
            return
        query.done = True
        self.parked.pop(query, None)
        link = self._links.by_id.get(query.exchange.link)
        if link is not None:
            link.acquires.pop(query.exchange.request, None)
            if query.exchange.request in link.requests:
                # It stays there until it is answered: the silence of its node would mean the same as before.
                link.requests[query.exchange.request] = PingQuery()
        if query.exchange.give_up_at_ns != DISTANT_FUTURE_NS:
            self.alarms.abandon()


def is_open(item: Item, _at_ns: int) -> bool:
    """Return whether an item still needs to be looked at."""
    if isinstance(item, Query):
        return not item.done
    return item.state == PENDING or item.exchange.unreleased
