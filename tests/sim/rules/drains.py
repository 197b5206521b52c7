"""Rules about members that are drained, and about slots that move."""

from __future__ import annotations

from typing import Any

from lockring.core.coordinator.roster import Roster
from lockring.protocol import Drain, Leave
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import Scenario


@mutant
def drain_by_connection() -> list[Change]:
    """A drain that comes on the connection of the node which it is about is taken for that node's own wish to leave."""
    ask = Roster.ask

    def changed(self: Roster, sender: int, order: Any, *rest: Any) -> Any:
        asker = self.node_of(sender)
        if isinstance(order, Drain) and asker is not None and asker.replica.node == order.node:
            order = Leave(order.request)
        return ask(self, sender, order, *rest)

    return [(Roster, "ask", changed)]


@drill
def drill_drain_by_connection() -> None:
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


@mutant
def drain_the_last() -> list[Change]:
    """An operator's drain is begun whether or not another node can take the slots."""
    return [
        (Roster, "_drain_problem", lambda self, *what: None),
        (Roster, "refuse_overtaken_drains", lambda self, *what: []),
    ]


@drill
def drill_drain_the_last() -> None:
    """An operator drains both of two nodes, one after the other; then the first is made active again, and the second
    drained."""
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
    assert operator.answers == ["DrainReply", "last-node", "UndrainReply", "DrainReply"]
    assert cluster.primary() is first
    assert task.outcome == "held"


@mutant
def overtaken_drain() -> list[Change]:
    """An operator's drain that was granted is begun although the other node has left before the state has it."""
    return [(Roster, "refuse_overtaken_drains", lambda self, *what: [])]


@drill
def drill_overtaken_drain() -> None:
    """While the store is slow with one of three nodes' drain, an operator drains the second, and the third has to
    leave."""
    cluster = Scenario(nodes=3, clients=1)
    task = cluster.hold(cluster.simulation.clients[0], cluster.name)[0]
    operator, coordinator = cluster.simulation.operator, cluster.coordinator.address
    cluster.simulation.store.write_delay = S
    operator.drain(cluster.third().name, [coordinator])
    cluster.run(0.5)
    operator.drain(cluster.primary().name, [coordinator])
    cluster.run(0.2)
    cluster.ask_to_leave(cluster.backup())
    cluster.wait(lambda: len(operator.answers) == 2, 10)
    cluster.quiet()
    assert sorted(operator.answers) == ["DrainReply", "last-node"]
    assert task.outcome == "held"


@mutant
def swap_to_the_gone() -> list[Change]:
    """Slots are left to a member whose connection to the coordinator has ended, until its silence says that it
    failed."""
    return [(Roster, "is_connected", lambda self, replica: True)]


@drill
def drill_swap_to_the_gone() -> None:
    """The primary of two nodes has to leave. Just before all would move, the other one ends, and starts again later."""
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
