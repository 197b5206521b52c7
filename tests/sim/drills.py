"""Situations made for one rule each: with the rule all holds, without it a checker speaks up.

Random seeds reach them too, but rarely; see `mutants` for the rules.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.scenarios import TTL_MS, Scenario
from tests.sim.world import S

DRILLS: dict[str, Callable[[], None]] = {}


def _drill(run: Callable[[], None]) -> Callable[[], None]:
    DRILLS[run.__name__] = run
    return run


@_drill
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


@_drill
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


@_drill
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


@_drill
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


@_drill
def list_of_one_share() -> None:
    """A client hears of a planned move of its lock before the old primary does, and lists there just then."""
    for seed in range(1, 9):  # the moment is short: not every client's next keepalive falls into it
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


@_drill
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


@_drill
def lost_from_anyone() -> None:
    """A primary that its clients can reach, but nobody else, runs out of what lives on at its successor."""
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
