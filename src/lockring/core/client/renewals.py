"""How a client keeps what it has: grants, keepalives, promises.

Rules:

- Per session and node one keepalive each third of the TTL renews all tickets there, by count and digest. If the node
  does not agree, the keepalive is repeated with a digest per slot, then with the acquisitions of the slots that
  differ.
- A promise counts from the sending of the request that it answers, never from the arrival of the answer.
- A node promises no more than what it may serve for itself. After a promise that is short for the TTL, the next
  keepalive comes after a third of what is left: the node may be able to promise the whole TTL again any moment.
- A keepalive that is refused for want of a right is not repeated at once, and the loss that follows says so.
- A node's word on a loss counts only where the ticket is held by the client's own routes.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import LossOnBehalf, Resolve
from lockring.core.client.links import Links, NodeLink, OpenKeepalive
from lockring.core.client.losses import Losses
from lockring.core.client.outstanding import RETRY_NS_MIN, OutstandingCalls
from lockring.core.client.queries import Query
from lockring.core.client.request_log import RequestLog
from lockring.core.client.requests import DIGEST, LISTED, PER_SLOT, OutgoingRequests
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import HELD, PENDING, NodeShare, Ticket, reason_of_expiry
from lockring.core.client.verdicts import apply_keepalive
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import NO_LINK, NO_REQUEST, Generation, RequestNumber
from lockring.protocol import GrantReply, KeepaliveReply, LossNotice, Refusal, Verdict
from lockring.units import NS_PER_MS

_FINAL: Final = frozenset({Verdict.HELD, Verdict.LOST, Verdict.WAITING})
"""Verdicts that speak of an acquisition; the others say only that the node cannot."""


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
        losses: Losses,
    ) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links
        self._routes = routes
        self._sessions = sessions
        self._requests = requests
        self._outstanding = outstanding
        self._losses = losses

    # ------------------------------------------------------------------ grants

    def granted(self, link: NodeLink, reply: GrantReply, now_ns: int) -> None:
        """Begin a grant, if its promise has not run out on the way."""
        ticket = link.acquires.get(reply.request)
        if not isinstance(ticket, Ticket):
            return
        basis = reply.basis
        exchange = ticket.exchange
        sent_at_ns: int | None = exchange.sent_at_ns
        if basis != exchange.request:
            sent_at_ns = self._log.sent_no_earlier_than_ns(basis)
        deadline_ns = 0 if sent_at_ns is None else sent_at_ns + reply.promise_ms * NS_PER_MS
        if deadline_ns > now_ns:
            self._begin(ticket, reply.generation, deadline_ns, basis)
            if ticket.share is not None and 3 * reply.promise_ms < 2 * ticket.session.ttl_ms:
                self._renew_early(ticket.share, deadline_ns, now_ns)
            return
        # Too late to begin with: a keepalive asks whether the ticket is still the holder. The acquire stays open, in
        # case that the answer does not come.
        share = ticket.share
        assert share is not None
        exchange.ensure_delay().late = share.late = True
        self._requests.send_lists(share, link, [ticket.slot], now_ns)

    def _begin(self, ticket: Ticket, generation: Generation, deadline_ns: int, basis: RequestNumber) -> None:
        """Make a waiting ticket a held one; `basis` is the request that the promise answers."""
        exchange = ticket.exchange
        link = self._links.by_id[exchange.link]
        del link.acquires[exchange.request]
        if exchange.request != exchange.first_request:
            del link.acquires[exchange.first_request]
        exchange.link = NO_LINK
        if exchange.terms.wait_ms >= 0:
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
        if ticket.session.on_behalf is not None:
            self._hand_over(ticket, share, link)

    def _hand_over(self, ticket: Ticket, share: NodeShare, link: NodeLink) -> None:
        """Leave a grant to the program on whose behalf it was acquired, which renews it from here on.

        The ticket keeps its link: a caller that has gone takes the grant back (`ClientCore.cancel`).
        """
        ticket.exchange.link = link.id
        share.leave(ticket)
        self._outstanding.forget(ticket)

    def lost_at_node(self, link: NodeLink, notice: LossNotice, now_ns: int) -> None:
        """Handle a node's word that it ended an acquisition."""
        session = self._sessions.by_id.get(notice.session)
        if session is None and self._sessions.per_acquisition:
            self._agenda.effects.append(
                LossOnBehalf(notice.session, notice.name, notice.reason, notice.generation)
            )
        shares = session.shares.values() if session is not None else ()
        for share in shares:
            ticket = share.tickets.get(notice.acquisition)
            if ticket is None:
                continue
            if ticket.state == HELD:
                # Only from where it is held: a former primary may end, late, what lives on at its successor. And not of
                # an earlier grant: the notice may have been on its way while the lock moved, was granted again there,
                # and came back.
                is_of_earlier = 0 < notice.generation < ticket.generation
                if link.node is not None and share.replica == link.node.replica and not is_of_earlier:
                    self._losses.lose(ticket, notice.reason, now_ns)
            elif link.node is not None and link.id == ticket.exchange.link:
                self._requests.send_acquire(ticket, link.node, link, now_ns)
            return

    # ------------------------------------------------------------------ deadlines

    def expire(self, ticket: Ticket, now_ns: int) -> None:
        """Lose a held ticket whose deadline has passed."""
        self._losses.lose(ticket, reason_of_expiry(ticket), now_ns)

    def expire_all(self, now_ns: int) -> None:
        """Lose every held ticket whose deadline has passed."""
        for share in self._sessions.shares():
            self._losses.lose_expired(share, now_ns)

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
        """Apply the answer to a keepalive that is open on the link."""
        asked = link.requests.pop(reply.request)
        assert isinstance(asked, OpenKeepalive)
        share = asked.share
        if share.session.shares.get(share.replica) is not share:
            # The session was forgotten meanwhile. What it lacks is not given up: a program may hold it.
            return
        # First: an answer revives nothing that has expired before it came.
        self._losses.lose_expired(share, now_ns)
        share.refused = ""
        outcome = apply_keepalive(share, reply.request, asked.sent_at_ns, reply, now_ns)
        for ticket in outcome.lost:
            self._losses.lose(ticket, "expired", now_ns)
        for ticket, generation in outcome.granted:
            self._begin(ticket, generation, outcome.until_ns, reply.request)
        node = link.node
        assert node is not None
        for ticket in outcome.unknown:
            self._requests.send_acquire(ticket, node, link, now_ns)
        if 3 * reply.promise_ms < 2 * share.session.ttl_ms and outcome.until_ns > now_ns:
            self._renew_early(share, outcome.until_ns, now_ns)
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

    def answered_on_behalf(self, query: Query, reply: KeepaliveReply, now_ns: int) -> None:
        """Answer a program's keepalive if the node has said something of its acquisition, else repeat it."""
        for each in reply.acquisitions:
            if each.verdict in _FINAL and (each.verdict != Verdict.HELD or reply.promise_ms > 0):
                self._outstanding.end_query(query, reply, None)
                return
        refusal = Refusal(
            NO_REQUEST, "unavailable", f"the primary of {query.name!r} may not speak of it at present"
        )
        self._outstanding.retry(query, refusal, now_ns)

    def _ask_again_for_late(
        self, share: NodeShare, request: RequestNumber, link: NodeLink, now_ns: int
    ) -> None:
        """Repeat the acquires whose grants came too late, where the node has agreed but said nothing about them."""
        assert link.node is not None
        share.late = False
        for ticket in list(share.tickets.values()):
            delay = ticket.exchange.delay
            if delay is None or not delay.late or ticket.state != PENDING:
                continue
            if ticket.covered_after < request:
                delay.late = False
                self._requests.send_acquire(ticket, link.node, link, now_ns)
            else:
                share.late = True

    def _renew_early(self, share: NodeShare, until_ns: int, now_ns: int) -> None:
        """Let the next keepalive come well before the end of a promise of less than two thirds of the TTL.

        At the usual time, it might be answered too late, or be the only one that is.
        """
        due_ns = now_ns + max(RETRY_NS_MIN, (until_ns - now_ns) // 3)
        if due_ns < share.keepalive_at_ns:
            share.keepalive_at_ns = due_ns
            self._agenda.wake(due_ns)

    def denied(self, share: NodeShare, code: str) -> None:
        """Hear that a node renews nothing for this identity any more.

        The keepalive is repeated at the usual pace: what is held stays held until its deadline, and the right may come
        back before.
        """
        share.refused = code

    def repeat_soon(self, share: NodeShare, now_ns: int) -> None:
        """Repeat a keepalive that a node could not fully answer, after a pause that grows each time.

        The pause is no longer than a third of what is left to the ticket that ends first.
        """
        share.unsettled += 1
        left_ns = max(RETRY_NS_MIN, (share.check_at_ns - now_ns) // 3)
        pause_ns = min(share.session.keepalive_ns, left_ns, RETRY_NS_MIN << min(share.unsettled, 10))
        share.keepalive_at_ns = min(share.keepalive_at_ns, now_ns + pause_ns)
        self._agenda.wake(share.keepalive_at_ns)
