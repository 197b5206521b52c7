"""Rules about which connections nodes and coordinators admit, and which answers to a greeting are accepted.

Many of them stand in two places: a server refuses a greeting that does not fit, and the process that has greeted
refuses an answer that does not. Such a rule is a pair: one half switches the server's check off, the other half the
check of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.cluster_state import ClusterState, Replica
from lockring.core.client.links import Links, NodeLink
from lockring.core.coordinator import client_answers
from lockring.core.coordinator import core as coordinator_core
from lockring.core.coordinator.clients import Clients
from lockring.core.coordinator.join_checks import not_the_latest
from lockring.core.coordinator.pending_joins import PendingJoins
from lockring.core.coordinator.roster import Roster
from lockring.core.node import NodeCore, states
from lockring.core.node.admission import Admission
from lockring.core.node.context import NodeContext
from lockring.core.node.slot import NodeSlot
from lockring.protocol import ClientHello, Join, Snapshot, Welcome
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


def _servers_take_clients_of_other_clusters() -> list[Change]:
    """A node or coordinator that has a cluster welcomes clients of any other."""
    check_client = Admission._check_client

    def changed(self: Admission, hello: ClientHello) -> None:
        mine = self._context.state.cluster
        check_client(self, msgspec.structs.replace(hello, cluster=mine) if mine else hello)

    return [
        (Admission, "_check_client", changed),
        (client_answers, "why_not_greet", lambda hello, cluster: None),
    ]


def _clients_take_servers_of_other_clusters() -> list[Change]:
    """A client works with a server that has welcomed it, whatever cluster that names."""
    admit = Links.admit

    def changed(self: Links, link: NodeLink, message: Welcome, now_ns: int) -> None:
        admit(self, link, msgspec.structs.replace(message, cluster=self.cluster or message.cluster), now_ns)

    return [(Links, "admit", changed)]


@pair(_servers_take_clients_of_other_clusters, _clients_take_servers_of_other_clusters)
def client_of_another_cluster() -> None:
    """A client of one cluster and a server of another one work together.

    The client's check of the `Welcome` catches what the servers let in, so both are switched off.
    """


@drill
def drill_client_of_another_cluster() -> None:
    """The servers of another cluster answer at all addresses of the client's, as for `blind_to_another_cluster`."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name, ttl_ms=30_000)
    cluster.make_anew(new_cluster=True)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 20)
    cluster.demand(held.outcome == "other-cluster", "LOSS", f"the lock of another cluster: {held.outcome}")


def _nodes_take_clients_before_joining() -> list[Change]:
    """A node that has not joined a cluster welcomes clients which belong to one."""
    check_client = Admission._check_client

    def changed(self: Admission, hello: ClientHello) -> None:
        mine = self._context.state.cluster
        check_client(self, hello if mine else msgspec.structs.replace(hello, cluster=""))

    return [(Admission, "_check_client", changed)]


def _nodes_keep_those_clients() -> list[Change]:
    """A node that joins a cluster keeps the clients that it welcomed before."""
    return [(NodeCore, "_send_back_those_without_id", lambda self: None)]


@pair(_nodes_take_clients_before_joining, _nodes_keep_those_clients)
def client_before_joining() -> None:
    """A client of one cluster stays with a node that it met before the node joined another.

    The client's check lets that node's `Welcome` pass, since it names no cluster. But once a node has joined, it sends
    away the clients that it welcomed before: either rule suffices.
    """


@drill
def drill_client_before_joining() -> None:
    """At the addresses of a former cluster a coordinator begins another one, and its node reaches it a second later.

    Until then the holder of a lock has to learn that its cluster is gone: from the coordinator, and from a node that
    has not joined anything yet.
    """
    cluster = Scenario(nodes=1)
    one, other = cluster.simulation.clients
    node, coordinator = cluster.simulation.nodes[0], cluster.coordinator
    (held,) = cluster.hold(one, cluster.name, ttl_ms=30_000)
    cluster.cut(node, coordinator, 1)
    cluster.make_anew(new_cluster=True)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 20)
    cluster.demand(held.outcome == "other-cluster", "LOSS", f"the lock of another cluster: {held.outcome}")


def _older_peer_connections_speak() -> list[Change]:
    """A node goes on listening on a peer's older connection after a greeting on a newer one."""
    admit_peer = Admission._admit_peer

    def changed(self: Admission, connection: int, peer: Replica) -> None:
        self._connection_of.pop(peer, None)
        admit_peer(self, connection, peer)

    return [(Admission, "_admit_peer", changed)]


def _older_snapshots_apply() -> list[Change]:
    """A copy replaces its table by a snapshot although the table is ahead of it."""
    apply_snapshot = NodeSlot._apply_snapshot

    def changed(self: NodeSlot, part: Snapshot, tenure: tuple[int, int], now_ns: int) -> int | None:
        if self.following == tenure:
            self.following = None
        return apply_snapshot(self, part, tenure, now_ns)

    return [(NodeSlot, "_apply_snapshot", changed)]


@pair(_older_peer_connections_speak, _older_snapshots_apply)
def older_peer_connection() -> None:
    """A snapshot on a peer's older connection arrives after the news on its newer one, and sets the copy back.

    A copy also compares the snapshot's index with its own: either rule suffices.
    """


@drill
def drill_older_peer_connection() -> None:
    """A learner's first snapshot is under way for a second. Meanwhile the primary connects again, and then dies."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1)
    cluster.simulation.add_node()
    primary, learner = cluster.simulation.nodes
    cluster.step(lambda: cluster.slot().learner is not None, 15)
    cluster.delay(primary, learner, 1)
    cluster.run(0.05)
    cluster.notice_the_end(primary, learner)
    cluster.wait(lambda: cluster.slot().backup is not None, 0.8)
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.run(2)
    cluster.crash(primary)
    cluster.run(5)


def _nodes_take_every_peer() -> list[Change]:
    """A node welcomes peers of any cluster and life, whichever life of its own they mean, and even before it joins."""
    return [(Admission, "_check_peer", lambda self, hello, proof: None)]


def _nodes_take_every_answer() -> list[Change]:
    """A node works with any life of a peer that has answered."""
    return [(NodeCore, "check_peer", lambda self, peer, welcome, address: None)]


@pair(_nodes_take_every_peer, _nodes_take_every_answer)
def former_life_meant() -> None:
    """Messages for the former life of a node reach its successor.

    The node that was greeted checks which life is meant, and the one that has greeted which life has answered: either
    check suffices.
    """


def _survivor_of_a_former_cluster() -> tuple[Scenario, NodeShell, NodeShell]:
    """Return a cluster with one surviving node, that node, and the other node, for the drill to start again.

    The survivor takes the former life of the other node for its backup. At the coordinator's address a new cluster is
    about to begin, and the survivor hears nothing of it.
    """
    cluster = Scenario(nodes=2, clients=1, late_nodes=1)
    survivor, other = cluster.primary(), cluster.backup()
    cluster.crash(cluster.coordinator)
    cluster.run(40)  # until no lease of the former cluster is left
    cluster.crash(other)
    cluster.simulation.store.wipe()
    cluster.cut(survivor, cluster.coordinator, 300)
    cluster.coordinator.new_cluster = True
    return cluster, survivor, other


@drill
def drill_former_life_meant() -> None:
    """A node starts again and is about to join a new cluster, when a survivor of its former cluster greets it."""
    cluster, _, other = _survivor_of_a_former_cluster()
    cluster.coordinator.start()
    cluster.simulation.add_node()
    cluster.run(3)
    cluster.cut(other, cluster.coordinator, 1)
    other.start()
    cluster.run(1.5)
    cluster.demand(
        cluster.is_joined(other), "JOIN", f"{other.name} took over the state of a cluster that is gone"
    )


def _states_of_any_cluster() -> list[Change]:
    """A node adopts a newer state of any cluster, whichever versions that has skipped."""
    may_follow = states._may_follow

    def changed(context: NodeContext, state: ClusterState) -> bool:
        if state.cluster != context.state.cluster:
            return state.version > context.state.version
        return may_follow(context, state)

    return [(states, "_may_follow", changed)]


def _peers_of_any_cluster() -> list[Change]:
    """Nodes work with peers of any cluster and life."""
    return [*_nodes_take_every_peer(), *_nodes_take_every_answer()]


@pair(_peers_of_any_cluster, _states_of_any_cluster)
def peer_of_another_cluster() -> None:
    """A peer of another cluster makes a node follow that cluster's state.

    Peers of another cluster are refused, and so are its states: either rule suffices. The first half switches off the
    checks of lives too, since a peer of another cluster knows only a former life of the node.
    """


@drill
def drill_peer_of_another_cluster() -> None:
    """A survivor of a former cluster, whose versions are higher, reaches the only node of the new one."""
    cluster, survivor, other = _survivor_of_a_former_cluster()
    cluster.set_back_the_clock(cluster.coordinator)
    for process in (other, *cluster.simulation.clients):
        cluster.cut(survivor, process, 300)
    cluster.coordinator.start()
    other.start()
    cluster.wait(lambda: cluster.serves(other), 20)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.mend(survivor, other)
    cluster.run(15)
    cluster.demand(held.outcome == "held", "LOSS", f"the node serves the former cluster: {held.outcome}")


@mutant
def join_of_another_cluster() -> list[Change]:
    """A coordinator lets nodes of another cluster join."""
    return [(coordinator_core, "foreign", lambda join, state: None)]


@drill
def drill_join_of_another_cluster() -> None:
    """A survivor of a former cluster reaches the coordinator of a new one, which has a node already."""
    cluster, survivor, other = _survivor_of_a_former_cluster()
    cluster.coordinator.start()
    other.start()
    cluster.wait(lambda: cluster.serves(other), 20)
    cluster.mend(survivor, cluster.coordinator)
    cluster.run(10)
    cluster.simulation.settle(10 * S, "with a node of another cluster")


@mutant
def former_id_again() -> list[Change]:
    """A coordinator takes back a cluster id that it has given up, for a node that still bears it."""
    return [(PendingJoins, "is_given_up", lambda self, cluster: False)]


@drill
def drill_former_id_again() -> None:
    """The store is lost. A new node joins before the former ones do, and does not hear that its id was wrong."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    coordinator = cluster.coordinator
    former = list(cluster.simulation.nodes)
    cluster.crash(coordinator)
    cluster.simulation.store.wipe()
    coordinator.new_cluster = False
    for node in former:
        cluster.cut(node, coordinator, 1)
    coordinator.start()
    cluster.simulation.add_node()
    added = cluster.simulation.nodes[-1]
    cluster.wait(lambda: cluster.is_joined(added) and cluster.knows(added), 0.9)
    cluster.silence(coordinator, added, 3)
    cluster.break_connections(added, coordinator)
    cluster.run(20)
    cluster.demand(held.outcome == "held", "LOSS", f"the former nodes had to begin again: {held.outcome}")


@mutant
def late_join() -> list[Change]:
    """A former life of a node may join after a later one."""

    def changed(join: Join, known: Any, is_running: Any) -> Any:
        refusal = not_the_latest(join, known, is_running)
        return None if refusal is not None and refusal.code == "stale" else refusal

    return [(coordinator_core, "not_the_latest", changed)]


@drill
def drill_late_join() -> None:
    """The join of a node's former life arrives while the connection of its present life is broken for a moment."""
    cluster = Scenario(nodes=1)
    node, coordinator = cluster.simulation.nodes[0], cluster.coordinator
    assert node.core is not None
    former = node.core.replica
    cluster.crash(node)
    node.start()
    cluster.quiet()
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.trust_nothing_inside()
    cluster.break_connections(node, coordinator)
    cluster.step(lambda: not cluster.is_joined(node), 1)
    cluster.join_again(former)
    cluster.run(20)
    cluster.demand(held.outcome == "held", "LOSS", f"the only copy was pushed out: {held.outcome}")


@mutant
def two_of_one_id() -> list[Change]:
    """A process may join under the id of a node that is running."""

    def changed(join: Join, known: Any, is_running: Any) -> Any:
        return not_the_latest(join, known, lambda replica: False)

    return [(coordinator_core, "not_the_latest", changed)]


@drill
def drill_two_of_one_id() -> None:
    """A second process is started under the id of the only node."""
    cluster = Scenario(nodes=1, late_nodes=1)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.simulation.add_node("n1")
    cluster.run(20)
    cluster.demand(held.outcome == "held", "LOSS", f"the node at work was pushed out: {held.outcome}")


@mutant
def client_kept_under_former_id() -> list[Change]:
    """A coordinator that learns its cluster's id keeps the clients to which it gave another one."""
    return [(Clients, "pop_misled", lambda self, cluster: [])]


@drill
def drill_client_kept_under_former_id() -> None:
    """The store is lost. A new client reaches the coordinator before a node brings back the cluster's id."""
    cluster = Scenario(nodes=1, clients=1)
    node, client, coordinator = (
        cluster.simulation.nodes[0],
        cluster.simulation.clients[0],
        cluster.coordinator,
    )
    for process in (client, coordinator):
        cluster.crash(process)
        cluster.cut(node, process, 2)
    cluster.simulation.store.wipe()
    coordinator.new_cluster = False
    coordinator.start()
    client.start()
    wanted = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(60)
    cluster.demand(
        wanted.outcome == "held", "P7", f"the client stays outside of the cluster: {wanted.outcome}"
    )


@mutant
def older_node_connection() -> list[Change]:
    """A coordinator keeps a node's older connection beside its newer one."""
    return [(Roster, "connections_of", lambda self, node: [])]


@drill
def drill_older_node_connection() -> None:
    """A node comes again on a new connection, and only then the coordinator notices the end of the older one.

    Later another node leaves, and some of its slots have to go to the first one.
    """
    cluster = Scenario()
    cluster.trust_nothing_inside()
    node, leaving, coordinator = cluster.primary(), cluster.third(), cluster.coordinator
    older = node._coordinator
    assert older is not None
    cluster.notice_the_end(node, coordinator)
    cluster.step(lambda: cluster.is_joined(node) and node._coordinator is not older, 1)
    coordinator.post(cluster.simulation.network._noticed, older.other)
    cluster.run(1)
    leaving.drain()
    cluster.run(15)
    cluster.demand(
        not leaving.alive, "P7", f"{leaving.name} cannot leave, since {node.name} gets none of its slots"
    )
