"""The client's requests: their messages, their numbers, and where their answers are expected.

Acquire and Release are the hot path. Each is sent by one function, which does in place what other requests do by a
call; `tests/unit/work` counts the calls.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import SendTo
from lockring.core.client.link_checks import LinkChecks
from lockring.core.client.links import DOUBT_NS, IDLE_NS, Links, Node, NodeLink, OpenKeepalive
from lockring.core.client.queries import STREAMS, Query
from lockring.core.client.request_log import RequestLog
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import NodeShare, Ticket
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import FIRST_SLOT, RequestNumber, SlotNumber
from lockring.protocol import WAIT_FOREVER, Acquire, Keepalive, Release, SlotDigest, SlotList, Unwatch
from lockring.units import NS_PER_MS

DIGEST: Final = 0
PER_SLOT: Final = 1
LISTED: Final = 2
"""How much a keepalive says: one digest, one for each slot, or the acquisitions of some slots."""

LISTED_BYTES_MAX: Final = 1024 * 1024
"""About how much one keepalive lists; more is split by slots, far below the longest frame."""
_ENTRY_BYTES: Final = 16


class OutgoingRequests:
    """Sends requests on links that are ready."""

    def __init__(
        self,
        agenda: Agenda,
        log: RequestLog,
        links: Links,
        routes: RouteTable,
        sessions: ClientSessions,
        *,
        owner: str,
    ) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links
        self._routes = routes
        self._sessions = sessions
        self._checks = LinkChecks(agenda, log, links)
        self._owner = owner

    def send_acquire(self, ticket: Ticket, node: Node, link: NodeLink, now_ns: int) -> None:
        """Ask a node for a lock, or repeat that under the same acquisition number."""
        session = ticket.session
        request = self._log.take_number(now_ns)
        share = node.shares.get(session)
        if share is None:
            share = self._sessions.ensure_share(session, node)
        if ticket.share is not None:
            ticket.share.leave(ticket)
        share.enter(ticket, request)
        share.touched = True
        if share.keepalive_at_ns == DISTANT_FUTURE_NS:
            share.keepalive_at_ns = now_ns + session.keepalive_ns
            self._agenda.wake(share.keepalive_at_ns)
        exchange = ticket.exchange
        if exchange.link == link.id:
            # Repeated on the same link: the node may answer under the first number or the latest, not under those
            # between.
            if exchange.request != exchange.first_request:
                del link.acquires[exchange.request]
        else:
            exchange.link = link.id
            exchange.first_request = request
        exchange.request = request
        exchange.sent_at_ns = now_ns
        if exchange.delay is not None:
            exchange.delay.queued = False
        link.acquires[request] = ticket
        if session.on_behalf is not None:
            self._links.announce(link, session.on_behalf.asker)
        self._agenda.effects.append(SendTo(link.id, self._acquire(ticket, request, now_ns)))
        health = link.health
        if health.check_at_ns == DISTANT_FUTURE_NS or now_ns - health.heard_at_ns >= IDLE_NS:
            self._checks.watch_over(link, now_ns)

    def _acquire(self, ticket: Ticket, request: RequestNumber, now_ns: int) -> Acquire:
        session = ticket.session
        on_behalf = session.on_behalf
        exchange = ticket.exchange
        terms = exchange.terms
        waited_ms = (now_ns - exchange.started_at_ns) // NS_PER_MS
        if on_behalf is not None:
            waited_ms += on_behalf.waited_ms
        wait_ms = WAIT_FOREVER
        if terms.wait_ms >= 0:
            # The rest of the wait, rounded up: a node that ends it early would deny what the caller still waits
            # for.
            wait_ms = max(0, terms.wait_ms - (now_ns - exchange.started_at_ns) // NS_PER_MS)
        # By keyword, though it is the hot path: that costs 0.07 µs of the 8 µs that the core takes for a lock.
        return Acquire(
            request=request,
            session=session.id,
            ttl_ms=session.ttl_ms,
            owner=self._owner if on_behalf is None else on_behalf.owner,
            acquisition=ticket.acquisition,
            name=ticket.name,
            mode=terms.mode,
            permits=terms.permits,
            wait_ms=wait_ms,
            waited_ms=waited_ms,
            version=self._routes.version,
            payload=terms.payload,
            traceparent=terms.traceparent,
        )

    def send_release(self, ticket: Ticket, link: NodeLink, now_ns: int) -> None:
        """Give a lock back at a node, held or waiting."""
        links = self._links
        if ticket.session.on_behalf is not None:
            links.announce(link, ticket.session.on_behalf.asker)
        exchange = ticket.exchange
        exchange.request = request = self._log.take_number(now_ns)
        exchange.link = link.id
        link.requests[request] = ticket
        # As `Links.ask`, without the call: one in forty of what an acquire and its release take.
        health = link.health
        if not health.asked_at_ns:
            health.asked_at_ns = now_ns
            wait_ns = links.silence_ns
            if now_ns - health.heard_at_ns >= IDLE_NS:
                links.doubt(link, now_ns)
                wait_ns = DOUBT_NS
            self._agenda.wake(now_ns + wait_ns)
        message = Release(request, ticket.session.id, ticket.acquisition, ticket.name, self._routes.version)
        self._agenda.effects.append(SendTo(link.id, message))

    def take_back(self, ticket: Ticket, now_ns: int) -> None:
        """Take an acquire on behalf of a program back from the node that was asked last.

        The node does so only if no later request has asked for the same acquisition: the program may have repeated its
        call at another server. It is sent once: a node that cannot be reached ends the wait with the connection, and a
        grant with its lease.
        """
        link = self._links.by_id.get(ticket.exchange.link)
        if link is None:
            return
        if ticket.session.on_behalf is not None:
            self._links.announce(link, ticket.session.on_behalf.asker)
        number = self._log.take_number(now_ns)
        message = Release(
            request=number,
            session=ticket.session.id,
            acquisition=ticket.acquisition,
            name=ticket.name,
            version=self._routes.version,
            acquire=ticket.exchange.request,
        )
        self._links.ask(link, number, None, message, now_ns)

    def send_query(self, query: Query, link: NodeLink, now_ns: int) -> None:
        """Ask a server something else."""
        if query.asker is not link.terms.announced:
            self._links.announce(link, query.asker)
        number = self._log.take_number(now_ns)
        exchange = query.exchange
        exchange.link, exchange.request = link.id, number
        exchange.sent += 1
        message = query.message(number, self._routes.version)
        if query.kind in STREAMS:
            link.acquires[number] = query
            query.restarted = True
            self._agenda.effects.append(SendTo(link.id, message))
            self._checks.watch_over(link, now_ns)
        else:
            self._links.ask(link, number, query, message, now_ns)

    def end_stream(self, query: Query, link: NodeLink, now_ns: int) -> None:
        """Have a node send nothing more for a watch or a subscription."""
        if query.asker is not link.terms.announced:
            self._links.announce(link, query.asker)
        number = self._log.take_number(now_ns)
        self._links.ask(link, number, None, Unwatch(number, query.exchange.request), now_ns)

    def send_keepalive(
        self,
        share: NodeShare,
        link: NodeLink,
        level: int,
        now_ns: int,
        listed: list[SlotList] | None = None,
    ) -> None:
        """Renew what a session has at a node.

        Args:
            share: what it has there.
            link: the link to the node.
            level: `DIGEST`, `PER_SLOT` or `LISTED`.
            now_ns: the time.
            listed: at the last level, the acquisitions of some slots.
        """
        session = share.session
        if session.on_behalf is not None:
            self._links.announce(link, session.on_behalf.asker)
        # Its own time, to the nanosecond: what the keepalive renews counts from there.
        request = self._log.take_number(now_ns, exact=True)
        slots: list[SlotDigest] = []
        if level == PER_SLOT:
            # Where nothing is left here but the node knows something, an empty slot says so.
            slots = share.per_slot() or [SlotDigest(FIRST_SLOT, 0, 0)]
        message = Keepalive(
            request,
            session=session.id,
            ttl_ms=session.ttl_ms,
            owner=self._owner if session.on_behalf is None else session.on_behalf.owner,
            through=session.used,
            count=len(share.tickets),
            digest=share.fold(),
            slots=slots,
            listed=listed or [],
            version=self._routes.version,
        )
        self._links.ask(link, request, OpenKeepalive(share, now_ns, level), message, now_ns)
        self._agenda.wake(share.keepalive_at_ns)

    def send_lists(self, share: NodeShare, link: NodeLink, slots: list[SlotNumber], now_ns: int) -> None:
        """Tell a node what a share has in these slots, in keepalives of bounded size."""
        part: list[SlotList] = []
        size = 0
        for listing in share.listed(slots):
            part.append(listing)
            size += _ENTRY_BYTES + sum(_ENTRY_BYTES + 4 * len(each.name) for each in listing.acquisitions)
            if size > LISTED_BYTES_MAX:
                self.send_keepalive(share, link, LISTED, now_ns, part)
                part, size = [], 0
        if part:
            self.send_keepalive(share, link, LISTED, now_ns, part)

    def check_links(self, now_ns: int, *, everywhere: bool, often: bool) -> None:
        """Probe the nodes at which something waits, and which have been silent. See `LinkChecks.on_timer`."""
        self._checks.on_timer(now_ns, everywhere=everywhere, often=often)
