"""Rules about the requests of clients, in which order they are granted, and the connections that bring them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lockring.cluster_state import Copy
from lockring.core.client.dialing import DialPlan
from lockring.core.client.link_checks import CHECK_NS, LinkChecks
from lockring.core.client.links import Links
from lockring.core.client.outlook import Outlooks
from lockring.core.client.renewals import ClientRenewals
from lockring.core.node import NodeCore
from lockring.core.node.acquires import Acquisitions
from lockring.core.node.admission import AdmittedClient
from lockring.core.node.clients import ConnectedClient, ConnectedClients
from lockring.core.node.dispatch import ClientRequests
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockHolder
from lockring.core.node.parking import ParkedRequest
from lockring.core.node.service import ClientService
from lockring.core.node.slot import NodeSlot
from lockring.errors import AcquireTimeout
from lockring.ids import ConnectionId
from lockring.protocol import LossNotice
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def blind_to_another_cluster() -> list[Change]:
    """A client goes on believing in its locks where another cluster answers at all addresses that it knows."""
    is_replaced = DialPlan.is_replaced
    return [
        (DialPlan, "is_replaced", lambda self, has_any: not has_any and is_replaced(self, has_any=has_any)),
    ]


@drill
def drill_blind_to_another_cluster() -> None:
    """An operator sets all servers up again under their addresses, and says that there was no cluster before."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name, ttl_ms=30_000)
    cluster.make_anew(new_cluster=True)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 20)
    assert held.outcome == "other-cluster"


@mutant
def kept_without_id() -> list[Change]:
    """A node keeps clients that it welcomed before it had joined a cluster, and that know no cluster id therefore."""
    return [(NodeCore, "_send_back_those_without_id", lambda self: None)]


@drill
def drill_kept_without_id() -> None:
    """A client comes to a node that has not joined yet; later another cluster takes the servers' addresses."""
    cluster = Scenario(nodes=1, clients=2)
    one, other = cluster.simulation.clients
    node, coordinator = cluster.simulation.nodes[0], cluster.coordinator
    cluster.crash(one)
    cluster.make_anew(new_cluster=True)
    cluster.cut(node, coordinator, 1)
    one.start()
    cluster.cut(one, coordinator, 8)  # which would say the id otherwise
    held = one.take(cluster.name, ttl_ms=30_000)
    cluster.wait(lambda: held.outcome == "held", 8)
    cluster.run(8)
    cluster.make_anew(new_cluster=True)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 20)
    cluster.run(1)
    cluster.demand(held.outcome == "other-cluster", "LOSS", f"the lock of another cluster: {held.outcome}")


@mutant
def release_by_key() -> list[Change]:
    """A release names the lock and the session, not the acquisition."""
    release = Acquisitions.release

    def changed(
        self: Acquisitions, connection: ConnectionId, message: Any, slot: NodeSlot, now_ns: int
    ) -> None:
        lock = slot.table.locks.get(message.name)
        for holder in lock.holders if lock is not None else ():
            if holder.session.id == message.session:
                message.acquisition = holder.acquisition
        release(self, connection, message, slot, now_ns)

    return [(Acquisitions, "release", changed)]


@drill
def drill_release_by_key() -> None:
    """A release arrives a second time, when its client has the lock again."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    (first,) = cluster.hold(client, cluster.name)
    cluster.let_go(client, first)
    cluster.hold(client, cluster.name)
    cluster.release_again(client, first)
    cluster.run(0.5)


@mutant
def lost_from_anyone() -> list[Change]:
    """A client takes a loss from any node, and a node reports it without the right to serve."""

    def lost_at_node(self: ClientRenewals, link: Any, lost: Any, now_ns: int) -> None:
        session = self._sessions.by_id.get(lost.session)
        for share in session.shares.values() if session is not None else ():
            ticket = share.tickets.get(lost.acquisition)
            if ticket is not None:
                if ticket.generation:
                    self._losses.lose(ticket, lost.reason, now_ns)
                return

    def notify_lost(self: ConnectedClients, entry: Any, reason: str) -> None:
        if isinstance(entry, LockHolder) and entry.session.connection in self.by_connection:
            lost = LossNotice(entry.session.id, entry.acquisition, entry.lock.name, reason)
            self._context.outbox.send(entry.session.connection, lost)

    return [(ClientRenewals, "lost_at_node", lost_at_node), (ConnectedClients, "notify_lost", notify_lost)]


@drill
def drill_lost_from_anyone() -> None:
    """A primary that only its clients can reach ends leases that live on at its successor."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    held = [client.take(f"lock-{number}", ttl_ms=3000) for number in range(20)]
    cluster.run(1)
    primary = cluster.primary()
    for process in [*cluster.simulation.nodes, *cluster.simulation.coordinators]:
        if process is not primary:
            cluster.cut(primary, process, 25)
    cluster.run(20)
    assert all(task.outcome == "held" for task in held)


@mutant
def loss_of_an_earlier_grant() -> list[Change]:
    """A client takes the loss of an earlier grant of an acquisition for that of the present one."""
    lost_at_node = ClientRenewals.lost_at_node

    def changed(self: ClientRenewals, link: Any, notice: LossNotice, now_ns: int) -> None:
        lost_at_node(
            self, link, LossNotice(notice.session, notice.acquisition, notice.name, notice.reason), now_ns
        )

    return [(ClientRenewals, "lost_at_node", changed)]


@drill
def drill_loss_of_an_earlier_grant() -> None:
    """A grant ends before its client has heard of it. The slot moves, the lock is granted there, and the slot comes
    back; only then does the news of that end arrive."""
    cluster = Scenario(nodes=2, clients=1)
    client, primary, backup = cluster.simulation.clients[0], cluster.primary(), cluster.backup()
    cluster.hold(client, cluster.name_at(backup))
    cluster.let_go(client, *cluster.hold(client, cluster.name))  # it is connected to both now
    cluster.crash(cluster.coordinator)
    cluster.be_patient()
    cluster.silence(primary, client, 60)
    wanted = client.take(cluster.name, ttl_ms=300)
    cluster.step(lambda: cluster.table(primary), 2)
    cluster.silence(client, primary, 60)
    cluster.step(lambda: not cluster.table(primary), 5)
    cluster.unsilence(client, primary)
    _swap(cluster)
    cluster.step(lambda: wanted.outcome == "held", 5)
    _swap(cluster)
    cluster.step(lambda: cluster.serves(primary), 5)
    cluster.run(0.01)
    cluster.unsilence(primary, client)
    cluster.run(0.2)
    cluster.demand(wanted.outcome == "held", "P3", "a lock is lost by the end of an earlier grant")


def _swap(cluster: Scenario) -> None:
    """Make the backup of the lock's slot its primary, and the primary its backup, without a coordinator."""
    former, successor = cluster.slot().primary, cluster.slot().backup
    assert former is not None
    assert successor is not None
    state = cluster.decide(
        lambda slot, version: replace(
            slot, since=version, primary=successor.replica, backup=Copy(former, version)
        )
    )
    for node in cluster.simulation.nodes:
        cluster.tell_again(node, state)


@mutant
def newest_first() -> list[Change]:
    """The last waiter is granted first."""

    def next_grantable(self: LockTable, lock: Any) -> Any:
        if lock.waiters and lock.admits(lock.waiters[-1].mode, lock.waiters[-1].permits):
            return lock.waiters[-1]
        return None

    return [(LockTable, "next_grantable", next_grantable)]


@drill
def drill_newest_first() -> None:
    """Two clients wait for a lock that a third one holds."""
    cluster = Scenario(clients=3)
    one, early, late = cluster.simulation.clients
    for client in (early, late):
        cluster.let_go(client, *cluster.hold(client, cluster.name))
    (held,) = cluster.hold(one, cluster.name)
    for client in (early, late):
        client.take(cluster.name, ttl_ms=TTL_MS)
        cluster.run(0.5)
    one.give_back(held)
    cluster.run(1)


@mutant
def wait_begins_anew() -> list[Change]:
    """A waiter that has waited at another node before still goes to the end of the queue."""
    enqueue = LockTable.enqueue

    def changed(self: LockTable, *wanted: Any, since_ns: int) -> Any:
        return enqueue(self, *wanted, since_ns=0)

    return [
        (LockTable, "enqueue", changed),
        (ParkedRequest, "since_ns", lambda self: -self.arrived_ns),
    ]


@drill
def drill_wait_begins_anew() -> None:
    """The primary dies, and the longest waiter reaches its successor last."""
    cluster = Scenario(clients=3)
    one, early, late = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    first = early.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    second = late.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.cut(early, cluster.backup(), 5)
    cluster.crash(cluster.primary())
    cluster.run(9)
    one.give_back(held)
    cluster.wait(lambda: "held" in (first.outcome, second.outcome), 2)
    cluster.demand(first.outcome == "held", "P5", "the longer waiter, as its client knows, is passed over")


@mutant
def parking_is_no_wait() -> list[Change]:
    """The time that a request is parked at a node counts as no part of its wait."""
    return [(ParkedRequest, "message_at", lambda self, now_ns: self.message)]


@drill
def drill_parking_is_no_wait() -> None:
    """The primary dies. The first waiter is parked at its successor at once, the second 0.8 s later."""
    cluster = Scenario(clients=3)
    one, early, late = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    first = early.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.3)
    second = late.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    successor = cluster.backup()
    cluster.crash(cluster.primary())
    cluster.step(lambda: cluster.primary() is successor, 10)
    cluster.cut(late, successor, 0.8)
    cluster.run(0.9)
    assert not cluster.reigns(successor), "both have to come while it waits for its promise to end"
    cluster.run(9)
    one.give_back(held)
    cluster.wait(lambda: "held" in (first.outcome, second.outcome), 2)
    cluster.demand(
        first.outcome == "held", "P5", "a waiter loses the time for which the next primary parked it"
    )


@mutant
def readers_pass() -> list[Change]:
    """A reader that could share the lock with its holders passes the writers in the queue."""
    acquire = Acquisitions.acquire

    def changed(
        self: Acquisitions, connection: ConnectionId, message: Any, slot: NodeSlot, now_ns: int
    ) -> None:
        lock = slot.table.locks.get(message.name)
        if lock is None or not lock.holders or not lock.admits(message.mode, message.permits):
            acquire(self, connection, message, slot, now_ns)
            return
        waiters, lock.waiters = lock.waiters, None
        acquire(self, connection, message, slot, now_ns)
        lock.waiters = waiters

    return [(Acquisitions, "acquire", changed)]


@drill
def drill_readers_pass() -> None:
    """Readers come and go while a writer waits."""
    cluster = Scenario(clients=3)
    reader, writer, other = cluster.simulation.clients
    shared = reader.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.wait(lambda: shared.outcome == "held", 1)
    alone = writer.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    later = other.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.run(0.5)
    cluster.demand(later.outcome == "waiting", "P5", "a reader passes a writer, who may wait for ever")
    reader.give_back(shared)
    cluster.wait(lambda: alone.outcome == "held", 1)


@mutant
def parked_for_good() -> list[Change]:
    """Requests that were parked until the slot can be served are never tried again."""
    return [(ClientRequests, "retry_parked", lambda self, now_ns: None)]


@drill
def drill_parked_for_good() -> None:
    """A request reaches a successor that may not serve yet."""
    cluster = Scenario(clients=1)
    client, successor = cluster.simulation.clients[0], cluster.backup()
    client.take(cluster.name_at(successor), ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.crash(cluster.primary())
    cluster.step(lambda: cluster.primary() is successor, 5)
    cluster.wait(lambda: cluster.knows(successor), 1)
    assert not cluster.reigns(successor)
    wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=5000)
    cluster.wait(lambda: cluster.serves(successor), 5)
    cluster.run(0.5)
    cluster.demand(
        wanted.outcome == "held", "P7", "a free lock that is served is not given to who asked early"
    )


@mutant
def old_connections_speak() -> list[Change]:
    """A client's older connection is still listened to when a newer one has greeted the node."""

    def connected(self: ClientService, connection: ConnectionId, admitted: AdmittedClient) -> None:
        self.clients.add(connection, admitted.hello, admitted.access)
        self._context.outbox.send(connection, self._context.routes.whole())

    def remove(self: ConnectedClients, connection: ConnectionId) -> ConnectedClient | None:
        client = self.by_connection.pop(connection, None)
        if client is not None and self._connection_of.get(client.client) == connection:
            del self._connection_of[client.client]
        return client

    return [(ClientService, "connected", connected), (ConnectedClients, "remove", remove)]


@drill
def drill_old_connections_speak() -> None:
    """A client's list arrives on its former connection, after more was granted on the present one."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    first, second = cluster.names(2)
    one.take(first, ttl_ms=1500)
    blocks = other.take(second, ttl_ms=TTL_MS)
    cluster.wait(lambda: blocks.outcome == "held", 1)
    with cluster.no_room_for_waiters():
        wanted = one.take(second, ttl_ms=1500)
        # It is refused, and sent nowhere while it pauses: so it is not in the list, and the link ends before it is
        # sent.
        cluster.wait(lambda: cluster.pause_left_s(one, wanted) > 0.7, 10)
        cluster.delay(one, cluster.primary(), 2.5)
        one.list_all()
        cluster.run(0.01)
    other.give_back(blocks)
    cluster.wait(lambda: wanted.outcome == "held", 2.4)
    cluster.run(3)
    assert wanted.outcome == "held"


@mutant
def idle_link_trusted() -> list[Change]:
    """A connection on which nothing has come for long is trusted like any other."""
    return [(Links, "open_rivals", lambda self, now_ns: None)]


@drill
def drill_idle_link_trusted() -> None:
    """A router forgets the connections of an idle client, which then wants a free lock within a second."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    for both in (True, False):
        (given,) = cluster.hold(client, cluster.name)
        cluster.let_go(client, given)
        cluster.run(3)
        for end in list(client.ends.values()):
            cluster.simulation.network.hush(end, both=both)
        wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=900)
        cluster.run(1.5)
        cluster.demand(
            wanted.outcome == "held", "P7", f"{cluster.name!r} is free, and its client does not get it"
        )
        cluster.let_go(client, wanted)


@mutant
def news_trusted_to_come() -> list[Change]:
    """A client that waits for a route does not look whether its connections still bring any news."""
    return [(DialPlan, "is_stuck", lambda self, now_ns: False)]


@drill
def drill_news_trusted_to_come() -> None:
    """The only node starts again, and a router forgets all connections of a client that waits for its slots."""
    cluster = Scenario(nodes=1, clients=1)
    (client,), node = cluster.simulation.clients, cluster.primary()
    (held,) = cluster.hold(client, cluster.name)
    cluster.crash(node)
    node.start()
    wanted = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome != "held", 60)
    cluster.wait(lambda: len(client.ends) >= 2, 10)
    cluster.run(1)
    assert not cluster.serves(node)
    for end in list(client.ends.values()):
        cluster.simulation.network.hush(end, both=True)
    cluster.wait(lambda: cluster.serves(node), 60)
    cluster.run(12)
    cluster.demand(
        wanted.outcome == "held", "P7", f"{cluster.name!r} is free, and its client does not hear of that"
    )


@mutant
def early_look_counts() -> list[Change]:
    """A look at a connection that comes too early for a question puts off the next one by as long as a question."""
    look = LinkChecks._look
    return [
        (LinkChecks, "_look", lambda self, link, now_ns: max(look(self, link, now_ns), now_ns + CHECK_NS))
    ]


@drill
def drill_early_look_counts() -> None:
    """A client comes to servers while no slot is served, and a router forgets its connections before its first look."""
    cluster = Scenario(nodes=1, clients=1)
    (client,), node = cluster.simulation.clients, cluster.primary()
    cluster.crash(node)
    node.start()
    cluster.run(10)
    cluster.wait(lambda: cluster.lease_wait_left_s() < 2, 60)
    wanted = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.is_welcome(client), 5)
    for end in list(client.ends.values()):
        cluster.simulation.network.hush(end, both=True)
    cluster.wait(lambda: cluster.serves(node), 5)
    cluster.run(2)
    cluster.demand(
        wanted.outcome == "held", "P7", f"{cluster.name!r} is free, and its client does not hear of that"
    )


@mutant
def looked_at_seldom() -> list[Change]:
    """A client that has met another cluster looks at its connections to its own as seldom as it always does."""
    include = LinkChecks._include
    return [
        (
            LinkChecks,
            "_include",
            lambda self, link, now_ns, often: include(self, link, now_ns, often=False),
        )
    ]


@drill
def drill_looked_at_seldom() -> None:
    """A server has just answered a client when power fails at all of them, and another cluster takes their place."""
    cluster = Scenario(nodes=1, clients=1)
    (client,) = cluster.simulation.clients
    (given,) = cluster.hold(client, cluster.name)
    cluster.let_go(client, given)
    cluster.crash(cluster.primary())
    cluster.be_patient()
    wanted = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.was_just_answered(client), 3)
    cluster.make_anew(new_cluster=True, power=True)
    cluster.run(2.5)
    cluster.demand(
        wanted.outcome == "held", "P7", f"{cluster.name!r} is free, and its client trusts in a former server"
    )


@mutant
def met_for_good() -> list[Change]:
    """A meeting with another cluster counts forever, however long a client is served by its own since."""
    return [(DialPlan, "has_met_another", lambda self: self._foreign_since_ns != 0)]


@drill
def drill_met_for_good() -> None:
    """A client meets another cluster at one of its addresses, after a failure, and is cut off much later."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    stranger = cluster.add_stranger()
    client.seeds.append(stranger.address)
    cluster.crash(client)
    client.start()
    (held,) = cluster.hold(client, cluster.name, ttl_ms=30_000)
    coordinator = cluster.coordinator
    cluster.crash(cluster.primary())
    cluster.crash(coordinator)
    cluster.wait(lambda: cluster.has_met(client, stranger), 10)
    coordinator.start()
    cluster.quiet()
    cluster.run(20)
    servers = [*cluster.simulation.nodes, *cluster.simulation.coordinators, stranger]
    for server in servers:
        cluster.cut(client, server, 15)
    for server in servers:
        cluster.break_connections(client, server)
    cluster.run(15)
    cluster.demand(held.outcome == "held", "LOSS", f"{cluster.name!r} was given up though its lease went on")


@mutant
def held_by_hearsay() -> list[Change]:
    """An acquire without an answer at the end of its time is taken for one behind other holders."""

    def changed(self: Outlooks, item: Any, now_ns: int) -> Any:
        return AcquireTimeout("not granted in time", name=item.name)

    return [(Outlooks, "too_late", changed)]


@drill
def drill_held_by_hearsay() -> None:
    """The coordinator has been gone for longer than its lease, and a client wants a free lock."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    for coordinator in cluster.simulation.coordinators:
        for node in cluster.simulation.nodes:
            cluster.cut(node, coordinator, 80)
    cluster.run(36)
    wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=3_000)
    cluster.run(5)
    cluster.demand(
        wanted.outcome == "unavailable",
        "P7",
        f"{cluster.name!r} is free, and is reported as {wanted.outcome}",
    )
