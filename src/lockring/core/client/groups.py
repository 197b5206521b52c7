"""A client's part in groups: members subscribe to their group, and acknowledge the views that they have seen.

This part knows nothing of leases. It reports the membership that a view has ended, and hears of one that its lease has
ended.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import GroupChange, SendTo
from lockring.core.client.exchanges import reset_attempts
from lockring.core.client.group_view import NO_SLOTS, GroupSubscription, GroupView
from lockring.core.client.links import Links, NodeLink
from lockring.core.client.queries import Query, QueryKind, query_about_lock
from lockring.core.client.request_log import RequestLog
from lockring.core.client.routes import RouteTable
from lockring.core.client.tickets import HELD, Ticket, is_believed, not_held
from lockring.errors import LockringError
from lockring.protocol import SettlementNotice, View, ViewAck

REPLACED: Final = "replaced"
"""Why a membership is lost whose id another member has taken over."""


class GroupMemberships:
    """The subscriptions of this client's members."""

    def __init__(self, agenda: Agenda, log: RequestLog, links: Links) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links
        self._queries: dict[Ticket, Query] = {}

    # ------------------------------------------------------------------ begin and end

    def begin(self, ticket: Ticket, now_ns: int) -> Query:
        """Follow a held ticket's group from now on, and return the query by which to do it.

        Raises:
            LockLost, NotHeld: the ticket is not held.
        """
        if ticket.state != HELD:
            raise not_held(ticket)
        query = query_about_lock(QueryKind.FOLLOW, ticket.name, now_ns)
        query.subscription = GroupSubscription(ticket)
        self._queries[ticket] = query
        return query

    def end(self, query: Query, error: LockringError | None = None) -> None:
        """End a subscription, and with it the ownership of all keys.

        Args:
            query: the subscription's.
            error: why the group cannot be followed, if its server knows no groups or the client is being closed.
        """
        subscription = subscription_of(query)
        self._queries.pop(subscription.ticket, None)
        if error is not None:
            subscription.error = error
        self._report(query, NO_SLOTS, subscription.end())

    def query_of(self, ticket: Ticket) -> Query | None:
        """Return the query by which a ticket's group is followed, None if it is not followed."""
        return self._queries.get(ticket)

    def misrouted(self, routes: RouteTable) -> list[Query]:
        """Return the subscriptions that are open at another node than their slot's primary."""
        found = []
        for query in self._queries.values():
            link = self._links.by_id.get(query.exchange.link)
            if link is not None and link.node is not routes.table[query.slot]:
                found.append(query)
        return found

    # ------------------------------------------------------------------ views

    def apply_news(self, link: NodeLink, news: View | SettlementNotice) -> Query | None:
        """Apply a group's news; return the subscription that it is for, None if it is stale."""
        query = link.acquires.get(news.request)
        if not isinstance(query, Query) or query.subscription is None:
            return None
        reset_attempts(query.exchange)
        subscription = query.subscription
        view, settled = subscription.ownership.view, True
        if isinstance(news, View):
            if news.view < view.number:
                return None
            if news.view > view.number:
                view, settled = GroupView(news.view, tuple(news.members)), news.settled
            else:
                settled = news.settled or subscription.ownership.settled
        elif news.view != view.number:
            return None
        gained, lost = subscription.apply_view(view, settled)
        self._report(query, gained, lost)
        return query

    def acknowledge(self, query: Query, now_ns: int) -> Ticket | None:
        """Acknowledge the newest view, if the program has let go of all that it took.

        Returns:
            The membership, if another member has taken its id over by that view: it must be given up.
        """
        subscription = subscription_of(query)
        ticket, view = subscription.ticket, subscription.ownership.view
        if subscription.callbacks_pending or subscription.ended or subscription.seen >= view.number:
            return None
        subscription.seen = view.number
        if view.has_replaced(ticket.generation):
            return ticket
        link = self._links.by_id.get(query.exchange.link)
        if link is not None:
            number = self._log.take_number(now_ns)
            message = ViewAck(number, ticket.name, ticket.session.id, ticket.acquisition, view.number)
            self._agenda.effects.append(SendTo(link.id, message))
        return None

    def owned(self, query: Query, now_ns: int) -> frozenset[int]:
        """Return the slots that the member rightly owns at this time."""
        subscription = subscription_of(query)
        # Before the look at the lease: another thread may end both in between, but never begin one of them again.
        owned = subscription.ownership.owned
        return owned if is_believed(subscription.ticket, now_ns) else NO_SLOTS

    def _report(self, query: Query, gained: frozenset[int], lost: frozenset[int]) -> None:
        subscription = subscription_of(query)
        awaited = subscription.has_callback and bool(gained or lost)
        subscription.callbacks_pending += awaited
        self._agenda.effects.append(GroupChange(query, gained, lost, awaited))


def subscription_of(query: Query) -> GroupSubscription:
    """Return the subscription that a query of the kind `FOLLOW` is about."""
    assert query.subscription is not None
    return query.subscription
