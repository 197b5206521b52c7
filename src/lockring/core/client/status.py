"""A client core seen from outside: its status, and what must always hold in it."""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.client.links import READY, Links
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.queries import Query
from lockring.core.client.routes import RouteTable
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import HELD, PENDING, NodeShare, Ticket, deadline_ns_of
from lockring.ids import Version


class ClientStatus(NamedTuple):
    """The state of a client at one moment.

    Attributes:
        version: of the newest routes, 0 before the first.
        links: address and whether ready, of each link.
        held: how many tickets are held.
        waiting: how many are not granted yet.
        parked: how many calls wait for a route or a link.
    """

    version: Version
    links: tuple[tuple[str, bool], ...]
    held: int
    waiting: int
    parked: int


def status_of(
    links: Links, routes: RouteTable, sessions: ClientSessions, outstanding: OutstandingCalls
) -> ClientStatus:
    """Return the status of a client with these parts."""
    states = [ticket.state for share in sessions.shares() for ticket in share.tickets.values()]
    states += [item.state for item in outstanding.parked if isinstance(item, Ticket)]
    return ClientStatus(
        version=routes.version,
        links=tuple((link.address, link.state == READY) for link in links.by_id.values()),
        held=states.count(HELD),
        waiting=states.count(PENDING),
        parked=len(outstanding.parked),
    )


def check_invariants_of(
    links: Links, routes: RouteTable, sessions: ClientSessions, outstanding: OutstandingCalls
) -> None:
    """Check what must hold between these parts of a client, in O(everything)."""
    links.check_invariants()
    routes.check_invariants()
    for session in sessions.all():
        for replica, share in session.shares.items():
            assert share.replica == replica
            _check_share(share, routes)
    for item in outstanding.parked:
        assert not item.exchange.link
        assert isinstance(item, Query) or item.state == PENDING or item.exchange.unreleased
    for link in links.by_id.values():
        for number, item in link.acquires.items():
            assert item.exchange.link == link.id
            if isinstance(item, Ticket):
                assert item.state == PENDING
                assert item.share is not None
                assert number in (item.exchange.request, item.exchange.first_request)


def _check_share(share: NodeShare, routes: RouteTable) -> None:
    folded = True
    for acquisition, ticket in share.tickets.items():
        assert ticket.acquisition == acquisition <= share.session.used
        assert ticket.share is share
        assert ticket.state in (PENDING, HELD)
        assert folded or not ticket.exchange.mixed, "folded tickets come first"
        folded = bool(ticket.exchange.mixed)
        if ticket.state == HELD:
            assert share.check_at_ns <= deadline_ns_of(ticket)
            assert not ticket.exchange.link
        node = routes.table[ticket.slot]
        assert (node.replica if node is not None else None) == share.replica, "a ticket is where its route is"
