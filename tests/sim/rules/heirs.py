"""Rules about the coordinator and nodes that are back with a journal: which slots they get, and which they keep."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lockring.cluster_state import Copy, Replica, SlotState
from lockring.core.coordinator import reconciler
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.reconciler import _PlanRun
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.transitions import inherited, lives_of, promoted, with_copies
from lockring.core.node.copies import Copies
from lockring.ids import Epoch, SlotNumber, Version
from lockring.slots import slot_of
from tests.sim.framework.node_shell import NodeShell
from tests.sim.rules.held import demand_kept, holding
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant
from tests.sim.scenarios.scenario import Scenario


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
    cluster, held = holding(2)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(primary)
    cluster.wait(lambda: cluster.primary() is backup and cluster.serves(backup), 10)
    cluster.hold(cluster.simulation.clients[1], cluster.names(2)[1], ttl_ms=30_000)
    primary.start()
    demand_kept(cluster, held)


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
    cluster, held = holding(2)
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
    demand_kept(cluster, held)


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
    cluster, _ = holding(2)
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
    demand_kept(cluster, wanted)


@mutant
def kept_slots_released() -> list[Change]:
    """Slots of nodes that keep them in their journals are released when the whole cluster stops."""

    def released(self: Roster) -> frozenset[Replica]:
        return frozenset(self._leaving) if self.is_stopping else frozenset()

    return [(Roster, "released", released)]


@drill
def drill_kept_slots_released() -> None:
    """A lone node asks to leave, and is started again once it has ended."""
    cluster, held = holding(1)
    (node,) = cluster.simulation.nodes
    node.drain()
    cluster.wait(lambda: not node.alive, 30)
    cluster.run(1)
    node.start()
    demand_kept(cluster, held)


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
    cluster, held = holding(2)
    primary = cluster.primary()
    for node in cluster.simulation.nodes:
        cluster.crash(node)
    cluster.run(0.2)
    _start_without_journal(cluster, primary)
    cluster.run(0.3)
    cluster.crash(primary)
    cluster.run(0.2)
    primary.start()
    demand_kept(cluster, held)


def _start_without_journal(cluster: Scenario, node: NodeShell) -> None:
    durability, disk = node.durability, node.disk
    node.durability, node.disk = "none", None
    node.start()
    cluster.wait(lambda: cluster.is_joined(node), 5)
    node.durability, node.disk = durability, disk


@mutant
def backup_dropped_beside_a_silent_primary() -> list[Change]:
    """A dead backup is dropped although its primary may have ended together with it."""
    return [(_PlanRun, "_are_both_away", lambda self, primary, backup: False)]


@drill_by_chance(range(1, 7))
def drill_backup_dropped_beside_a_silent_primary(seed: int) -> None:
    """Primary and backup are killed at one instant. The backup is back when both have failed, the primary never."""
    cluster, held = holding(3, seed=seed)
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node)
    cluster.run(7)
    backup.start()
    demand_kept(cluster, held)


@mutant
def silent_counts_as_connected() -> list[Change]:
    """A connection counts although nothing has come through it for longer than a heartbeat."""
    return [
        (MemberLeases, "is_silent", lambda self, replica, *, now_ns: self.is_failed(replica, now_ns=now_ns))
    ]


@drill_by_chance(range(1, 7))
def drill_silent_counts_as_connected(seed: int) -> None:
    """The machines of primary and backup lose their power at one instant. The primary is back after both have failed,
    the backup never."""
    cluster, held = holding(3, "disk", seed=seed)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node, power=True)
    cluster.run(7)
    primary.start()
    demand_kept(cluster, held)


@mutant
def takeover_before_it_could_serve() -> list[Change]:
    """A backup that began on a journal asks for slots long before the promises of its former life are over."""
    return [(Copies, "_could_serve_soon", lambda self, now_ns: True)]


@drill
def drill_takeover_before_it_could_serve() -> None:
    """All nodes are killed. The backup is back a second before the primary, which then serves at once."""
    cluster, held = holding(2)
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node)
    backup.start()
    cluster.run(1)
    primary.start()
    took_s = cluster.wait(lambda: cluster.serves(primary) or cluster.serves(backup), 10)
    cluster.demand(
        took_s < 0.5, "P7", "a node that is back with its journal waits for promises to its former life"
    )
    demand_kept(cluster, held)


@mutant
def unsettled_gives_way() -> list[Change]:
    """A life that has not settled yet is moved off its slots."""
    return [(_PlanRun, "_is_settling", lambda self, replica: False)]


@drill
def drill_unsettled_gives_way() -> None:
    """Primary and backup are killed at one instant, and the ring does without them. Then the primary is back."""
    cluster, held = holding(4)
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node)
    cluster.run(7)
    stored = cluster.states()
    primary.start()
    demand_kept(cluster, held)
    places = [state.slots[slot_of(cluster.name)].primary for state in stored]
    cluster.demand(
        all(place is not None and place.node == primary.name for place in places),
        "P6",
        "a slot is moved off a node that goes on with its journal, and comes home when it has settled",
    )


@mutant
def settling_without_a_copy() -> list[Change]:
    """The copy of a primary that settles goes to the ring's backup only, though the ring may have but one node."""

    def changed(self: _PlanRun, number: SlotNumber, primary: Replica) -> Any:
        assert self._input.target is not None
        return self._input.target.backup(number)

    return [(_PlanRun, "_place_beside", changed)]


@drill
def drill_settling_without_a_copy() -> None:
    """Primary and backup are killed at one instant, and one node is left. The primary is back for half a second."""
    cluster, held = holding(3)
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node)
    cluster.run(7)
    primary.start()
    cluster.wait(lambda: cluster.serves(primary), 5)
    cluster.run(0.5)
    cluster.crash(primary)
    demand_kept(cluster, held)
