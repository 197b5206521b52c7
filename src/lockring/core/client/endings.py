"""How a ticket or a query ends for its caller: it is lost, it fails, or it is given up.

This is the one place in which a held ticket is lost. A loss is reported before anything is done about it: the program
must stop before the release that follows can let another holder in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import GrantLost, Resolve
from lockring.core.client.groups import GroupMemberships
from lockring.core.client.links import Links
from lockring.core.client.outlook import Outlooks, Wait
from lockring.core.client.outstanding import Item, OutstandingCalls, is_open
from lockring.core.client.queries import Query
from lockring.core.client.tickets import ENDED, PENDING, RELEASING, NodeShare, Ticket
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError
from lockring.units import NS_PER_MS

VERDICT_NS: Final = 250 * NS_PER_MS
"""How much longer the client waits for a node that has queued an acquire. By the node's clock the time ends a little
later; it then says who holds the lock, or that it may not serve the slot any more."""


class Endings:
    """Ends tickets and queries for their callers."""

    def __init__(
        self,
        agenda: Agenda,
        links: Links,
        outlooks: Outlooks,
        memberships: GroupMemberships,
        outstanding: OutstandingCalls,
        *,
        connect_timeout_ns: int,
    ) -> None:
        self._agenda = agenda
        self._links = links
        self._outlooks = outlooks
        self._memberships = memberships
        self._outstanding = outstanding
        self._connect_timeout_ns = connect_timeout_ns

    # ------------------------------------------------------------------ losses

    def lose(self, ticket: Ticket, reason: str, now_ns: int) -> None:
        """Lose a held ticket, and release it at its node at once: others need not wait for the node's own clock."""
        assert ticket.share is not None
        ticket.share.leave(ticket)
        self.end_held(ticket, reason)
        self._outstanding.begin_release(ticket, now_ns)

    def lose_expired(self, share: NodeShare, now_ns: int) -> None:
        """Lose the tickets of a share whose deadline has passed."""
        if share.check_at_ns <= now_ns:
            for ticket in share.find_expired(now_ns):
                self.lose(ticket, "local-deadline", now_ns)

    def end_held(self, ticket: Ticket, reason: str) -> None:
        """Report a held ticket, which is in no share any more, as lost; its group membership ends first."""
        query = self._memberships.query_of(ticket)
        if query is not None:
            self._memberships.end(query)
            self._outstanding.drop_query(query)
        ticket.reason = reason
        ticket.state = ENDED
        self._agenda.effects.append(GrantLost(ticket, reason))

    # ------------------------------------------------------------------ failures

    def fail(self, ticket: Ticket, error: LockringError) -> None:
        """End a waiting ticket that no node keeps."""
        self._outstanding.withdraw(ticket)
        ticket.state = ENDED
        self._agenda.effects.append(Resolve(ticket, error))
        self._outstanding.forget(ticket)

    def fail_late(self, ticket: Ticket, now_ns: int) -> None:
        """End a waiting ticket whose time is over, and that no node keeps."""
        self.fail(ticket, self._outlooks.too_late(ticket, now_ns))

    def give_up(self, item: Item, error: LockringError, now_ns: int) -> None:
        """End an item for its caller with an error, and take it back from every node that may know it."""
        if isinstance(item, Query):
            self._outstanding.end_query(item, None, error)
        elif item.state == PENDING:
            self.retract(item, now_ns)
            self._agenda.effects.append(Resolve(item, error))

    def retract(self, ticket: Ticket, now_ns: int) -> None:
        """End a waiting or held ticket silently, and take it back from every node that may know it."""
        is_own = ticket.session.on_behalf is None
        if not is_own:
            self._outstanding.take_back(ticket, now_ns)
        self._outstanding.withdraw(ticket)
        ticket.state = ENDED
        if ticket.exchange.request and is_own:
            self._outstanding.begin_release(ticket, now_ns)
        else:
            self._outstanding.forget(ticket)

    # ------------------------------------------------------------------ time

    def limit(self, item: Item, now_ns: int) -> None:
        """Plan the end of a call without a time limit of its own: it waits only so long for the very first server."""
        if not self._links.was_ready:
            self._outstanding.alarm(now_ns + self._connect_timeout_ns, item)

    def on_timer(self, now_ns: int) -> None:
        """Look at the items whose alarms have gone off."""
        while (due := self._outstanding.alarms.pop_due(now_ns)) is not None:
            item = due[1]
            if is_open(item, now_ns):
                self._look_at(item, now_ns)

    def _look_at(self, item: Item, now_ns: int) -> None:
        """Handle an item whose alarm has gone off."""
        if isinstance(item, Ticket) and item.state != PENDING:
            is_over = self._end_release_if_due(item, now_ns)
        else:
            is_over = self._end_call_if_due(item, now_ns)
        backoff = item.exchange.backoff
        if not is_over and backoff is not None and 0 < backoff.retry_at_ns <= now_ns:
            self._outstanding.dispatch(item, now_ns)

    def _end_release_if_due(self, ticket: Ticket, now_ns: int) -> bool:
        """End a release that has taken long enough; return whether all is done for it."""
        if ticket.state == RELEASING and now_ns >= min(ticket.deadline_ns, ticket.exchange.give_up_at_ns):
            # The lease has ended, so the lock is free anyway. The release goes on, for a node whose clock is slow.
            ticket.state = ENDED
            self._agenda.effects.append(Resolve(ticket, None))
        if now_ns >= ticket.exchange.give_up_at_ns and ticket in self._outstanding.parked:
            ticket.exchange.unreleased = False
            del self._outstanding.parked[ticket]
            self._outstanding.forget(ticket)
            return True
        return False

    def _end_call_if_due(self, item: Item, now_ns: int) -> bool:
        """Give a call up whose time is over; return whether it was not left to be tried again."""
        if item.exchange.give_up_at_ns == DISTANT_FUTURE_NS:
            if self._links.was_ready or now_ns < item.exchange.started_at_ns + self._connect_timeout_ns:
                return False
        elif now_ns < item.exchange.give_up_at_ns:
            return False
        elif (
            isinstance(item, Ticket)
            and item.exchange.link
            and (delay := item.exchange.delay) is not None
            and delay.queued
            and not delay.overdue
        ):
            delay.overdue = True
            item.exchange.give_up_at_ns = now_ns + VERDICT_NS
            self._outstanding.alarm(item.exchange.give_up_at_ns, item)
            return True
        self.give_up(item, self._outlooks.too_late(item, now_ns), now_ns)
        return True

    # ------------------------------------------------------------------ for people

    def waits(self, items: Iterable[Item], now_ns: int) -> list[Wait]:
        """Return what these calls wait for."""
        return self._outlooks.waits(items, now_ns)
