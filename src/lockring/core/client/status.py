"""A client core seen from outside: its status, and what must always hold in it."""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.client.links import READY
from lockring.core.client.outstanding import HELD, PENDING, Exchange
from lockring.core.client.queries import Query
from lockring.core.client.tickets import Ticket, deadline_of


class ClientStatus(NamedTuple):
    """How a client is, frozen.

    Attributes:
        version: of the newest routes, 0 before the first.
        links: address and whether ready, of each link.
        held: how many tickets are held.
        waiting: how many are not granted yet.
        parked: how many calls wait for a route or a link.
    """

    version: int
    links: tuple[tuple[str, bool], ...]
    held: int
    waiting: int
    parked: int


def status_of(core: Exchange) -> ClientStatus:
    """How a client is."""
    shares = [share for session in core._sessions.values() for share in session.shares.values()]
    states = [ticket.state for share in shares for ticket in share.tickets.values()]
    states += [item.state for item in core._parked if isinstance(item, Ticket)]
    return ClientStatus(
        core._routing.version,
        tuple((link.address, link.state == READY) for link in core._routing.links.values()),
        states.count(HELD),
        states.count(PENDING),
        len(core._parked),
    )


def check_invariants(core: Exchange) -> None:
    """Assert what must always hold in a client, in O(everything)."""
    core._routing.check_invariants()
    for session in core._sessions.values():
        for replica, share in session.shares.items():
            assert share.replica == replica
            folded = True
            for acquisition, ticket in share.tickets.items():
                assert ticket.acquisition == acquisition <= session.used
                assert ticket.share is share
                assert ticket.state in (PENDING, HELD)
                assert folded or not ticket.mixed, "folded tickets come first"
                folded = bool(ticket.mixed)
                if ticket.state == HELD:
                    assert share.check_at_ns <= deadline_of(ticket)
                    assert not ticket.link
                node = core._routing.table[ticket.slot]
                assert (node.replica if node is not None else None) == replica, (
                    "a ticket is where its route is"
                )
    for item in core._parked:
        assert not item.link
        assert isinstance(item, Query) or item.state == PENDING or item.unreleased
    for link in core._routing.links.values():
        for number, item in link.acquires.items():
            assert item.link == link.id
            if isinstance(item, Ticket):
                assert item.state == PENDING
                assert item.share is not None
                assert number in (item.request, item.first_request)
