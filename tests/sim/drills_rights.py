"""Drills for who may serve, and until when."""

from __future__ import annotations

from tests.sim.scenarios import TTL_MS, Scenario
from tests.sim.switches import drill, drill_by_chance


@drill
def peer_ack_older() -> None:
    """A node joins and takes a slot over; the former primary acknowledges without knowing of that, and gets it back."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, member_lease_s=3, slot=2)
    cluster.be_patient()
    former = cluster.simulation.nodes[0]
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.wait(lambda: cluster.slot().backup is not None, 5)
    # The former primary hears nothing of the swap, and its successor nothing of the former primary.
    cluster.silence(cluster.coordinator, former, 60)
    cluster.step(lambda: cluster.primary() is joined, 5)
    cluster.silence(joined, cluster.coordinator, 60)
    cluster.silence(former, joined, 60)
    cluster.step(lambda: cluster.knows(joined), 1)
    cluster.silence(cluster.coordinator, joined, 60)
    # Its reign begins, and its first message gets through; the news that would follow does not.
    cluster.step(lambda: cluster.reigns(joined), 5)
    cluster.silence(joined, former, 60)
    cluster.unsilence(former, joined)
    cluster.run(0.05)
    # Taken for failed by now, it is replaced by the former primary, who hears only of that.
    cluster.wait(lambda: cluster.primary() is former, 5)
    cluster.break_connections(former, cluster.coordinator)
    cluster.mend(cluster.coordinator, former)
    cluster.wait(lambda: cluster.serves(former), 5)


@drill
def coordinator_ack_newer() -> None:
    """A lone primary comes back just after its slots were given to another, and the news of that is late."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, cluster.coordinator, 300)
    backup.start()
    cluster.wait(lambda: cluster.primary() is backup, 60)
    cluster.break_connections(backup, cluster.coordinator)
    cluster.wait(lambda: cluster.serves(backup), 5)
    cluster.mend(cluster.coordinator, primary)
    cluster.run(3)


@drill
def no_ttl_cap() -> None:
    """A lone primary is cut off from the coordinator while a client with the longest TTL renews at it."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=30_000)
    cluster.run(1)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, cluster.simulation.coordinators[0], 200)
    backup.start()
    cluster.run(80)


@drill
def orig_swap() -> None:
    """A draining primary hears neither of the swap nor of its successor, who is rid of it soon."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    former.drain()
    cluster.run(0.5)
    cluster.silence(cluster.coordinator, former, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.step(lambda: cluster.primary() is successor, 5)
    cluster.step(lambda: cluster.knows(successor), 1)
    cluster.cut(former, successor, 60)
    cluster.break_connections(successor, former)
    cluster.run(3)


@drill_by_chance(range(1, 6))
def drop_unasked(seed: int) -> None:
    """A primary can reach neither its backup nor, with what it asks, the coordinator."""
    cluster = Scenario(clients=1, seed=seed)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(primary, cluster.coordinator, 30)
    cluster.cut(primary, backup, 30)
    cluster.run(10)
    assert cluster.primary() is backup


@drill
def no_backup_lease() -> None:
    """A primary is cut off from everybody, and its backup takes over."""
    cluster = Scenario(clients=1)
    primary = cluster.primary()
    for process in [*cluster.simulation.nodes, cluster.coordinator]:
        if process is not primary:
            cluster.cut(primary, process, 20)
    cluster.run(10)


@drill
def no_coordinator_lease() -> None:
    """Both copies of a slot are cut off from the coordinator, until it is assigned anew."""
    cluster = Scenario(clients=1)
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, cluster.coordinator, 60)
    cluster.run(50)


@drill
def no_wait() -> None:
    """A primary is cut off from the coordinator, which promotes its backup; the two reach each other."""
    cluster = Scenario(clients=1)
    cluster.cut(cluster.primary(), cluster.coordinator, 60)
    cluster.run(15)


@drill
def peer_ack_newer() -> None:
    """As for `no_wait`, and what the backup knows does not get to the former primary, but what it acknowledges does."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    cluster.cut(former, cluster.coordinator, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.run(0.28)
    cluster.silence(successor, former, 60)
    cluster.run(5)


@drill
def stale_now() -> None:
    """A primary is stopped in the middle of a turn, for longer than its lease."""
    cluster = Scenario(clients=1)
    cluster.stop_in_a_turn(cluster.primary(), 4)
    cluster.run(20)


@drill
def lease_from_ack() -> None:
    """What the backup acknowledges arrives only when the primary's lease is nearly over."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    for process in (cluster.third(), cluster.coordinator):
        cluster.cut(primary, process, 60)
    cluster.run(0.5)
    cluster.delay(backup, primary, 1.2)
    cluster.run(0.45)
    cluster.cut(primary, backup, 60)
    cluster.run(6)


@drill
def state_any() -> None:
    """A former primary hears once more of the state in which it had the slot alone."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, slot=2)
    former = cluster.simulation.nodes[0]
    states = cluster.states()
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.simulation.add_node()
    cluster.quiet()
    joined = cluster.simulation.nodes[1]
    assert cluster.primary() is joined
    old = next(each for each in states if each.slots[2].primary is not None)
    cluster.cut(former, cluster.coordinator, 20)
    cluster.silence(joined, former, 20)
    cluster.tell_again(former, old)
    cluster.run(5)


@drill
def no_drift() -> None:
    """As for `peer_ack_newer`, and the successor's clock is nearly 5 % faster than the former primary's."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    cluster.set_clock_rate(former, 0)
    cluster.set_clock_rate(successor, 49_000)
    cluster.cut(former, cluster.coordinator, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.step(lambda: cluster.knows(successor), 1)
    cluster.silence(successor, former, 60)
    cluster.run(5)
