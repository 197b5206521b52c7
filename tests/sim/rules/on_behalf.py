"""Rules of clients that acquire for programs behind them, as the gRPC API of a node does."""

from __future__ import annotations

from lockring.core.client.links import NodeLink
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.tickets import NodeShare, Ticket
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def withdrawn_for_all() -> list[Change]:
    """A call that ends takes the acquisition back, even if a repetition of the call asked for it since."""

    def changed(self: OutstandingCalls, ticket: Ticket, now_ns: int) -> None:
        link = self._links.by_id.get(ticket.exchange.link)
        if link is not None:
            self._requests.send_release(ticket, link, now_ns)

    return [(OutstandingCalls, "take_back", changed)]


@drill
def drill_withdrawn_for_all() -> None:
    """A program repeats its call at another server and is granted there; the first server hears late that it left."""
    cluster = Scenario(clients=4)
    holder, first, second, other = cluster.simulation.clients
    first.act_for_others()
    second.act_for_others()
    (held,) = cluster.hold(holder, cluster.name)
    here = first.take_for("program", cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    there = second.take_for("program", cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.let_go(holder, held)
    cluster.wait(lambda: there.outcome == "held", 2)
    assert here.outcome == "waiting"
    rival = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    first.hang_up(here)
    cluster.run(1)
    assert rival.outcome == "waiting"


@mutant
def grant_kept() -> list[Change]:
    """A client goes on renewing what it has acquired for a program."""

    def changed(self: ClientRenewals, ticket: Ticket, share: NodeShare, link: NodeLink) -> None:
        pass

    return [(ClientRenewals, "_hand_over", changed)]


@drill
def drill_grant_kept() -> None:
    """A program disappears with its lock, and another client wants it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    one.act_for_others()
    taken = one.take_for("program", cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: taken.outcome == "held", 2)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(3 * TTL_MS / 1000)
    cluster.demand(wanted.outcome == "held", "P7", f"no program renews {cluster.name!r}, and it is not free")
