"""Drills for what copies have."""

from __future__ import annotations

from tests.sim.alone import watch
from tests.sim.node_shell import NodeShell
from tests.sim.scenarios import TTL_MS, Scenario, slot_of
from tests.sim.switches import drill, drill_by_chance
from tests.sim.world import S


@drill_by_chance(range(2, 6))
def no_tenure(seed: int) -> None:
    """A backup is dropped and taken again; what it acknowledged before arrives only then, and what it gets anew does not."""
    cluster = Scenario(nodes=2, clients=1, seed=seed)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(backup, primary, 60)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.slot().backup is None, 5)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(primary, backup, 60)
    cluster.step(lambda: cluster.knows(primary) and cluster.knows(backup), 1)
    cluster.run(0.2)
    assert held.outcome == "held"
    cluster.unsilence(backup, primary)
    cluster.run(2)


@drill
def resume_blind() -> None:
    """A grant that never left the former primary is still there when it becomes its successor's backup."""
    cluster = Scenario(nodes=1, late_nodes=1, slot=2)
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former = cluster.simulation.nodes[0]
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.trust_nothing_inside()
    cluster.wait(lambda: cluster.slot().backup is not None, 5)
    cluster.silence(former, joined, 60)
    cluster.cut(one, joined, 60)
    taken = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.primary() is joined, 5)
    cluster.wait(lambda: not cluster.reigns(former), 5)
    # The hand-over is under way, but lost before it arrives.
    cluster.step(lambda: cluster.reigns(joined), 5)
    cluster.break_connections(former, joined)
    cluster.unsilence(former, joined)
    held = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 5)
    assert taken.outcome == "waiting"
    cluster.run(1)
    cluster.crash(joined)
    cluster.cut(one, joined, 60)
    cluster.run(15)


@drill
def hand_over_blind() -> None:
    """The end of a reign arrives late, at who is about to succeed another since."""
    cluster = Scenario()
    cluster.be_patient()
    former, again, between = cluster.primary(), cluster.backup(), cluster.third()
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    # The primary falls silent, and the end of its reign is under way from now on.
    cluster.silence(former, again, 300)
    cluster.silence(former, cluster.coordinator, 300)
    cluster.wait(lambda: cluster.primary() is again, 5)
    cluster.unsilence(former, cluster.coordinator)
    cluster.wait(lambda: not cluster.reigns(former), 5)
    cluster.silence(again, former, 300)
    cluster.cut(former, between, 300)
    cluster.wait(lambda: cluster.slot().backup is not None and cluster.backup() is between, 60)
    # The second reign ends too, and its primary becomes the backup of the third.
    again.pause(5_000_000_000)
    cluster.wait(lambda: cluster.primary() is between, 5)
    cluster.wait(lambda: cluster.slot().backup is not None and cluster.backup() is again, 60)
    # The third is taken for failed, and not told.
    cluster.cut(between, cluster.coordinator, 60)
    cluster.wait(lambda: cluster.primary() is again, 10)
    cluster.step(lambda: cluster.knows(again), 1)
    cluster.mend(former, again)
    cluster.run(5)


@drill
def order_gen_seq() -> None:
    """A grant that never left the former primary has the same generation as one of its successor."""
    resume_blind()


@drill
def inactive_sync() -> None:
    """The end of a reign arrives when the successor, still bound by its promise, has a new copy already."""
    cluster = Scenario()
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former, successor = cluster.primary(), cluster.backup()
    # Cut off from the coordinator it is replaced, without being told; what it still grants gets nowhere yet.
    cluster.cut(former, cluster.coordinator, 60)
    cluster.run(4.5)
    taken = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: taken.outcome == "held", 1)
    cluster.step(lambda: cluster.primary() is successor, 3)
    cluster.silence(former, successor, 60)
    wanted = other.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(1.2)
    cluster.mend(former, cluster.coordinator)
    cluster.wait(lambda: not cluster.reigns(former), 1)
    cluster.unsilence(former, successor)
    cluster.wait(lambda: wanted.outcome == "held", 5)
    cluster.run(5)


@drill
def clear_on_swap() -> None:
    """A successor dies when its former primary knows of the swap and has nothing of it yet."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, slot=2)
    former = cluster.simulation.nodes[0]
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.step(lambda: cluster.slot().primary is not None and cluster.primary() is joined, 5)
    cluster.silence(joined, former, 60)
    cluster.step(lambda: cluster.knows(former), 1)
    cluster.crash(joined)
    cluster.run(8)
    assert held.outcome == "held"


@drill
def in_sync_nearly() -> None:
    """A lock is granted while a learner has the snapshot from before, and nothing more gets to it."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(learner, primary, 60)
    cluster.step(lambda: _has_table(cluster, learner), 1)
    cluster.silence(primary, learner, 60)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 0.3)
    cluster.unsilence(learner, primary)
    cluster.run(2)


def _has_table(cluster: Scenario, node: NodeShell) -> bool:
    data = None if node.core is None else node.core.slots.get(slot_of(cluster.name))
    return data is not None and data.content is not None


@drill
def answered_when_asked() -> None:
    """A client lists what was granted to it while the backup does not have that yet."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    client.take(cluster.names(2)[0], ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.silence(cluster.primary(), cluster.backup(), 1)
    client.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(0.1)
    client.list_all()
    cluster.run(1)


@drill
def no_ttl_restart() -> None:
    """The primary dies, and a client does not reach its successor for a while."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    cluster.hold(client, cluster.name)
    cluster.run(4)
    cluster.cut(client, cluster.backup(), 5)
    cluster.crash(cluster.primary())
    cluster.run(10)


@drill
def copy_expires() -> None:
    """The primary dies when a lock has been held for longer than its TTL, and was renewed."""
    cluster = Scenario(clients=1)
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=4000)
    cluster.run(6)
    cluster.crash(cluster.primary())
    cluster.run(10)


@drill
def gap_ok() -> None:
    """What tells the backup of a grant is lost with the connection; another grant follows."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, primary, backup = cluster.simulation.clients[0], cluster.primary(), cluster.backup()
    first, second = cluster.names(2)
    cluster.silence(primary, backup, 60)
    client.take(first, ttl_ms=TTL_MS)
    cluster.run(0.1)
    cluster.break_connections(primary, backup)
    cluster.run(0.01)
    cluster.unsilence(primary, backup)
    client.take(second, ttl_ms=TTL_MS)
    cluster.run(5)


@drill
def nobody_takes_over() -> None:
    """A primary's machine loses its power, so that nobody is told."""
    cluster = Scenario()
    cluster.crash(cluster.primary(), power=True)
    watch(cluster.simulation, "power", 10 * S)


@drill
def trim_early() -> None:
    """The end of a reign is handed over before the successor has acknowledged what it says."""
    cluster = Scenario(nodes=1, late_nodes=1, slot=2)
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former = cluster.simulation.nodes[0]
    for client in (one, other):
        cluster.let_go(client, *cluster.hold(client, cluster.name))
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.trust_nothing_inside()
    cluster.step(lambda: cluster.slot().backup is not None, 5)
    # What is acknowledged lets the log be cut; what was sent since then is under way.
    cluster.silence(joined, former, 60)
    other.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(0.008)
    cluster.silence(former, joined, 60)
    cluster.cut(one, joined, 60)
    one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.005)
    cluster.unsilence(joined, former)
    cluster.run(0.005)
    assert cluster.primary() is former
    cluster.wait(lambda: cluster.primary() is joined, 5)
    cluster.wait(lambda: not cluster.reigns(former) and cluster.knows(joined), 5)
    cluster.unsilence(former, joined)
    cluster.wait(lambda: cluster.reigns(joined), 1)
    other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(2)
    cluster.crash(joined)
    cluster.run(15)


@drill
def ack_early() -> None:
    """Nothing gets to the backup when a lock is taken."""
    cluster = Scenario(clients=1)
    cluster.silence(cluster.primary(), cluster.backup(), 1)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(3)


@drill
def snap_any() -> None:
    """A learner gets nothing of the snapshot that it is to begin with."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(learner, primary, 60)
    cluster.step(lambda: cluster.knows(primary) and cluster.knows(learner), 1)
    cluster.silence(primary, learner, 60)
    cluster.unsilence(learner, primary)
    cluster.run(3)


@drill
def learner_late() -> None:
    """A lock is taken when the learner is reported in sync, and only that report gets through."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    client, coordinator = cluster.simulation.clients[0], cluster.coordinator
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.let_go(client, *cluster.hold(client, cluster.name))
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(primary, coordinator, 60)
    cluster.run(0.05)
    cluster.silence(primary, learner, 60)
    client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.05)
    cluster.unsilence(primary, coordinator)
    cluster.run(3)
