"""Which part of the client takes which message."""

from __future__ import annotations

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import LongWait
from lockring.core.client.groups import REPLACED, GroupMemberships
from lockring.core.client.links import (
    READY,
    ClosingSession,
    LinkTrouble,
    NodeLink,
    OpenKeepalive,
    PingQuery,
)
from lockring.core.client.losses import Losses
from lockring.core.client.moves import Moves
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.queries import REPLIES, Query, QueryKind
from lockring.core.client.refusals import Refusals
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.shutdown import Shutdown
from lockring.core.client.tickets import Ticket
from lockring.core.client.watches import apply_notice
from lockring.core.refusals import error_of
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.ids import NO_LINK, NO_REQUEST, RequestNumber
from lockring.protocol import (
    KeepaliveReply,
    ListReply,
    LossNotice,
    Message,
    QueueNotice,
    Refusal,
    ReleaseReply,
    Routes,
    RoutesDifference,
    SettlementNotice,
    TroubleNotice,
    View,
    WatchNotice,
    Welcome,
)
from lockring.units import NS_PER_S


class Inbox:
    """Gives each message to the part that it is for."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        outstanding: OutstandingCalls,
        losses: Losses,
        renewals: ClientRenewals,
        memberships: GroupMemberships,
        refusals: Refusals,
        moves: Moves,
        shutdown: Shutdown,
    ) -> None:
        self._agenda = agenda
        self._outstanding = outstanding
        self._losses = losses
        self._renewals = renewals
        self._memberships = memberships
        self._refusals = refusals
        self._moves = moves
        self._shutdown = shutdown

    def released(self, link: NodeLink, reply: ReleaseReply, now_ns: int) -> None:
        """Handle the confirmation of a release, or of the end of a session or a stream."""
        subject = link.requests.pop(reply.request, None)
        if isinstance(subject, Ticket):
            self._outstanding.finish_release(subject)
            if link.node is not None:
                self._outstanding.recent_releases.add(subject, link.node, now_ns)
        elif isinstance(subject, ClosingSession):
            self._shutdown.close_links(now_ns)
        elif isinstance(subject, Query) and subject.kind is QueryKind.RELEASE:
            self._outstanding.end_query(subject, reply, None)
        elif subject is not None and not isinstance(subject, PingQuery):
            link.requests[reply.request] = subject  # still open: it is asked elsewhere
            self._moves.close_link(link, _wrong_answer(link, reply), now_ns)

    def receive(self, link: NodeLink, message: Message, now_ns: int) -> None:
        """Handle any message but `GrantReply` and `ReleaseReply`; a link with bad input is closed."""
        try:
            if link.state == READY:
                self._take(link, message, now_ns)
            else:
                self._greeted(link, message, now_ns)
        except LockringError as error:
            self._moves.close_link(link, error, now_ns)

    def _take(self, link: NodeLink, message: Message, now_ns: int) -> None:
        match message:
            case KeepaliveReply() if isinstance(link.requests.get(message.request), OpenKeepalive):
                self._renewals.answered(link, message, now_ns)
            case Routes():
                self._moves.rerouted(message, now_ns)
            case RoutesDifference():
                self._moves.rerouted_by(link, message, now_ns)
            case LossNotice():
                self._renewals.lost_at_node(link, message, now_ns)
            case Refusal(request=0, code="unauthenticated"):
                # Its credential may have been replaced: the next greeting finds out, before any call ends for it.
                raise Unavailable(f"{link.address} has ended the connection: {message.text}")
            case Refusal(request=0):
                raise ProtocolError(f"{link.address} could not read what it was sent: {message.text}")
            case Refusal():
                self._refusals.refused(link, message, now_ns)
            case WatchNotice():
                watch = link.acquires.get(message.request)
                if isinstance(watch, Query):
                    self._agenda.effects.append(apply_notice(watch, message))
            case View() | SettlementNotice() if message.request in link.acquires:
                query = self._memberships.apply_news(link, message)
                if query is not None:
                    self.acknowledge(query, now_ns)
            case QueueNotice():
                ticket = link.acquires.get(message.request)
                if isinstance(ticket, Ticket):
                    self._queued(ticket, message, now_ns)
            case TroubleNotice():
                link.trouble = LinkTrouble(message, now_ns) if message.reason else None
            case Welcome():
                raise ProtocolError(f"{link.address} answered the greeting twice")
            case _:
                self._answered(link, message, now_ns)

    def _queued(self, ticket: Ticket, notice: QueueNotice, now_ns: int) -> None:
        """Note that an acquire waits for other holders, and report a long wait once, to programs of this process."""
        delay = ticket.exchange.ensure_delay()
        delay.queued = True
        if notice.holders:
            is_first, delay.notice = delay.notice is None, notice
            if is_first and ticket.session.on_behalf is None:
                waited_s = (now_ns - ticket.exchange.started_at_ns) / NS_PER_S
                self._agenda.effects.append(LongWait(ticket, notice, waited_s))

    def _greeted(self, link: NodeLink, message: Message, now_ns: int) -> None:
        """Handle the answer to the greeting."""
        if isinstance(message, Welcome):
            self._moves.welcomed(link, message, now_ns)
        elif isinstance(message, Refusal):
            raise error_of(message)
        else:
            raise ProtocolError(f"{link.address} is not a lockring server: it did not answer the greeting")

    def _answered(self, link: NodeLink, message: Message, now_ns: int) -> None:
        """Handle the answer to a query.

        Raises:
            ProtocolError: what it answers is open, and is a request of another kind.
        """
        # Every answer has a request; pushed news that is not known here has none.
        request: RequestNumber = getattr(message, "request", NO_REQUEST)
        query = link.requests.get(request)
        if query is not None and not isinstance(query, PingQuery):
            if not isinstance(query, Query) or type(message) is not REPLIES.get(query.kind):
                # It stays open, and the end of the link has it asked elsewhere.
                raise _wrong_answer(link, message)
        link.requests.pop(request, None)
        if not isinstance(query, Query):
            return  # the caller has given up, or never wanted the answer
        query.exchange.link = NO_LINK
        if query.kind is QueryKind.RENEW:
            assert isinstance(message, KeepaliveReply)
            self._renewals.answered_on_behalf(query, message, now_ns)
            return
        if query.listing is None:
            self._outstanding.end_query(query, message, None)
            return
        assert isinstance(message, ListReply)
        query.listing.add_page(message)
        if query.listing.found_nothing_served():
            query.listing.start_over()
            refusal = Refusal(NO_REQUEST, "unavailable", "no node serves any slot at present")
            self._outstanding.retry(query, refusal, now_ns)
        else:
            self._outstanding.dispatch(query, now_ns)

    def acknowledge(self, query: Query, now_ns: int) -> None:
        """Acknowledge a group's newest view if that may be done now, and lose a membership that it replaces."""
        replaced = self._memberships.acknowledge(query, now_ns)
        if replaced is not None:
            self._losses.lose(replaced, REPLACED, now_ns)


def _wrong_answer(link: NodeLink, message: Message) -> ProtocolError:
    """Return the error of a link whose server answers a request as if it were one of another kind."""
    return ProtocolError(
        f"{link.address} answered a request with {type(message).__name__}, which is for others"
    )
