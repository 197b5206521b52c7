"""Rules about the coordinator and nodes that are back with a journal: which slots they get, and which they keep."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lockring.cluster_state import Copy, Replica, SlotState
from lockring.core.coordinator import reconciler
from lockring.core.coordinator.reconciler import _PlanRun
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.transitions import inherited, lives_of, promoted, with_copies
from lockring.ids import Epoch, Version
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.workload import Task
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import Scenario


def _holding(nodes: int, durability: Durability = "process") -> tuple[Scenario, Task]:
    """A cluster whose nodes keep journals, with a lock that is held for long."""
    cluster = Scenario(nodes=nodes, durability=durability)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    return cluster, held


def _demand_kept(cluster: Scenario, held: Task) -> None:
    """Demand that a lock is still held once everything is served again."""
    cluster.wait(lambda: not cluster.simulation.unserved(), 60)
    cluster.run(12)
    cluster.demand(held.outcome == "held", "LOSS", "a lock is lost that a journal has")


@mutant
def heir_of_another_copy() -> list[Change]:
    """A node that is back gets a slot although the state no longer names its former life there."""
    bequeathed = _PlanRun._bequeathed

    def changed(self: _PlanRun, slot: SlotState) -> SlotState:
        after = bequeathed(self, slot)
        heirs: Any = getattr(self._input.heir_of, "__self__", None)
        if after is not slot or slot.primary is None or heirs is None:
            return after
        places = [life.node for life in lives_of(slot)]
        for heir in dict.fromkeys(heirs.lives()):
            if heir.node not in places and not self._is_dead(heir):
                return inherited(slot, self._input.version, heir, slot.primary, lagging=False)
        return slot

    return [(_PlanRun, "_bequeathed", changed)]


@drill
def drill_heir_of_another_copy() -> None:
    """A backup takes over from a primary that is killed, and grants another lock. Then the primary is back."""
    cluster, held = _holding(2)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(primary)
    cluster.wait(lambda: cluster.primary() is backup and cluster.serves(backup), 10)
    cluster.hold(cluster.simulation.clients[1], cluster.names(2)[1], ttl_ms=30_000)
    primary.start()
    _demand_kept(cluster, held)


@mutant
def learner_bequeaths() -> list[Change]:
    """The heir of a life that was catching up counts as in sync."""
    bequeathed = _PlanRun._bequeathed

    def changed(self: _PlanRun, slot: SlotState) -> SlotState:
        heir = None if slot.learner is None else self._heir_of(slot.learner.replica)
        if slot.learner is None or heir is None or slot.backup is not None:
            return bequeathed(self, slot)
        return with_copies(slot, self._input.version, Copy(heir, slot.learner.joined), None)

    return [(_PlanRun, "_bequeathed", changed)]


def _is_learning(cluster: Scenario, node: NodeShell) -> bool:
    learner = cluster.slot().learner
    return learner is not None and node.core is not None and learner.replica == node.core.replica


@drill
def drill_learner_bequeaths() -> None:
    """A learner that its primary does not reach is killed, and starts again; then the primary's machine is gone."""
    cluster, held = _holding(2)
    cluster.be_patient()
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.wait(lambda: cluster.slot().backup is None, 10)
    learner.start()
    cluster.silence(primary, learner, 60)
    cluster.wait(lambda: _is_learning(cluster, learner), 10)
    cluster.crash(learner)
    learner.start()
    cluster.run(0.3)
    cluster.crash(primary)
    cluster.run(3)
    primary.start()
    cluster.unsilence(primary, learner)
    _demand_kept(cluster, held)


@mutant
def heir_in_the_former_reign() -> list[Change]:
    """The heir of a primary goes on in the former life's reign, where it counts the mutations from 1 again."""

    def changed(
        slot: SlotState, version: Version, heir: Replica, backup: Replica | None, *, lagging: bool
    ) -> SlotState:
        return replace(slot, epoch=Epoch(version), primary=heir, learner=None)

    return [(reconciler, "inherited", changed)]


@drill
def drill_heir_in_the_former_reign() -> None:
    """A primary is killed and is back before its backup takes over; it grants another lock, and is killed again."""
    cluster, _ = _holding(2)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.hold(cluster.simulation.clients[0], *cluster.names(5)[2:], ttl_ms=30_000)
    cluster.crash(primary)
    cluster.run(0.1)
    primary.start()
    cluster.wait(lambda: cluster.serves(primary), 10)
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(3)
    cluster.demand(wanted.outcome == "held", "P7", "a restarted primary does not grant")
    cluster.crash(primary)
    cluster.wait(lambda: cluster.primary() is backup and cluster.serves(backup), 10)
    _demand_kept(cluster, wanted)


@mutant
def kept_slots_released() -> list[Change]:
    """Slots of nodes that keep them in their journals are released when the whole cluster stops."""

    def released(self: Roster) -> frozenset[Replica]:
        return frozenset(self._leaving) if self.is_stopping else frozenset()

    return [(Roster, "released", released)]


@drill
def drill_kept_slots_released() -> None:
    """A lone node asks to leave, and is started again once it has ended."""
    cluster, held = _holding(1)
    (node,) = cluster.simulation.nodes
    node.drain()
    cluster.wait(lambda: not node.alive, 30)
    cluster.run(1)
    node.start()
    _demand_kept(cluster, held)


@mutant
def promoted_while_away() -> list[Change]:
    """A backup is promoted although it has no connection, where the primary's node may be back before it."""
    without_primary = _PlanRun._without_primary

    def changed(self: _PlanRun, number: Any, slot: SlotState) -> SlotState:
        backup = slot.backup
        if slot.primary is not None and backup is not None and not self._is_dead(backup.replica):
            self._depose(slot.primary)
            return promoted(slot, self._input.version, lagging=self._lagging)
        return without_primary(self, number, slot)

    return [(_PlanRun, "_without_primary", changed)]


@drill
def drill_promoted_while_away() -> None:
    """All nodes are killed. The primary is started without its journal by mistake, then with it; the backup is gone."""
    cluster, held = _holding(2)
    primary = cluster.primary()
    for node in cluster.simulation.nodes:
        cluster.crash(node)
    cluster.run(0.2)
    _start_without_journal(cluster, primary)
    cluster.run(0.3)
    cluster.crash(primary)
    cluster.run(0.2)
    primary.start()
    _demand_kept(cluster, held)


def _start_without_journal(cluster: Scenario, node: NodeShell) -> None:
    durability, disk = node.durability, node.disk
    node.durability, node.disk = "none", None
    node.start()
    cluster.wait(lambda: cluster.is_joined(node), 5)
    node.durability, node.disk = durability, disk
