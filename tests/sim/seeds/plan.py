"""The plan that a seed draws before its run: the processes, the proportions of time, and the faults."""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.timing import Timing
from lockring.slots import SLOTS, slot_of
from tests.sim.framework.groups import GroupHabits, draw_group
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.workload import Habits
from tests.sim.framework.world import MS, S, World
from tests.sim.seeds.faults import JOURNAL_KINDS, KINDS, SHARED_STORE_KINDS


class Plan(NamedTuple):
    """All that a seed decides before the run begins. Durations in ns.

    Attributes:
        nodes, clients, coordinators: how many of each.
        timing: of every process.
        replication: "sync" or "async".
        habits: of the clients.
        kinds: of faults.
        gap: usual time between two faults.
        trouble: length of the time with faults.
        late_nodes: how many nodes may join later.
        wipe: whether the store may be lost.
        alone: whether there is only one fault (see `alone`).
        standbys: whether the store names a leader among the coordinators; else each claims the term when it starts.
        group: habits of the members of a group, None in most runs.
        durability: whether the nodes keep journals, and what their answers wait for.
        sprint: whether it is a small cluster, whose troubles follow fast, and which is not looked at for long
            afterwards.
    """

    nodes: int
    clients: int
    coordinators: int
    timing: Timing
    replication: str
    habits: Habits
    kinds: list[str]
    gap: int
    trouble: int
    late_nodes: int
    wipe: bool
    alone: bool = False
    sprint: bool = False
    standbys: bool = False
    group: GroupHabits | None = None
    durability: Durability = "none"


def names_in(slots: list[int], count: int) -> tuple[str, ...]:
    """Lock names that fall into the given slots."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"lock-{number}"
        if slot_of(name) in slots:
            found.append(name)
        number += 1
    return tuple(found)


def timing_of(lease: int, backup_lease: int) -> Timing:
    """Durations that fit the two leases, in the proportions of the defaults or faster."""
    return Timing(
        backup_lease_ns=backup_lease,
        coordinator_lease_ns=lease,
        heartbeat_ns=min(S, lease // 6),
        peer_heartbeat_ns=backup_lease // 4,
        link_grace_ns=min(250 * MS, backup_lease // 4),
        takeover_link_grace_ns=min(700 * MS, backup_lease // 3),
        member_lease_ns=min(5 * S, max(lease // 3, backup_lease)),
        stabilization_ns=min(S, lease // 4),
        group_window_ns=min(S, lease // 10),
        group_window_max_ns=min(5 * S, lease // 2),
        reconcile_ns=50 * MS,
        stall_ns=100 * MS,
    )


THEMES: tuple[tuple[str, ...], ...] = (
    ("split",),
    ("cut_coordinator", "cut_coordinator", "node_crash"),
    ("cut_one_way", "node_pause"),
    ("coordinator_crash", "cut_coordinator", "both_crash"),
    ("drain", "join", "reweigh", "cut_one_way", "client_pause"),
    ("slow_store", "cut_store", "coordinator_crash", "cut_coordinator"),
    ("client_pause", "cut_one_way", "resets"),
    ("resets", "node_pause", "node_quick_restart"),
)
"""Troubles that go together; half of the seeds are about one of them, the others about any."""


def draw_durability(world: World) -> Durability:
    """Return whether the nodes of this seed keep journals: two of five do."""
    return world.rng("durability").choices(("none", "process", "disk"), (60, 20, 20))[0]


def draw_plan(world: World, *, wipe: bool | None = None) -> Plan:
    """Return the plan of this seed."""
    rng = world.rng("plan")
    sprint = rng.random() < 0.75
    # Most are short, in the proportions of the defaults: a run takes as long as its leases, and finds as much.
    lease = rng.choice((S, S, S, 2 * S, 2 * S, 3 * S, 4 * S)) if rng.random() < 0.98 else 30 * S
    if sprint:
        lease = rng.choice((S, S, 2 * S))
    backup_lease = min(2 * S, lease // rng.choice((2, 2, 2, 3, 3, 4, 6)))
    timing = timing_of(lease, backup_lease)
    nodes = rng.choice((1, 2, 2, 3, 3, 3) if sprint else (1, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 5))
    slots = rng.sample(range(SLOTS), min(SLOTS, rng.choice((1, 1, 2, 3))))
    lease_ms = lease // MS
    shortest = min(lease_ms, max(100, lease_ms // 10))
    ttls = tuple(
        rng.choice((shortest, lease_ms // 3, lease_ms // 2, lease_ms // 2, lease_ms, lease_ms))
        for _ in range(rng.choice((1, 1, 2)))
    )
    habits = Habits(
        names=names_in(slots, rng.choice((1, 1, 2, 3))),
        ttls_ms=ttls,
        tasks=rng.choice((1, 1, 2, 3)),
        think_max=rng.choice((20 * MS, 300 * MS, S)),
        hold_max=rng.choice((100 * MS, 500 * MS, 2 * S, min(lease, 5 * S))),
        try_once=rng.choice((0.0, 0.1)),
        impatient=rng.choice((0.0, 0.2)),
        cancel=rng.choice((0.0, 0.1)),
    )
    also = world.rng("modes")
    habits = habits._replace(shared=also.choice((0.0, 0.0, 0.3, 0.7)), watched=also.choice((0, 0, 1, 3)))
    if wipe is None:
        wipe = rng.random() < 0.08
    kinds = list(rng.choice(THEMES)) if rng.random() < 0.5 else rng.sample(KINDS, rng.randrange(2, 9))
    late_nodes = 2 if "join" in kinds else 0
    if wipe:
        # Generations are above the clock then, so that it must not go back, nor time be lost twice within a second.
        kinds = [kind for kind in kinds if kind != "wall_jump"] + ["wipe"]
    durability = draw_durability(world)
    if durability != "none":
        also = world.rng("journal")
        some = also.sample(JOURNAL_KINDS, also.randrange(1, 5))
        kinds = some if also.random() < 0.3 else kinds + some
    alone = not wipe and rng.random() < 0.1
    if alone:
        nodes, late_nodes = max(2, nodes), 1
    trouble = min(lease, 20 * S) + rng.randrange(S, 3 * S)
    if sprint:
        trouble = rng.randrange(S // 2, 2 * S)
    elif rng.random() < 0.1:
        trouble = 3 * trouble
    clients = rng.choice((1, 2, 2) if sprint else (1, 2, 2, 3, 4))
    coordinators = 1 if alone else rng.choice((1, 1, 2))
    leading = world.rng("standbys")
    standbys = (coordinators > 1 or alone) and leading.random() < 0.7
    if standbys:
        coordinators = leading.choice((2, 3))
        kinds += leading.sample(SHARED_STORE_KINDS, leading.choice((0, 1, 2, 3)))
    return Plan(
        nodes=nodes,
        clients=clients,
        coordinators=coordinators,
        timing=timing,
        replication=rng.choice(("sync",) * 14 + ("async",)),
        habits=habits,
        kinds=kinds,
        gap=rng.choice((100 * MS, 200 * MS, 300 * MS) if sprint else (200 * MS, 500 * MS, 500 * MS, S)),
        trouble=trouble,
        late_nodes=late_nodes,
        wipe=wipe,
        alone=alone,
        sprint=sprint,
        standbys=standbys,
        group=draw_group(world, slots, ttls),
        durability=durability,
    )
