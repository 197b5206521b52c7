"""Refusals of requests: the client tries again, or ends the call."""

from __future__ import annotations

from typing import Final

from lockring.core.client.call_endings import CallEndings
from lockring.core.client.exchanges import Backoff
from lockring.core.client.links import ClosingSession, NodeLink, OpenKeepalive, PromptRequest
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.queries import Query
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.shutdown import Shutdown
from lockring.core.client.tickets import PENDING, Ticket
from lockring.core.refusals import error_of
from lockring.errors import AcquireTimeout
from lockring.ids import NO_LINK
from lockring.protocol import Refusal
from lockring.units import NS_PER_S

RETRYABLE: Final = frozenset({"moved", "unavailable", "overloaded", "stale", "not-coordinator"})
"""Codes of refusals after which the same request may succeed."""


class Refusals:
    """Takes refusals of requests."""

    def __init__(
        self,
        outstanding: OutstandingCalls,
        endings: CallEndings,
        renewals: ClientRenewals,
        shutdown: Shutdown,
    ) -> None:
        self._outstanding = outstanding
        self._endings = endings
        self._renewals = renewals
        self._shutdown = shutdown

    def refused(self, link: NodeLink, refusal: Refusal, now_ns: int) -> None:
        """Handle the refusal of a request."""
        item: PromptRequest = link.acquires.get(refusal.request)
        if item is None:
            item = link.requests.pop(refusal.request, None)
        may_retry = refusal.code in RETRYABLE
        if isinstance(item, OpenKeepalive):
            self._renewals.repeat_soon(item.share, now_ns)
        elif isinstance(item, ClosingSession):
            self._shutdown.close_links(now_ns)
        elif isinstance(item, Query):
            link.acquires.pop(refusal.request, None)
            if may_retry:
                self._outstanding.retry(item, refusal, now_ns)
            else:
                item.exchange.link = NO_LINK
                error = error_of(refusal, name=item.name)
                self._outstanding.end_query(item, None, error)
        elif isinstance(item, Ticket):
            if item.state == PENDING:
                self._refused_acquire(item, refusal, may_retry, now_ns)
            elif may_retry:
                self._outstanding.retry(item, refusal, now_ns)
            else:
                self._outstanding.finish_release(item)  # a node that refuses it for good has nothing of it

    def _refused_acquire(self, ticket: Ticket, refusal: Refusal, may_retry: bool, now_ns: int) -> None:
        # The node keeps nothing of it: neither its share nor a release speaks of it any more.
        assert ticket.share is not None
        ticket.share.leave(ticket)
        # A program behind this client gets the refusal at once: it may go to another server.
        is_impatient = ticket.exchange.terms.wait_ms == 0 or ticket.session.on_behalf is not None
        if may_retry and not (is_impatient and refusal.code == "overloaded"):
            link = ticket.exchange.link
            self._outstanding.close_acquire(ticket)
            if ticket.exchange.delay is not None and ticket.exchange.delay.overdue:
                ticket.exchange.backoff = Backoff((refusal.code, refusal.text))
                self._endings.fail_late(ticket, now_ns)
                return
            ticket.exchange.link = link  # `retry` compares it with the route
            self._outstanding.retry(ticket, refusal, now_ns)
            return
        error = error_of(refusal, name=ticket.name)
        if isinstance(error, AcquireTimeout):
            error.waited_s = (now_ns - ticket.exchange.started_at_ns) / NS_PER_S
        self._endings.fail(ticket, error)
