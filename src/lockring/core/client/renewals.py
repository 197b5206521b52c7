"""How a client keeps what it has: grants, keepalives, promises.

Rules:

- Per session and node one keepalive each third of the TTL renews all tickets there, by count and digest. If the node
  does not agree, the keepalive is repeated with a digest per slot, then with the acquisitions of the slots that
  differ.
- A promise counts from the sending of the request that it answers, never from the arrival of the answer.
- A node's word on a loss counts only where the ticket is held by the client's own routes.
"""

from __future__ import annotations

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import Resolve
from lockring.core.client.endings import Endings
from lockring.core.client.links import Links, NodeLink, OpenKeepalive
from lockring.core.client.outstanding import RETRY_NS_MIN, OutstandingCalls
from lockring.core.client.request_log import RequestLog
from lockring.core.client.requests import DIGEST, LISTED, PER_SLOT, OutgoingRequests
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import HELD, PENDING, NodeShare, Ticket
from lockring.core.client.verdicts import apply_keepalive
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import Generation, RequestNumber
from lockring.protocol import GrantReply, KeepaliveReply, LossNotice
from lockring.units import NS_PER_MS


class ClientRenewals:
    """Begins grants, renews them, and notices their loss."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        log: RequestLog,
        links: Links,
        routes: RouteTable,
        sessions: ClientSessions,
        requests: OutgoingRequests,
        outstanding: OutstandingCalls,
        endings: Endings,
    ) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links
        self._routes = routes
        self._sessions = sessions
        self._requests = requests
        self._outstanding = outstanding
        self._endings = endings

    # ------------------------------------------------------------------ grants

    def granted(self, link: NodeLink, reply: GrantReply, now_ns: int) -> None:
        """Begin a grant, if its promise has not run out on the way."""
        ticket = link.acquires.get(reply.request)
        if not isinstance(ticket, Ticket):
            return
        basis = reply.basis
        sent_at_ns: int | None = ticket.sent_at_ns
        if basis != ticket.request:
            sent_at_ns = self._log.sent_no_earlier_than_ns(basis)
        deadline_ns = 0 if sent_at_ns is None else sent_at_ns + reply.promise_ms * NS_PER_MS
        if deadline_ns > now_ns:
            self._begin(ticket, reply.generation, deadline_ns, basis)
            return
        # Too late to begin with: a keepalive asks whether the ticket is still the holder. The acquire stays open, in
        # case that the answer does not come.
        share = ticket.share
        assert share is not None
        ticket.late = share.late = True
        self._requests.send_lists(share, link, [ticket.slot], now_ns)

    def _begin(self, ticket: Ticket, generation: Generation, deadline_ns: int, basis: RequestNumber) -> None:
        """Make a waiting ticket a held one; `basis` is the request that the promise answers."""
        link = self._links.by_id[ticket.link]
        del link.acquires[ticket.request]
        if ticket.request != ticket.first_request:
            del link.acquires[ticket.first_request]
        ticket.link = 0
        if ticket.wait_until_ns != DISTANT_FUTURE_NS:
            self._outstanding.alarms.abandon()
        share = ticket.share
        assert share is not None
        ticket.generation = generation
        ticket.deadline_ns = deadline_ns
        if basis > ticket.covered_after:
            ticket.covered_after = basis
        # Last, since other threads read it without a lock: a held ticket has its deadline.
        ticket.state = HELD
        if deadline_ns < share.check_at_ns:
            share.check_at_ns = deadline_ns
            if deadline_ns < self._agenda.wake_at_ns:
                self._agenda.wake_at_ns = deadline_ns
        self._agenda.effects.append(Resolve(ticket, None))

    def lost_at_node(self, link: NodeLink, notice: LossNotice, now_ns: int) -> None:
        """Handle a node's word that it ended an acquisition."""
        session = self._sessions.by_id.get(notice.session)
        shares = session.shares.values() if session is not None else ()
        for share in shares:
            ticket = share.tickets.get(notice.acquisition)
            if ticket is None:
                continue
            if ticket.state == HELD:
                # Only from where it is held: a former primary may end, late, what lives on at its successor.
                if link.node is not None and share.replica == link.node.replica:
                    self._endings.lose(ticket, notice.reason, now_ns)
            elif link.node is not None and link.id == ticket.link:
                self._requests.send_acquire(ticket, link.node, link, now_ns)
            return

    # ------------------------------------------------------------------ keepalives

    def on_timer(self, now_ns: int) -> None:
        """Send the keepalives that are due."""
        for node in list(self._routes.nodes.values()):
            for share in node.shares.values():
                if share.keepalive_at_ns <= now_ns:
                    self.renew(share, now_ns)

    def renew(self, share: NodeShare, now_ns: int) -> None:
        """Send a share's keepalive if its node need hear of it, and plan the next."""
        node = self._routes.node_of(share.replica)
        if node is None or node.link is None or not (share.tickets or share.touched):
            share.keepalive_at_ns = DISTANT_FUTURE_NS
            return
        share.touched = False
        share.keepalive_at_ns = now_ns + share.session.keepalive_ns
        self._requests.send_keepalive(share, node.link, DIGEST, now_ns)

    def answered(self, link: NodeLink, reply: KeepaliveReply, now_ns: int) -> None:
        """Apply the answer to a keepalive."""
        asked = link.requests.pop(reply.request, None)
        if not isinstance(asked, OpenKeepalive):
            return
        share = asked.share
        # First: an answer revives nothing that has expired before it came.
        self._endings.lose_expired(share, now_ns)
        outcome = apply_keepalive(share, reply.request, asked.sent_at_ns, reply, now_ns)
        for ticket in outcome.lost:
            self._endings.lose(ticket, "expired", now_ns)
        for ticket, generation in outcome.granted:
            self._begin(ticket, generation, outcome.until_ns, reply.request)
        node = link.node
        assert node is not None
        for ticket in outcome.unknown:
            self._requests.send_acquire(ticket, node, link, now_ns)
        repeat = outcome.repeat
        if reply.agreed:
            share.unsettled = 0
            if share.late:
                self._ask_again_for_late(share, reply.request, link, now_ns)
        elif asked.level == DIGEST and not reply.slots:
            self._requests.send_keepalive(share, link, PER_SLOT, now_ns)
        elif outcome.to_list:
            self._requests.send_lists(share, link, outcome.to_list, now_ns)
        elif asked.level != LISTED and not reply.slots:
            repeat = True
        if repeat:
            self.repeat_soon(share, now_ns)

    def _ask_again_for_late(
        self, share: NodeShare, request: RequestNumber, link: NodeLink, now_ns: int
    ) -> None:
        """Repeat the acquires whose grants came too late, where the node has agreed but said nothing about them."""
        assert link.node is not None
        share.late = False
        for ticket in [t for t in share.tickets.values() if t.late and t.state == PENDING]:
            if ticket.covered_after < request:
                ticket.late = False
                self._requests.send_acquire(ticket, link.node, link, now_ns)
            else:
                share.late = True

    def repeat_soon(self, share: NodeShare, now_ns: int) -> None:
        """Repeat a keepalive that a node could not fully answer, after a pause that grows each time."""
        share.unsettled += 1
        pause_ns = min(share.session.keepalive_ns, RETRY_NS_MIN << min(share.unsettled, 10))
        share.keepalive_at_ns = min(share.keepalive_at_ns, now_ns + pause_ns)
        self._agenda.wake(share.keepalive_at_ns)
