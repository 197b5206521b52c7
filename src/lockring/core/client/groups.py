"""A client's part in groups: members follow their group, and say what they have seen."""

from __future__ import annotations

from typing import Any, Final

from lockring.core.client.effects import GroupChange, SendTo
from lockring.core.client.group_view import NOTHING, GroupSubscription, GroupView
from lockring.core.client.links import NodeLink
from lockring.core.client.outstanding import HELD, not_held
from lockring.core.client.queries import Query, QueryKind
from lockring.core.client.renewals import Renewal
from lockring.core.client.tickets import Ticket
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError
from lockring.protocol import Routes, SettlementNotice, Unwatch, View, ViewAck
from lockring.slots import slot_of

REPLACED: Final = "replaced"
"""Why a membership is lost whose id another member has taken over."""


class GroupsClient(Renewal):
    """The part of the client core that takes part in groups."""

    # ------------------------------------------------------------------ calls

    def follow(self, ticket: Ticket, *, now_ns: int) -> Query:
        """Begin to follow the group that a held ticket is a membership of: `GroupChange` comes whenever something changes.

        The request's `following` has what the member knows. It ends with the membership, or with `leave`.

        Raises:
            LockLost, NotHeld: the ticket is not held.
        """
        if ticket.state != HELD:
            raise not_held(ticket)
        request = Query(QueryKind.FOLLOW, ticket.name, ticket.slot, now_ns, DISTANT_FUTURE_NS)
        request.following = GroupSubscription(ticket)
        self._follows[ticket] = request
        return self._ask(request, now_ns)

    def told(self, request: Query, *, now_ns: int) -> None:
        """The program above was told of one `GroupChange` that was `awaited`."""
        following = request.following
        assert following is not None
        following.untold -= 1
        self._see(request, now_ns)

    def leave(self, request: Query, *, now_ns: int) -> None:
        """Own nothing any more and follow no more; the membership itself is then to be released.

        A `GroupChange` tells what was lost by that.
        """
        following = request.following
        assert following is not None
        self._follows.pop(following.ticket, None)
        if not following.over:
            self._stop(request, now_ns)

    def owned(self, request: Query, now_ns: int) -> frozenset[int]:
        """The slots that are rightly the member's own at this time."""
        following = request.following
        assert following is not None
        owned = following.standing.owned  # before the look at the lease: both may only have ended since
        return owned if self.believes(following.ticket, now_ns) else NOTHING

    def look(self, name: str, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask who is in the group whose lock is `name`; the answer is a `View`."""
        return self._ask(Query(QueryKind.LOOK, name, slot_of(name), now_ns, give_up_at_ns), now_ns)

    # ------------------------------------------------------------------ views

    def _grouped(self, link: NodeLink, message: View | SettlementNotice, now_ns: int) -> None:
        """News of a group."""
        request = link.acquires.get(message.request)
        following = request.following if isinstance(request, Query) else None
        if not isinstance(request, Query) or following is None:
            return
        request.attempts = 0
        view, settled = following.standing.view, True
        if isinstance(message, View):
            if message.view != view.number:
                if message.view < view.number:
                    return
                view, settled = GroupView(message.view, tuple(message.members)), message.settled
            else:
                settled = message.settled or following.standing.settled
        elif message.view != view.number:
            return
        gained, lost = following.take(view, settled)
        self._tell(request, gained, lost)
        self._see(request, now_ns)

    def _tell(self, request: Query, gained: frozenset[int], lost: frozenset[int]) -> None:
        following = request.following
        assert following is not None
        awaited = following.telling and bool(gained or lost)
        following.untold += awaited
        self._effects.append(GroupChange(request, gained, lost, awaited))

    def _see(self, request: Query, now_ns: int) -> None:
        """Say that the newest view was seen, if all that it took is let go of."""
        following = request.following
        assert following is not None
        ticket, view = following.ticket, following.standing.view
        if following.untold or following.over or following.seen >= view.number:
            return
        following.seen = view.number
        if view.has_replaced(ticket.generation):
            self._lose(ticket, REPLACED, now_ns)
            return
        link = self._routing.links.get(request.link)
        if link is not None:
            number = self._routing.number(now_ns)
            self._effects.append(
                SendTo(
                    link.id, ViewAck(number, ticket.name, ticket.session.id, ticket.acquisition, view.number)
                )
            )

    # ------------------------------------------------------------------ endings and moves

    def _stop(self, request: Query, now_ns: int) -> None:
        """A member is none any more."""
        following = request.following
        assert following is not None
        self._tell(request, NOTHING, following.end())
        link = self._routing.links.get(request.link)
        if link is not None and not request.done:
            number = self._routing.number(now_ns)
            self._wake(self._routing.ask(link, number, None, Unwatch(number, request.request), now_ns))
        self._finish(request)

    def _end_held(self, ticket: Ticket, reason: str) -> None:
        request = self._follows.pop(ticket, None) if self._follows else None
        if request is not None:
            following = request.following
            assert following is not None
            self._tell(request, NOTHING, following.end())
            self._finish(request)
        super()._end_held(ticket, reason)

    def _answer(self, request: Query, answer: Any, error: LockringError | None) -> None:
        following = request.following
        if following is None:
            super()._answer(request, answer, error)
            return
        # Its group cannot be followed: the server knows no groups, or the client is being closed.
        self._follows.pop(following.ticket, None)
        following.error = error
        self._tell(request, NOTHING, following.end())
        self._finish(request)

    def _routed(self, routes: Routes, now_ns: int) -> None:
        super()._routed(routes, now_ns)
        for request in list(self._follows.values()):
            link = self._routing.links.get(request.link)
            if link is not None and link.node is not self._routing.table[request.slot]:
                # A former primary that nobody can reach any more but us would say nothing of it.
                link.acquires.pop(request.request, None)
                self._dispatch(request, now_ns)
