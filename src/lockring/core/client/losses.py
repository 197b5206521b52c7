"""The loss of locks that the client holds.

This is the one place in which a held ticket is lost. A loss is reported before anything is done about it: the program
must stop before the release that follows can let another holder in.
"""

from __future__ import annotations

from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import GrantLost
from lockring.core.client.groups import GroupMemberships
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.tickets import ENDED, NodeShare, Ticket, reason_of_expiry


class Losses:
    """Ends held tickets that the client cannot believe in any more."""

    def __init__(self, agenda: Agenda, memberships: GroupMemberships, outstanding: OutstandingCalls) -> None:
        self._agenda = agenda
        self._memberships = memberships
        self._outstanding = outstanding

    def lose(self, ticket: Ticket, reason: str, now_ns: int) -> None:
        """Lose a held ticket, and release it at its node at once: others need not wait for the node's own clock."""
        assert ticket.share is not None
        ticket.share.leave(ticket)
        self.end_held(ticket, reason)
        self._outstanding.begin_release(ticket, now_ns)

    def lose_expired(self, share: NodeShare, now_ns: int) -> None:
        """Lose the tickets of a share whose deadline has passed."""
        if share.check_at_ns <= now_ns:
            for ticket in share.check_deadlines(now_ns):
                self.lose(ticket, reason_of_expiry(ticket), now_ns)

    def end_held(self, ticket: Ticket, reason: str) -> None:
        """Report a held ticket, which is in no share any more, as lost; its group membership ends first."""
        query = self._memberships.query_of(ticket)
        if query is not None:
            self._memberships.end(query)
            self._outstanding.drop_query(query)
        ticket.reason = reason
        ticket.state = ENDED
        self._agenda.effects.append(GrantLost(ticket, reason))
