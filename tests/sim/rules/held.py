"""Held locks in clusters whose nodes keep journals: what drills of several kinds of rules begin with, and demand."""

from __future__ import annotations

from tests.sim.framework.disk import SimDisk
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.workload import Task
from tests.sim.scenarios.scenario import Scenario


def holding(nodes: int, durability: Durability = "process", *, seed: int = 1) -> tuple[Scenario, Task]:
    """Begin a cluster whose nodes keep journals, with a lock that is held for long."""
    cluster = Scenario(nodes=nodes, durability=durability, seed=seed)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    return cluster, held


def demand_kept(cluster: Scenario, held: Task) -> None:
    """Demand that a lock is still held once everything is served again."""
    cluster.wait(lambda: not cluster.simulation.unserved(), 60)
    cluster.run(12)
    cluster.demand(held.outcome == "held", "LOSS", "a lock is lost that a journal has")


def disk_of(node: NodeShell) -> SimDisk:
    """Return the disk of a node that keeps a journal."""
    assert node.disk is not None
    return node.disk
