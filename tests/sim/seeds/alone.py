"""One fault in a cluster that is whole: every lock is usable again within the time to notice plus a second (P7).

Seeds of this kind have good weather, and every slot has its backup when the fault comes, perhaps in the middle of a
planned move. How long a slot may be without service follows from the durations of the seed:

- a primary that is gone is noticed by its connections, or by its silence, which counts as such after `up(T)` on the
  backup's clock, when the backup's promise to it is over as well;
- a copy that is gone is dropped sooner than that;
- a process that is gone may be replaced by one that was gone for the other side only, which has to hear of that
  first: a second.

Without the coordinator nothing is unserved for longer either, for most of its lease; and for any time where another one
takes over.

Where the nodes keep journals, all processes may also end at once and start again a moment later, with a loss of power
where that may be. Then no slot loses its content, and each is served again as soon as after one fault.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from lockring.cluster_state import SlotState
from lockring.core.timing import up
from lockring.slots import SLOTS
from tests.sim.framework.world import MS, Process, S, Violation

if TYPE_CHECKING:
    from tests.sim.framework.node_shell import NodeShell
    from tests.sim.seeds.run import Simulation

FAULTS = ("crash", "power", "freeze", "cut_off", "cut_pair", "no_coordinator")
LEADER_FAULTS = ("no_leader", "leader_power", "leader_freeze", "leader_without_store")
"""These take the place of "no_coordinator" where others stand by."""
LOOK_EVERY = 20 * MS


def unserved_bound(simulation: Simulation) -> int:
    """Longest time for which a slot may be unserved after one fault."""
    timing = simulation.plan.timing
    return up(up(timing.backup_lease_ns)) + timing.takeover_link_grace_ns + S


def one_fault(simulation: Simulation) -> None:
    """Let one thing go wrong, and see how long it takes until every slot is served."""
    world = simulation.world
    rng = world.rng("alone")
    _wait_until_whole(simulation)
    move = rng.choice(("", "drain", "join"))
    if move == "drain" and simulation.plan.nodes > 2:
        rng.choice(simulation.nodes).drain()
    elif move == "join":
        simulation.add_node()
    world.run_until(world.now + rng.randrange(2 * S))
    if not _is_whole(simulation):
        world.stats["alone_not_whole"] += 1
        return
    fault = rng.choice(FAULTS)
    restarts = world.rng("alone with journals")
    if simulation.plan.durability != "none" and restarts.random() < 0.6:
        _restart(simulation, restarts)
        return
    if fault == "no_coordinator" and simulation.plan.standbys:
        fault = rng.choice(LEADER_FAULTS)
    world.stats[f"alone_{fault}"] += 1
    if world.story is not None:
        world.tell("!!", f"one fault: {fault}, {move or 'no move'} under way")
    timing = simulation.plan.timing
    duration = unserved_bound(simulation) + 2 * S
    victim = rng.choice([node for node in simulation.nodes if node.alive])
    if fault == "no_coordinator":
        duration = timing.coordinator_lease_ns * 8 // 10
        _crash(simulation, simulation.coordinators[0], power=False)
    elif fault in LEADER_FAULTS:
        duration += 2 * timing.coordinator_lease_ns
        _lose_the_leader(simulation, fault, duration)
    elif fault in ("crash", "power"):
        _crash(simulation, victim, power=fault == "power")
    elif fault == "freeze":
        victim.pause(duration)
    elif fault == "cut_off":
        for other in simulation.processes():
            if other is not victim:
                _cut(simulation, victim, other, duration)
    else:
        others = [node for node in simulation.nodes if node is not victim]
        _cut(simulation, victim, rng.choice(others), duration)
    watch(simulation, fault, duration, victim if fault in ("freeze", "cut_off") else None)


def _restart(simulation: Simulation, rng: random.Random) -> None:
    """End processes at one instant and start them again; nothing that the journals have may be lost."""
    world, nodes = simulation.world, [node for node in simulation.nodes if node.alive]
    what = rng.choice(("one_node", "all_nodes", "everything"))
    power = simulation.plan.durability == "disk" and rng.random() < 0.5
    gone: list[Process] = [rng.choice(nodes)] if what == "one_node" else list(nodes)
    if what == "everything":
        gone += simulation.coordinators
    world.stats[f"alone_restart_{what}"] += 1
    if world.story is not None:
        world.tell("!!", f"one fault: restart of {what}, {'with' if power else 'without'} the machines")
    assigned_empty, longest = world.stats["assigned_empty"], 0
    for process in gone:
        _crash(simulation, process, power=power)
        downtime = rng.randrange(1, 300 * MS)
        longest = max(longest, downtime)
        world.after(downtime, process.start)
    if power:
        # The coordinator takes the former lives for connected until it notices their silence.
        longest += simulation.plan.timing.member_lease_ns + 2 * S
    watch(simulation, f"restart_{what}", unserved_bound(simulation) + longest + 2 * S, more=longest)
    if world.stats["assigned_empty"] > assigned_empty:
        raise Violation("JOURNAL", f"a slot is assigned empty after a restart of {what}")


def watch(
    simulation: Simulation, fault: str, duration: int, gone: NodeShell | None = None, *, more: int = 0
) -> None:
    """See to it for a while that no slot is unserved for longer than one fault allows, and `more`.

    The right of `gone` by its own clock does not count: it is frozen, or cannot be reached.
    """
    world, bound = simulation.world, unserved_bound(simulation) + more
    end = world.now + duration
    since: dict[int, int] = {}
    longest = f"alone_{fault}_ms_max"
    while world.now < end:
        missing = _unserved_without(simulation, gone)
        since = {slot: since.get(slot, world.now) for slot in missing}
        for slot, begun in since.items():
            gap = world.now - begun
            world.stats[longest] = max(world.stats[longest], gap // MS)
            if gap > bound:
                raise Violation("P7", f"slot {slot} is unserved for {gap / S:.2f} s after {fault}")
        world.run_until(world.now + LOOK_EVERY)


def _unserved_without(simulation: Simulation, gone: NodeShell | None) -> list[int]:
    served = {slot for node in simulation.nodes if node is not gone for slot in node.serving()}
    left = _slots_left_behind(simulation)
    return [slot for slot in range(SLOTS) if slot not in served and slot not in left]


def _slots_left_behind(simulation: Simulation) -> set[int]:
    """The slots with a copy on a node that had to stop, and did so while no coordinator was there to move it.

    That is two faults at once: such a node waits for the coordinator for some seconds only, and its slots then wait.
    """
    state = simulation.store.state
    if state is None or any(each.alive for each in simulation.coordinators):
        return set()
    left = {node.id for node in simulation.nodes if node.draining and not node.alive}

    def has_lost_a_copy(slot: SlotState) -> bool:
        copies = [slot.primary, None if slot.backup is None else slot.backup.replica]
        return any(copy is not None and copy.node in left for copy in copies)

    return {number for number, slot in enumerate(state.slots) if has_lost_a_copy(slot)}


def _wait_until_whole(simulation: Simulation) -> None:
    world = simulation.world
    end = world.now + simulation.recovery_bound()
    while not _is_whole(simulation):
        if world.now > end:
            raise Violation("P7", "not every slot has two copies after a calm start")
        world.run_until(world.now + LOOK_EVERY)


def _is_whole(simulation: Simulation) -> bool:
    """Whether every slot is served, and has a living backup."""
    state = simulation.store.state
    if state is None or simulation.unserved():
        return False
    living = {node.core.replica for node in simulation.nodes if node.core is not None}
    return all(slot.backup is not None and slot.backup.replica in living for slot in state.slots)


def _lose_the_leader(simulation: Simulation, fault: str, duration: int) -> None:
    leader = simulation.store.leader
    assert leader is not None
    process = next(each for each in simulation.coordinators if each.address == leader.address)
    if fault == "leader_freeze":
        process.pause(duration)
    elif fault == "leader_without_store":
        simulation.store.cut(process, duration)
    else:
        _crash(simulation, process, power=fault == "leader_power")


def _crash(simulation: Simulation, process: Process, *, power: bool) -> None:
    simulation.network.process_crashed(process, power=power)
    process.crash()


def _cut(simulation: Simulation, one: Process, other: Process, duration: int) -> None:
    simulation.network.cut(one, other, duration)
    simulation.network.cut(other, one, duration)
