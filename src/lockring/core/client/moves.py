"""Tickets and queries move with links, routes and clusters.

- Requests that were open on a link that broke are parked, until there is another one.
- A ticket whose slot has moved goes to the share at its new node: a held one is renewed there at once, a waiting one
  is asked for again there.
- If another cluster answers at all addresses, this one is gone. What was held is lost, and what is open is asked of
  the new one; except what names an object of the former cluster, a token or a node, since it might hit a different
  object there.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Replica
from lockring.core.client.agenda import Agenda
from lockring.core.client.call_endings import CallEndings
from lockring.core.client.dialing import DialPlan
from lockring.core.client.effects import Disconnect, SendTo
from lockring.core.client.groups import GroupMemberships
from lockring.core.client.links import READY, Links, NodeLink
from lockring.core.client.losses import Losses
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.queries import Query, QueryKind
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.request_log import RequestLog
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import DENIALS, HELD, PENDING, NodeShare
from lockring.errors import LockringError, Unavailable, WrongCluster
from lockring.protocol import GetRoutes, Routes, RoutesDifference, Welcome

OTHER_CLUSTER: Final = "other-cluster"
"""Why everything is lost that was held in a cluster in whose place another one answers."""


class Moves:
    """Takes tickets and queries from where they cannot be any more to where they belong."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        log: RequestLog,
        links: Links,
        routes: RouteTable,
        dialing: DialPlan,
        sessions: ClientSessions,
        outstanding: OutstandingCalls,
        endings: CallEndings,
        losses: Losses,
        renewals: ClientRenewals,
        memberships: GroupMemberships,
    ) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links
        self._routes = routes
        self._dialing = dialing
        self._sessions = sessions
        self._outstanding = outstanding
        self._endings = endings
        self._losses = losses
        self._renewals = renewals
        self._memberships = memberships

    # ------------------------------------------------------------------ links

    def welcomed(self, link: NodeLink, welcome: Welcome, now_ns: int) -> None:
        """Take a link into use: send what waits for it, and renew what is held there.

        Raises:
            ProtocolError, WrongCluster: the server cannot be worked with.
        """
        self._links.admit(link, welcome, now_ns)
        self._dialing.note_answer(link.address)
        routes = self._routes
        if welcome.coordinator and not routes.version:
            routes.coordinator = welcome.coordinator
        if welcome.role == "coordinator":
            useless = [link.rival_of] if link.rival_of is not None else []
        else:
            node = routes.ensure_node(Replica(welcome.node, welcome.incarnation), link.address)
            useless = self._links.attach(link, node)
        for replaced in useless:
            self._outstanding.requeue(replaced, now_ns)
            self._links.drop(replaced, "a newer connection took its place")
        self._outstanding.unpark(now_ns)
        if link.node is not None:
            # Only now: a list must not come before the acquires that it speaks of.
            # Waiting tickets have just been sent, which says as much as a keepalive.
            for share in link.node.shares.values():
                if any(ticket.state == HELD for ticket in share.tickets.values()):
                    self._renewals.renew(share, now_ns)
        self._agenda.wake(now_ns)

    def close_link(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """Close a link from our side because of an error."""
        self._agenda.effects.append(Disconnect(link.id, str(error)))
        self.link_lost(link, error, now_ns)

    def close_silent(self, now_ns: int) -> None:
        """Close the links on which an answer is overdue."""
        silent, next_ns = self._links.silent(now_ns)
        self._agenda.wake(next_ns)
        for link in silent:
            what = "did not answer" if link.state == READY else "did not answer the greeting"
            self.close_link(link, Unavailable(f"{link.address} {what} in time"), now_ns)

    def link_lost(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """Park what was open on a link that is gone, and leave its address alone for a while."""
        self._outstanding.requeue(link, now_ns)
        node = link.node
        if error.code in DENIALS:
            for each in self._routes.nodes.values():
                if each.address == link.address:
                    for share in each.shares.values():
                        self._renewals.denied(share, error.code)
        self._links.lose(link, now_ns)
        self._dialing.note_failure(link, error, now_ns)
        if node is not None:
            self._outstanding.repeat_releases(now_ns, lost=node)
        self._agenda.wake(now_ns)
        failure = self._dialing.permanent_failure()
        if failure is not None:
            for item in list(self._outstanding.parked):
                self._endings.give_up(item, failure, now_ns)
        if self._dialing.is_replaced(has_any=self._sessions.has_tickets()):
            self._leave_cluster(now_ns)

    def is_stuck(self, now_ns: int) -> bool:
        """Return whether something has been out of reach for a moment."""
        return self._dialing.is_stuck(now_ns)

    def has_met_another(self) -> bool:
        """Return whether another cluster has answered, and no server of this one was heard since."""
        return self._dialing.has_met_another()

    def maintain_links(self, now_ns: int) -> None:
        """Open the links that are needed."""
        self._links.open_rivals(now_ns)
        waiting = bool(self._outstanding.parked) or self._sessions.has_homeless()
        self._dialing.maintain(now_ns, waiting=waiting)

    # ------------------------------------------------------------------ routes

    def rerouted(self, routes: Routes, now_ns: int) -> None:
        """Adopt routes, and move tickets and queries to where they belong by them.

        Raises:
            ProtocolError: the routes are malformed.
        """
        if self._routes.adopt(routes, now_ns):
            self._follow_routes(now_ns)

    def rerouted_by(self, link: NodeLink, difference: RoutesDifference, now_ns: int) -> None:
        """Take the step to newer routes in the same way, or ask for all of them where it does not fit.

        Raises:
            ProtocolError: the difference is malformed.
        """
        if self._routes.take(difference, now_ns):
            self._follow_routes(now_ns)
        elif difference.version > self._routes.version:
            # Another server was ahead of this one, and may be gone before it can go on.
            number = self._log.take_number(now_ns)
            self._agenda.effects.append(SendTo(link.id, GetRoutes(self._routes.version, number)))

    def _follow_routes(self, now_ns: int) -> None:
        reached: dict[int, NodeShare] = {}
        for share in self._sessions.shares():
            self._move_tickets(share, reached, now_ns)
        for node in self._routes.nodes.values():
            node.wanted = False  # parking what waits for it says so again
        self._outstanding.unpark(now_ns, rerouted=True)
        for share in reached.values():
            share.unsettled = 0
            self._renewals.renew(share, now_ns)
            self._agenda.wake(share.check_at_ns)
        self._outstanding.repeat_releases(now_ns)
        self._routes.prune()
        self._dialing.forget_departed()
        self._agenda.wake(now_ns)
        for query in self._memberships.misrouted(self._routes):
            # A former primary that only this client can reach any more would say nothing of the move.
            link = self._links.by_id[query.exchange.link]
            link.acquires.pop(query.exchange.request, None)
            self._outstanding.dispatch(query, now_ns)

    def _move_tickets(self, share: NodeShare, reached: dict[int, NodeShare], now_ns: int) -> None:
        """Move a share's tickets to where their slots are now; `reached` collects the shares that get a held one."""
        table = self._routes.table
        node = self._routes.node_of(share.replica)
        for ticket in [each for each in share.tickets.values() if table[each.slot] is not node]:
            share.leave(ticket)
            if ticket.state == PENDING:
                self._outstanding.close_acquire(ticket)
                self._outstanding.park(ticket, now_ns)
                continue
            target = self._sessions.ensure_share(share.session, table[ticket.slot])
            # No keepalive that the new node has been sent so far speaks of this ticket.
            target.enter(ticket, self._log.last_number)
            reached[id(target)] = target

    # ------------------------------------------------------------------ another cluster

    def _leave_cluster(self, now_ns: int) -> None:
        """Lose what is held in a cluster that is gone, and go on with the one in its place."""
        for share in self._sessions.shares():
            for ticket in list(share.tickets.values()):  # all are held: the waiting ones are parked already
                share.leave(ticket)
                self._losses.end_held(ticket, OTHER_CLUSTER)
                self._outstanding.forget(ticket)
        for item in list(self._outstanding.parked):
            if isinstance(item, Query):
                self._carry_over(item, now_ns)
            elif item.state != PENDING:
                del self._outstanding.parked[item]
                self._outstanding.finish_release(item)
        self._outstanding.recent_releases.clear()
        self._routes.forget_cluster()
        self._dialing.forget_cluster()
        self._agenda.wake(now_ns)

    def _carry_over(self, query: Query, now_ns: int) -> None:
        """Prepare a query for another cluster, or give it up if it names an object of the former one."""
        if query.kind in (QueryKind.BREAK, QueryKind.DRAIN):
            error = WrongCluster(
                f"the {query.kind.value} of {query.name!r} was meant for a cluster that is gone: "
                "another one answers at its addresses",
                name=query.name,
            )
            self._endings.give_up(query, error, now_ns)
        elif query.listing is not None:
            query.listing.start_over()
