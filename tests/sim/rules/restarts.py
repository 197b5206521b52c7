"""Rules about coordinators that start again, with a past or without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockring.cluster_state import SlotState
from lockring.core.coordinator import reconciler, term
from lockring.core.coordinator import reconciler_runs as planning
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.reconciler import PlanInput
from lockring.core.coordinator.term import Term
from lockring.core.farewells import Farewells
from lockring.ids import Version
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario

_LONG = 1_000 * S


@mutant
def no_restart_wait() -> list[Change]:
    """A new coordinator takes those whom it has not heard for silent since long ago."""

    def unacknowledged_ns(self: MemberLeases, replica: Any, *, now_ns: int) -> int:
        return now_ns - self._acknowledged_at_ns.get(replica, now_ns - _LONG)

    return [
        (MemberLeases, "unacknowledged_ns", unacknowledged_ns),
        *_aged(lambda age_ns, version: lambda of: _LONG),
    ]


@drill
def drill_no_restart_wait() -> None:
    """The coordinator restarts while both copies of a slot are cut off from it, with most of their lease before
    them."""
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


@mutant
def no_slot_wait() -> list[Change]:
    """An assignment of an empty slot looks at its last primary only, not at when its reign began."""
    return _aged(lambda age_ns, version: lambda of: _LONG)


@drill
def drill_no_slot_wait() -> None:
    """A backup without an acknowledgement for long takes over at its first word, and restarts at once.

    Reads of the store are slow then, so that it is not acknowledged; the write that makes it primary is not.
    """
    cluster = Scenario(clients=1, late_nodes=1, lease_s=2)
    cluster.be_patient()
    coordinator, store = cluster.coordinator, cluster.simulation.store
    primary, backup = cluster.primary(), cluster.backup()
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=2000)
    store.in_line = False
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


def _aged(change: Callable[[Any, int], Any]) -> list[Change]:
    """Replace `PlanInput.age_ns` wherever a plan_input is made."""

    def plan(plan_input: PlanInput) -> Any:
        return reconciler.plan(plan_input._replace(age_ns=change(plan_input.age_ns, plan_input.version)))

    return [(planning, "plan", plan)]


@mutant
def restart_empty() -> list[Change]:
    """The slots of a node that restarted, and had the only copy, are assigned empty at once."""
    unacknowledged = MemberLeases.unacknowledged_ns

    def changed(self: MemberLeases, replica: Any, *, now_ns: int) -> int:
        newer = any(
            each.node == replica.node and each.incarnation > replica.incarnation for each in self.settled
        )
        return _LONG if newer else unacknowledged(self, replica, now_ns=now_ns)

    return [(MemberLeases, "unacknowledged_ns", changed), *no_slot_wait()]


@drill
def drill_restart_empty() -> None:
    """A lone primary restarts while its client has a long lease."""
    cluster = Scenario(nodes=2, clients=1)
    primary = cluster.primary()
    cluster.crash(cluster.backup())
    cluster.run(10)
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    cluster.crash(primary)
    primary.start()
    cluster.run(15)


@mutant
def wipe_no_wait() -> list[Change]:
    """A coordinator whose store was lost assigns the slots at once. (To be run with lost stores.)"""

    def forgotten(slot: SlotState, version: Version) -> SlotState:
        return SlotState(version, version, 0, None, None, None, slot.generation_below, slot.generation_below)

    return [(term, "forgotten", forgotten)]


@drill
def drill_wipe_no_wait() -> None:
    """The store is lost, and the coordinator starts with nothing."""
    cluster = Scenario(clients=1)
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.crash(cluster.coordinator)
    cluster.coordinator.new_cluster = False
    cluster.simulation.store.wipe()
    cluster.coordinator.start()
    cluster.run(12)


@mutant
def new_without_word() -> list[Change]:
    """A coordinator that finds nothing in its store takes the cluster for new, though no operator has said so."""
    claim = Term._claim

    def changed(self: Term, stored: Any, now_ns: int, wall_ns: int) -> None:
        self._settings = self._settings._replace(new_cluster=True)
        claim(self, stored, now_ns, wall_ns)

    return [(Term, "_claim", changed)]


@drill
def drill_new_without_word() -> None:
    """All servers are started again and know nothing, while the holder of a lock is cut off from them."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    cluster.hold(one, cluster.name, ttl_ms=30_000)
    for process in [*cluster.simulation.nodes, cluster.coordinator]:
        cluster.cut(one, process, 60)
    cluster.make_anew(new_cluster=False)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 50)


@mutant
def farewell_of_another_boot() -> list[Change]:
    """The word of a stopped cluster on its promises is taken by the clock of another boot."""
    return [(term, "is_trusted", lambda word, boot, now_ns, wall_ns: word is not None)]


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
def drill_farewell_of_another_boot() -> None:
    """A cluster is stopped in order, its machine starts again with another clock, and a client still holds a lock."""
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


@mutant
def farewell_too_early() -> list[Change]:
    """A node's word on its promises counts even if it was given before the last slots were given up."""
    return [(Farewells, "_is_of_all", lambda self, replica, digest: True)]


@drill
def drill_farewell_too_early() -> None:
    """Of a cluster that is stopped in order, the last word of its node on its promises does not come through."""
    cluster = _stopped(silent=True)
    stored = cluster.simulation.store.state
    assert stored is not None
    assert _started_again(cluster, 60) > 25
