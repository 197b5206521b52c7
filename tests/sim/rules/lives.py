"""Rules about the ids of a node's lives: no two of them may be taken for one."""

from __future__ import annotations

from typing import Any

from lockring.journal import incarnations
from tests.sim.rules.held import holding
from tests.sim.rules.switches import Change, drill, mutant


@mutant
def next_life_by_count() -> list[Change]:
    """A life whose clock gives it no later incarnation takes the one after the last that is known."""
    next_incarnation = incarnations.next_incarnation

    def changed(by_clock: Any, chance: int, **known: Any) -> Any:
        del chance
        return next_incarnation(by_clock, 0, **known)

    return [(incarnations, "next_incarnation", changed)]


@drill
def drill_next_life_by_count() -> None:
    """The clock of a lone node is set back. Its second life dies, and an older copy of its journal is put back."""
    cluster, _ = holding(1, "process")
    (node,) = cluster.simulation.nodes
    assert node.disk is not None
    cluster.set_back_the_clock(node)
    older = node.disk.picture()
    cluster.crash(node)
    node.start()
    cluster.wait(lambda: not cluster.simulation.unserved(), 60)
    first, second = cluster.simulation.clients[:2]
    name = cluster.names(2)[1]
    cluster.hold(first, name, ttl_ms=30_000)
    cluster.crash(node)
    node.disk.put_back(older, style="new times")
    node.start()
    second.take(name, ttl_ms=30_000)
    cluster.run(10)
