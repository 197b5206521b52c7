"""Drills for what the coordinator does."""

from __future__ import annotations

import msgspec

from tests.sim.scenarios import TTL_MS, Scenario
from tests.sim.switches import drill
from tests.sim.world import S


@drill
def no_confirm() -> None:
    """A second coordinator takes over while all nodes but a new one stay with the first."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, coordinators=2)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    first, second = cluster.simulation.coordinators
    for node in cluster.simulation.nodes:
        cluster.cut(node, second, 80)
    second.start()
    cluster.run(0.5)
    cluster.simulation.add_node()
    cluster.cut(cluster.simulation.nodes[-1], first, 80)
    cluster.run(60)
    assert held.outcome == "local-deadline"


@drill
def no_restart_wait() -> None:
    """The coordinator restarts while both copies of a slot are cut off from it, with most of their lease before them."""
    cluster = Scenario()
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    coordinator = cluster.simulation.coordinators[0]
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, coordinator, 90)
    cluster.crash(coordinator)
    cluster.run(0.5)
    coordinator.start()
    cluster.run(60)


@drill
def new_without_word() -> None:
    """All servers are started again and know nothing, while the holder of a lock is cut off from them."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    cluster.hold(one, cluster.name, ttl_ms=30_000)
    for process in [*cluster.simulation.nodes, cluster.coordinator]:
        cluster.cut(one, process, 60)
    cluster.make_anew(new_cluster=False)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 50)


def _stopped(*, silent: bool = False) -> Scenario:
    """A cluster of one node that is stopped in order while a client that is cut off holds a lock for long.

    Args:
        silent: whether nothing more of the node reaches the coordinator once its slots are free.
    """
    cluster = Scenario(nodes=1)
    (node,) = cluster.simulation.nodes
    (one, _) = cluster.simulation.clients
    cluster.hold(one, cluster.name, ttl_ms=30_000)
    for process in (node, cluster.coordinator):
        cluster.cut(one, process, 90)
    cluster.run(0.5)
    cluster.ask_to_leave(node)
    cluster.step(lambda: cluster.slot().primary is None, 10)
    if silent:
        cluster.silence(node, cluster.coordinator, 2)
    cluster.run(0.5)
    cluster.crash(node)
    cluster.crash(cluster.coordinator)
    return cluster


def _started_again(cluster: Scenario, seconds: float) -> float:
    """Start it again, let another client ask for the lock, and return how long that takes."""
    (node,) = cluster.simulation.nodes
    cluster.coordinator.start()
    node.start()
    wanted = cluster.simulation.clients[1].take(cluster.name, ttl_ms=TTL_MS)
    return cluster.wait(lambda: wanted.outcome == "held", seconds)


@drill
def farewell_of_another_boot() -> None:
    """A cluster is stopped in order, its machine starts anew with a clock of its own, and a client still holds a lock."""
    cluster = _stopped()
    coordinator = cluster.coordinator
    stored = cluster.simulation.store.state
    assert stored is not None
    assert stored.farewell is not None
    coordinator.boot = "another boot"
    cluster.simulation.store.state = msgspec.structs.replace(
        stored, farewell=msgspec.structs.replace(stored.farewell, until_ns=coordinator.now_ns())
    )
    assert _started_again(cluster, 60) > 25


@drill
def farewell_too_early() -> None:
    """Of a cluster that is stopped in order, the last word of its node on its promises does not come through."""
    cluster = _stopped(silent=True)
    stored = cluster.simulation.store.state
    assert stored is not None
    assert _started_again(cluster, 60) > 25


@drill
def range_again() -> None:
    """Both copies are lost, and the slot is assigned empty."""
    cluster = Scenario()
    client = cluster.simulation.clients[0]
    held = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    for node in (cluster.primary(), cluster.backup()):
        cluster.crash(node)
    cluster.run(45)
    again = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 10)
    assert again.generation > held.generation


@drill
def ack_condemned() -> None:
    """A lone primary comes back while the write that gives its slots away is under way."""
    cluster = Scenario(nodes=2, clients=1)
    simulation = cluster.simulation
    coordinator = simulation.coordinators[0]
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, coordinator, 300)
    backup.start()
    cluster.run(25)
    simulation.store.timeout, simulation.store.write_delay = 9 * S, 8 * S
    core = coordinator.core
    assert core is not None
    cluster.wait(lambda: core._condemned, 15)
    simulation.network.heal()
    cluster.run(5)
    cluster.cut(primary, coordinator, 60)
    cluster.run(10)


@drill
def no_bump() -> None:
    """A coordinator starts while its predecessor's write against a lone primary is under way, and hears that primary."""
    cluster = Scenario(nodes=2, clients=1, coordinators=2)
    simulation = cluster.simulation
    first, second = simulation.coordinators
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, first, 300)
    cluster.cut(backup, second, 300)
    cluster.cut(backup, primary, 300)
    backup.start()
    cluster.run(25)
    simulation.store.timeout, simulation.store.write_delay = 9 * S, 8 * S
    core = first.core
    assert core is not None
    cluster.wait(lambda: core._condemned, 15)
    cluster.run(5.5)
    simulation.store.write_delay = 0
    second.start()
    cluster.run(3)
    # It starts again, and tells of that write; the lone primary does not hear it any more.
    cluster.cut(primary, second, 300)
    cluster.crash(second)
    cluster.mend(backup, second)
    second.start()
    cluster.run(10)


@drill
def orig_gen() -> None:
    """The coordinator's clock is an hour behind its versions while every copy is lost, twice."""
    cluster = Scenario()
    client = cluster.simulation.clients[0]
    cluster.set_back_the_clock(cluster.coordinator)
    for _ in range(2):
        copies = (cluster.primary(), cluster.backup())
        for node in copies:
            cluster.crash(node)
        cluster.run(45)
        task = client.take(cluster.name, ttl_ms=TTL_MS)
        cluster.wait(lambda task=task: task.outcome == "held", 10)
        client.give_back(task)
        for node in copies:
            node.start()
        cluster.quiet()


@drill
def range_ignored() -> None:
    """A primary runs out of generations while it is cut off from the coordinator; then every copy is lost."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    with cluster.short_reservations():
        cluster.set_back_the_clock(cluster.coordinator)
        for _ in range(2):
            copies = (cluster.primary(), cluster.backup())
            cluster.cut(copies[0], cluster.coordinator, 3)
            for _ in range(10):
                task = one.take(cluster.name, ttl_ms=300, wait_ms=100)
                cluster.run(0.2)
                if task.outcome == "held":
                    one.give_back(task)
            for node in copies:
                cluster.crash(node)
            cluster.run(45)
            again = other.take(cluster.name, ttl_ms=300)
            cluster.wait(lambda task=again: task.outcome == "held", 10)
            other.give_back(again)
            for node in copies:
                node.start()
            cluster.quiet()


@drill
def range_of_laggards() -> None:
    """With asynchronous replication a grant never leaves the primary, which dies."""
    cluster = Scenario(replication="async")
    one, other = cluster.simulation.clients
    primary = cluster.primary()
    cluster.silence(primary, cluster.backup(), 60)
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 1)
    cluster.crash(one)
    cluster.crash(primary, power=True)
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 15)


@drill
def version_by_clock() -> None:
    """A coordinator starts again with its clock set back."""
    cluster = Scenario(clients=1)
    cluster.crash(cluster.coordinator)
    cluster.set_back_the_clock(cluster.coordinator)
    cluster.run(1)
    cluster.coordinator.start()
    cluster.quiet()


@drill
def lease_of_config() -> None:
    """A coordinator is started again with a shorter lease configured, while both copies of a slot are cut off from it."""
    cluster = Scenario()
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    coordinator = cluster.coordinator
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, coordinator, 90)
    cluster.crash(coordinator)
    cluster.configure_lease(6)
    cluster.run(0.5)
    coordinator.start()
    cluster.run(25)


@drill
def ask_by_name() -> None:
    """That a learner is in sync is heard late: it was dropped since, and has begun to learn anew."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    coordinator = cluster.coordinator
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    learner.start()
    cluster.run(0.9)
    cluster.silence(learner, coordinator, 60)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(learner, primary, 60)
    cluster.run(3)
    cluster.silence(primary, coordinator, 60)
    cluster.unsilence(learner, primary)
    cluster.step(lambda: cluster.slot().learner is None, 3)
    cluster.silence(primary, learner, 60)
    cluster.unsilence(learner, coordinator)
    cluster.step(lambda: cluster.slot().learner is not None, 1)
    cluster.step(lambda: cluster.knows(learner), 1)
    cluster.unsilence(primary, coordinator)
    cluster.run(2)


@drill
def ring_from_scratch() -> None:
    """Nodes join one by one, leave one by one, and come again."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=3)
    for _ in range(3):
        cluster.simulation.add_node()
        cluster.quiet()
    for node in cluster.simulation.nodes[1:4]:
        node.drain()
        cluster.wait(lambda node=node: not node.alive, 15)
        cluster.quiet()
        node.start()
        cluster.quiet()


@drill
def no_slot_wait() -> None:
    """A backup without an acknowledgement for long takes over at its first word, and restarts at once.

    Reads of the store are slow then, so that it is not acknowledged; the write that makes it primary is not.
    """
    cluster = Scenario(clients=1, late_nodes=1, lease_s=2)
    cluster.be_patient()
    coordinator, store = cluster.coordinator, cluster.simulation.store
    primary, backup = cluster.primary(), cluster.backup()
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=2000)
    store.timeout, store.write_delay = 9 * S, int(2.6 * S)
    cluster.simulation.add_node()
    cluster.run(0.1)
    cluster.cut(backup, coordinator, 60)
    cluster.break_connections(backup, coordinator)
    cluster.run(1.8)
    cluster.cut(primary, backup, 60)
    cluster.break_connections(primary, backup)
    cluster.break_connections(backup, primary)
    cluster.run(0.2)
    cluster.silence(primary, coordinator, 60)
    cluster.run(0.2)
    store.read_delay, store.write_delay = 3 * S, 0
    cluster.mend(backup, coordinator)
    cluster.step(lambda: cluster.primary() is backup, 5)
    cluster.crash(backup)
    backup.start()
    cluster.run(5)


@drill
def restart_empty() -> None:
    """A lone primary restarts while its client has a long lease."""
    cluster = Scenario(nodes=2, clients=1)
    primary = cluster.primary()
    cluster.crash(cluster.backup())
    cluster.run(10)
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    cluster.crash(primary)
    primary.start()
    cluster.run(15)


@drill
def wipe_no_wait() -> None:
    """The store is lost, and the coordinator starts with nothing."""
    cluster = Scenario(clients=1)
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.crash(cluster.coordinator)
    cluster.coordinator.new_cluster = False
    cluster.simulation.store.wipe()
    cluster.coordinator.start()
    cluster.run(12)


@drill
def incarnation_blind() -> None:
    """A lone primary restarts at once; who looks only at its name takes it for the one that had the locks."""
    cluster = Scenario(nodes=1, clients=1)
    primary = cluster.primary()
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    cluster.crash(primary)
    primary.start()
    cluster.run(15)


@drill
def drain_by_connection() -> None:
    """An operator drains the only node, through that node, which passes the request on over its own connection."""
    cluster = Scenario(nodes=1, clients=1)
    task = cluster.hold(cluster.simulation.clients[0], cluster.name)[0]
    node = cluster.primary()
    operator = cluster.simulation.operator
    operator.drain(node.name, [node.address])
    cluster.wait(lambda: operator.answers, 10)
    cluster.run(5)
    assert operator.answers == ["last-node"]
    assert task.outcome == "held"


@drill
def drain_the_last() -> None:
    """An operator drains both of two nodes, one after the other; then the first is made active again, and the second drained."""
    cluster = Scenario(nodes=2, clients=1)
    task = cluster.hold(cluster.simulation.clients[0], cluster.name)[0]
    operator, coordinator = cluster.simulation.operator, cluster.coordinator.address
    first, second = cluster.primary(), cluster.backup()
    for ask, node in (
        (operator.drain, first),
        (operator.drain, second),
        (operator.undrain, first),
        (operator.drain, second),
    ):
        count = len(operator.answers)
        ask(node.name, [coordinator])
        cluster.wait(lambda count=count: len(operator.answers) > count, 10)
        cluster.quiet()
    assert operator.answers == ["Draining", "last-node", "Undrained", "Draining"]
    assert cluster.primary() is first
    assert task.outcome == "held"


@drill
def swap_to_the_gone() -> None:
    """The primary of two nodes is told to leave; just before everything would move, the other one ends, and starts again later."""
    cluster = Scenario(nodes=2, clients=1)
    task = cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)[0]
    primary, backup = cluster.primary(), cluster.backup()
    primary.drain()
    cluster.run(0.9)
    cluster.crash(backup)
    cluster.run(3)
    backup.start()
    cluster.run(40)
    assert not primary.alive
    cluster.demand(task.outcome == "held", "P3", "a lock is lost in a planned move, with one crash beside it")


@drill
def no_store_pause() -> None:
    """The disk under the store is full for a while in which a node dies, and so something is to be written."""
    _full_disk()


@drill
def works_by_reading() -> None:
    """The same: with a pause that never grows, and an end of the trouble that is told after each read."""
    _full_disk()


def _full_disk() -> None:
    cluster = Scenario()
    simulation = cluster.simulation
    core = cluster.coordinator.core
    assert core is not None
    simulation.store.full = True
    cluster.crash(cluster.backup())
    cluster.wait(lambda: not core.is_active, 10)
    before, seconds = simulation.world.stats["store_operations"], 20
    cluster.run(seconds)
    asked = simulation.world.stats["store_operations"] - before
    cluster.demand(asked <= 2 * seconds, "WORK", f"a store that fails was asked {asked} times in {seconds} s")
    told = [each.text for each in core.store_news()]
    cluster.demand(len(told) == 1, "WORK", f"one thing happened to the store, and {len(told)} were told")
    simulation.store.full = False
    cluster.wait(lambda: core.is_active, 3)
    cluster.quiet()
