"""What a client does where a node has not carried a request out: try it again, or tell its caller."""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.client.effects import Resolve
from lockring.core.client.groups import GroupsClient
from lockring.core.client.links import NodeLink
from lockring.core.client.outlook import too_late
from lockring.core.client.outstanding import AGAIN, ENDED, PENDING
from lockring.core.client.queries import Query
from lockring.core.client.renewals import OpenKeepalive
from lockring.core.client.tickets import ClientSession, Ticket
from lockring.errors import AcquireTimeout, LockringError, from_code
from lockring.protocol import Refusal


class ClosingSession(NamedTuple):
    """A session's end that is not answered yet."""

    session: ClientSession


class Refusals(GroupsClient):
    """The part of the client core that takes refusals."""

    def _close_links_if_done(self, now_ns: int) -> None:
        """Of a closing client: close the links on which nothing is open."""
        raise NotImplementedError

    def _refused(self, link: NodeLink, refused: Refusal, now_ns: int) -> None:
        """A request was not carried out: try it again, or tell its caller."""
        item = link.acquires.get(refused.request)
        if item is None:
            item = link.requests.pop(refused.request, None)
        again = refused.code in AGAIN
        if isinstance(item, OpenKeepalive):
            self._refused_keepalive(item.share, now_ns)
        elif isinstance(item, ClosingSession):
            self._close_links_if_done(now_ns)
        elif isinstance(item, Query):
            link.acquires.pop(refused.request, None)
            if again:
                self._retry(item, refused, now_ns)
            else:
                item.link = 0
                self._answer(item, None, from_code(refused.code, refused.text, name=item.name))
        elif isinstance(item, Ticket) and item.state != PENDING:
            if again:
                self._retry(item, refused, now_ns)
            else:
                self._let_go(item)
        elif isinstance(item, Ticket):
            self._refused_acquire(item, refused, again, now_ns)

    def _refused_acquire(self, ticket: Ticket, refused: Refusal, again: bool, now_ns: int) -> None:
        # The node keeps nothing of it: neither its share nor a release speaks of it any more.
        assert ticket.share is not None
        ticket.share.leave(ticket)
        only_try = ticket.wait_until_ns == ticket.started_at_ns
        if again and not (only_try and refused.code == "overloaded"):
            link = ticket.link
            self._close_acquire(ticket)
            if ticket.overdue:
                ticket.refusal = (refused.code, refused.text)
                self._end_pending(ticket, too_late(self._routing, ticket, now_ns))
                return
            ticket.link = link
            self._retry(ticket, refused, now_ns)
            return
        if refused.code == "timeout":
            error: LockringError = AcquireTimeout(refused.text, name=ticket.name)
        else:
            error = from_code(refused.code, refused.text, name=ticket.name)
        self._end_pending(ticket, error)

    def _end_pending(self, ticket: Ticket, error: LockringError) -> None:
        self._unlist(ticket)
        ticket.state = ENDED
        self._effects.append(Resolve(ticket, error))
