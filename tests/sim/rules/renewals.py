"""Rules about renewals: what a keepalive renews, and until when a client believes in what it has."""

from __future__ import annotations

import functools
import operator
from typing import Any

from lockring.core.client import renewals as client_renewals
from lockring.core.client.losses import Losses
from lockring.core.client.outstanding import OutstandingCalls
from lockring.core.client.renewals import ClientRenewals
from lockring.core.client.request_log import RequestLog
from lockring.core.client.sessions import ClientSessions
from lockring.core.client.tickets import NodeShare
from lockring.core.client.verdicts import apply_keepalive
from lockring.core.digest import mix
from lockring.core.node.grants import NodeGrants
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import Share
from lockring.core.node.renewals import Renewals
from lockring.core.node.rights import Rights
from lockring.core.node.session_leases import SessionLeases
from lockring.ids import AcquisitionNumber, ConnectionId, RequestNumber, SlotNumber
from lockring.protocol import ListedAcquisition, SlotList
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def session_only() -> list[Change]:
    """A keepalive is answered per session, not per lock: a node agrees whatever it has."""
    keepalive = Renewals.keepalive

    def changed(self: Renewals, connection: ConnectionId, message: Any, now_ns: int) -> None:
        if not message.slots and not message.listed:
            totals = self._leases.touch(message, connection, now_ns).totals
            message.count, message.digest = totals.count, totals.digest
        keepalive(self, connection, message, now_ns)

    return [
        (Renewals, "keepalive", changed),
        (Rights, "may_serve_everything", lambda self, now_ns: True),
    ]


@drill
def drill_session_only() -> None:
    """As for `agreed_without_right`."""
    drill_agreed_without_right()


@mutant
def agreed_without_right() -> list[Change]:
    """A node whose digest agrees renews also in slots that it may not serve now."""
    return [(Rights, "may_serve_everything", lambda self, now_ns: True)]


@drill
def drill_agreed_without_right() -> None:
    """A client and the former primary reach each other, and no other process."""
    cluster = Scenario(clients=1)
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.hold(client, cluster.name, ttl_ms=3000)
    for process in [*cluster.simulation.nodes, *cluster.simulation.coordinators]:
        if process is not primary:
            cluster.cut(primary, process, 25)
            cluster.cut(client, process, 25)
    cluster.run(15)


@mutant
def grant_by_session() -> list[Change]:
    """A grant's deadline comes from the newest request of the client, not from the one it answers."""
    granted = ClientRenewals.granted

    def changed(self: ClientRenewals, link: Any, message: Any, now_ns: int) -> None:
        message.basis = self._log.last_number
        granted(self, link, message, now_ns)

    return [(ClientRenewals, "granted", changed)]


@drill
def drill_grant_by_session() -> None:
    """As for `client_from_response`: meanwhile the client has renewed what it has elsewhere."""
    drill_client_from_response()


@mutant
def client_from_response() -> list[Change]:
    """A client's deadlines count from the response, not from its request."""
    granted = ClientRenewals.granted

    def late_granted(self: ClientRenewals, link: Any, message: Any, now_ns: int) -> None:
        ticket = link.acquires.get(message.request)
        if ticket is not None:
            ticket.exchange.sent_at_ns = now_ns
        granted(self, link, message, now_ns)

    def late_apply(share: NodeShare, request: RequestNumber, sent_at_ns: int, reply: Any, now_ns: int) -> Any:
        return apply_keepalive(share, request, now_ns, reply, now_ns)

    return [
        (ClientRenewals, "granted", late_granted),
        (client_renewals, "apply_keepalive", late_apply),
        (RequestLog, "sent_no_earlier_than_ns", lambda self, number: self._times_ns[-1]),
    ]


@drill
def drill_client_from_response() -> None:
    """A grant comes late, and no further message gets from its client to the node."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.let_go(client, *cluster.hold(client, cluster.name, ttl_ms=1000))
    cluster.hold(client, cluster.name_at(cluster.backup()), ttl_ms=1000)
    cluster.delay(primary, client, 0.7)
    client.take(cluster.name, ttl_ms=1000)
    cluster.run(0.05)
    cluster.silence(client, primary, 60)
    cluster.run(3)


@mutant
def revive() -> list[Change]:
    """A late answer revives a lock whose deadline has passed."""
    answered = ClientRenewals.answered
    lose_expired = Losses.lose_expired

    def late_answered(self: ClientRenewals, link: Any, message: Any, now_ns: int) -> None:
        vars(self._losses)["reviving"] = True
        answered(self, link, message, now_ns)
        vars(self._losses)["reviving"] = False

    def late_lose_expired(self: Losses, share: Any, now_ns: int) -> None:
        if not vars(self).get("reviving"):
            lose_expired(self, share, now_ns)

    return [(ClientRenewals, "answered", late_answered), (Losses, "lose_expired", late_lose_expired)]


@drill
def drill_revive() -> None:
    """A client is frozen while a deadline passes, and the answer that would have moved it has arrived by then."""
    cluster = Scenario(clients=1)
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.hold(client, cluster.name, ttl_ms=300)
    cluster.run(0.5)
    cluster.step(lambda: cluster.is_asking(client, primary), 1)
    client.pause(250_000_000)
    cluster.run(1)


@mutant
def list_of_one_share() -> list[Change]:
    """A client lists for a slot only the tickets of its share there, not those that it expects elsewhere."""

    def listed(self: NodeShare, slots: list[SlotNumber]) -> list[SlotList]:
        lists: dict[SlotNumber, list[ListedAcquisition]] = {slot: [] for slot in slots}
        for ticket in self.tickets.values():
            if ticket.slot in lists:
                lists[ticket.slot].append(ListedAcquisition(ticket.acquisition, ticket.name))
        return [SlotList(slot, acquisitions) for slot, acquisitions in lists.items()]

    return [(NodeShare, "listed", listed)]


@drill_by_chance(range(1, 9))
def drill_list_of_one_share(seed: int) -> None:
    """A client hears of a planned move of its lock before the old primary does, and lists there just then."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, seed=seed)
    client = cluster.simulation.clients[0]
    for number in range(20):
        client.take(f"lock-{number}", ttl_ms=300)
    cluster.run(1)
    coordinator = cluster.simulation.coordinators[0]
    cluster.simulation.add_node()
    for _ in range(3000):
        cluster.run(0.001)
        for node in cluster.simulation.nodes:
            core = node.core
            if core is not None and any(
                s.learner is not None and s.primary == core.replica for s in core.state.slots
            ):
                cluster.simulation.network.cut(coordinator, node, S)


@mutant
def covered_by_all() -> list[Change]:
    """A node's answer to a keepalive counts also for acquisitions that came to it after that was sent."""
    enter = NodeShare.enter

    def changed(self: NodeShare, ticket: Any, after: int) -> None:
        enter(self, ticket, 0)

    return [(NodeShare, "enter", changed)]


@drill
def drill_covered_by_all() -> None:
    """A client renews one lock at a node, and before the answer it hears of another lock's move there, too early."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, coordinator = cluster.simulation.clients[0], cluster.coordinator
    former, successor, third = cluster.primary(), cluster.backup(), cluster.third()
    client.take(cluster.name, ttl_ms=1000)
    cluster.run(0.2)
    client.take(cluster.name_at(successor), ttl_ms=1000)
    cluster.run(0.3)
    former.drain()
    cluster.run(0.5)
    for process in (former, successor, third, client):
        cluster.silence(coordinator, process, 60)
    cluster.wait(lambda: cluster.primary() is successor, 5)
    cluster.delay(client, successor, 1 / 3)
    cluster.run(0.34)
    cluster.delay(client, successor, 0.05)
    cluster.step(lambda: cluster.is_asking(client, successor), 1)
    for process in (successor, third):
        cluster.silence(process, former, 60)
    cluster.unsilence(coordinator, successor)
    cluster.run(3)


def _unlisted_stays() -> list[Change]:
    """A node keeps acquisitions that a client's list shows as given up."""
    compare = Renewals._compare_list

    def changed(self: Renewals, session: Any, listing: Any, through: Any, *rest: Any, **named: Any) -> Any:
        return compare(self, session, listing, AcquisitionNumber(0), *rest, **named)

    return [(Renewals, "_compare_list", changed)]


@mutant
def released_once() -> list[Change]:
    """A client does not repeat its latest releases where a slot has a new primary."""
    return [(OutstandingCalls, "repeat_releases", lambda self, now_ns, *, lost=None: None)]


@drill
def drill_released_once() -> None:
    """A release is confirmed, and its primary dies before the backup hears of it; its client has nothing else."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (given,) = cluster.hold(one, cluster.name)
    cluster.silence(cluster.primary(), cluster.backup(), 60)
    cluster.let_go(one, given)
    cluster.crash(cluster.primary())
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(6)
    cluster.demand(wanted.outcome == "held", "P7", f"{cluster.name!r} was given back, and no client gets it")


@pair(_unlisted_stays, released_once)
def unlisted_stays() -> None:
    """A node keeps acquisitions that a client's list shows as given up, and no release is repeated at a new primary.

    Either suffices where the session has something else at that node; else it is the repetition that is needed.
    """


@drill
def drill_unlisted_stays() -> None:
    """A release is confirmed, and its primary dies before the backup hears of it; its client has other locks there."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    first, second = cluster.names(2)
    held, given = one.take(first, ttl_ms=TTL_MS), one.take(second, ttl_ms=TTL_MS)
    cluster.wait(lambda: given.outcome == "held", 1)
    cluster.silence(cluster.primary(), cluster.backup(), 60)
    one.give_back(given)
    cluster.wait(lambda: given.outcome == "released", 1)
    cluster.crash(cluster.primary())
    wanted = other.take(second, ttl_ms=TTL_MS)
    cluster.run(15)
    cluster.demand(wanted.outcome == "held", "P7", f"{second!r} was given back, and no client gets it")
    assert held.outcome == "held"


@mutant
def broken_renewed() -> list[Change]:
    """A lease that an operator ended is renewed by keepalives as before, though the node will end it."""

    def break_holder(self: LockTable, holder: Any) -> None:
        holder.broken = True
        self.broken[holder] = None

    def drop_holder(self: NodeGrants, slot: Any, holder: Any, now_ns: int, reason: str = "") -> None:
        holder.broken = False
        drop(self, slot, holder, now_ns, reason)

    def counted(self: Share) -> tuple[int, int]:
        return len(self.entries), functools.reduce(operator.xor, map(mix, self.entries), 0)

    drop = NodeGrants.drop_holder
    return [
        (LockTable, "break_holder", break_holder),
        (NodeGrants, "drop_holder", drop_holder),
        (Share, "counted", counted),
    ]


@drill
def drill_broken_renewed() -> None:
    """An operator ends a lease, and the notice to its holder is lost with the connection."""
    cluster = Scenario()
    cluster.trust_nothing_inside()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=3000)
    cluster.wait(lambda: held.outcome == "held", 1)
    wanted = other.take(cluster.name, ttl_ms=3000)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.silence(primary, one, 60)
    cluster.break_lease(held)
    cluster.run(0.1)
    cluster.break_connections(one, primary)
    cluster.unsilence(primary, one)
    cluster.wait(lambda: wanted.outcome == "held", 5)
    assert held.outcome == "expired", "its client finds out when it renews"


@mutant
def broken_here_alone() -> list[Change]:
    """The copies do not hear of a lease that an operator ended: the next primary renews it as before."""
    apply = LockTable.apply

    def changed(self: LockTable, mutation: Any, now_ns: int) -> None:
        if type(mutation).__name__ != "Revoke":
            apply(self, mutation, now_ns)

    return [(LockTable, "apply", changed)]


@drill
def drill_broken_here_alone() -> None:
    """An operator ends a lease, and the primary dies before the holder has heard of it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 1)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.silence(primary, one, 60)
    cluster.break_lease(held)
    cluster.run(0.1)
    cluster.crash(primary)
    cluster.run(20)
    cluster.demand(wanted.outcome == "held", "P7", "a lease that was ended is renewed by the next primary")
    assert held.outcome == "expired", "its client finds out when it renews"


def _one_session() -> list[Change]:
    """A client has one session for all its TTLs."""
    open_session = ClientSessions.open

    def changed(self: ClientSessions, ttl_ms: int, on_behalf: Any = None) -> Any:
        for session in self.by_id.values():
            session.ttl_ms = ttl_ms
            self.by_ttl_ms[ttl_ms] = session
            return session
        return open_session(self, ttl_ms, on_behalf)

    return [(ClientSessions, "open", changed)]


def _ttl_may_change() -> list[Change]:
    """A node lets a session change its TTL, which its copies do not hear of."""
    touch = SessionLeases.touch

    def changed(self: SessionLeases, message: Any, connection: ConnectionId, now_ns: int) -> Any:
        session = self._sessions.by_id.get(message.session)
        if session is not None:
            session.ttl_ms = message.ttl_ms
        return touch(self, message, connection, now_ns)

    return [(SessionLeases, "touch", changed)]


@pair(_one_session, _ttl_may_change)
def session_of_many_ttls() -> None:
    """A session has more than one TTL, and its copies know only one of them.

    Each alone suffices: clients open a session for each TTL, and a node refuses one that changes it.
    """


@drill
def drill_session_of_many_ttls() -> None:
    """A client with a short and a long lease is cut off from its new primary for longer than the short one."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    first, second = cluster.names(2)
    client.take(first, ttl_ms=1000)
    cluster.run(0.2)
    client.take(second, ttl_ms=TTL_MS)
    cluster.run(4)
    cluster.cut(client, cluster.backup(), 7)
    cluster.crash(cluster.primary())
    cluster.run(12)


@mutant
def short_promise_waits_its_turn() -> list[Change]:
    """After a promise that is short for the TTL, the next keepalive comes a third of the TTL later, as always."""
    return [(ClientRenewals, "_renew_early", lambda self, share, until_ns, now_ns: None)]


@drill
def drill_short_promise_waits_its_turn() -> None:
    """The coordinator says nothing until its lease has nearly ended, and nodes promise no more than what is left."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    (client,) = cluster.simulation.clients
    (held,) = cluster.hold(client, cluster.name, ttl_ms=TTL_MS)
    for node in cluster.simulation.nodes:
        cluster.silence(cluster.coordinator, node, 100)
    cluster.wait(lambda: cluster.left_s(client, held) < 2, 40)
    for node in cluster.simulation.nodes:
        cluster.unsilence(cluster.coordinator, node)
    cluster.run(10)
    cluster.demand(
        held.outcome == "held", "LOSS", "a lock is lost though its primary could promise more in time"
    )
