"""Restarts of nodes with journals while something else is under way: a move, a change of leader, other restarts,
drains, and failing disks.

Each ends with all locks held under the tokens that they had. The bounds are these:

- A copy that is back with the word of its journal and needs no other node serves within `AT_ONCE_S`.
- Where a slot's other copy is missing, it takes `ALONE_S`: a backup waits for the promises of its former life, 2.1 s
  from its start, and a primary does without a copy that it has not reached for 2 s.
- A new leader decides within `LEADS_S`, and nothing else is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Final

import pytest

from lockring.cluster_state import ClusterState, SlotState
from lockring.ids import NodeId
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.workload import Task
from tests.sim.framework.world import Process, S
from tests.sim.scenarios.scenario import TTL_MS, Scenario
from tests.sim.seeds.plan import names_in

AT_ONCE_S: Final = 0.3
"""A join, a write of the store, and the first messages between copies."""

ALONE_S: Final = 2.5
"""A promise of a former life, or the first contact with a copy; then a write of the store, and the news of it."""

FAILED_S: Final = 5 + 1.1
"""A member lease of silence, and the next heartbeat of another node."""

LEADS_S: Final = 5.0
"""Within this time after the end of a leader another one decides."""

TTL_LONG_MS: Final = 30_000


class Kept:
    """A cluster with journals under which locks are held in all slots.

    Attributes:
        cluster: the cluster.
        names: of the locks.
        held: the locks.
        tokens: theirs at first.
    """

    def __init__(
        self, *, nodes: int = 3, late_nodes: int = 0, coordinators: int = 1, ttl_ms: int = TTL_MS
    ) -> None:
        self.cluster = Scenario(
            nodes=nodes,
            late_nodes=late_nodes,
            coordinators=coordinators,
            standbys=coordinators > 1,
            durability="process",
        )
        client = self.cluster.simulation.clients[0]
        slots = range(len(self.state.slots))
        self.names = [name for number in slots for name in names_in([number], 3)]
        self.held: list[Task] = self.cluster.hold(client, *self.names, ttl_ms=ttl_ms)
        self.tokens = [task.generation for task in self.held]

    @property
    def nodes(self) -> list[NodeShell]:
        """All nodes."""
        return self.cluster.simulation.nodes

    @property
    def state(self) -> ClusterState:
        """The stored state."""
        state = self.cluster.simulation.store.state
        assert state is not None
        return state

    def watch_slot(self, number: int) -> None:
        """Make a slot the one that `Scenario` speaks of."""
        self.cluster.name = self.names[3 * number]

    def restart(self, *processes: Process, after_s: float = 0.05) -> None:
        """Kill processes at one instant, and start them again."""
        for process in processes:
            self.cluster.crash(process)
        self.cluster.run(after_s)
        for process in processes:
            process.start()

    def served_after(self, seconds: float = 60) -> float:
        """Wait until every slot is served, and return how long that takes."""
        return self.cluster.wait(lambda: not self.cluster.simulation.unserved(), seconds)

    def demand_kept(self) -> None:
        """Fail unless all locks stay held, each under its token, and can be released and acquired again."""
        cluster, (one, other) = self.cluster, self.cluster.simulation.clients
        cluster.quiet()
        cluster.run(TTL_MS / 1000 + 5)
        assert {task.outcome for task in self.held} == {"held"}
        assert [task.generation for task in self.held] == self.tokens
        assert cluster.world.stats["assigned_empty"] == 0
        assert cluster.world.stats["lost"] == 0
        first = self.held[0]
        cluster.let_go(one, first)
        (next_one,) = cluster.hold(other, self.names[0])
        assert next_one.generation > first.generation


# ----------------------------------------------------------------------- during a planned move


class Move:
    """A slot on its way to a node that has joined, stopped at a stage.

    Attributes:
        kept: the cluster.
        source: the primary before.
        target: the node that has joined.
        backup: the backup before.
    """

    def __init__(self, stage: str) -> None:
        self.kept = Kept(late_nodes=1)
        cluster = self.kept.cluster
        before = self.kept.state
        cluster.simulation.add_node()
        self.target = cluster.simulation.nodes[-1]
        reached = STAGES[stage]
        number: list[int] = []

        def found() -> bool:
            for each, (was, slot) in enumerate(zip(before.slots, self.kept.state.slots, strict=True)):
                if reached(was, slot, self.target):
                    number[:] = [each]
                    return True
            return False

        cluster.step(found, 10)
        primary, backup = before.slots[number[0]].primary, before.slots[number[0]].backup
        assert primary is not None
        assert backup is not None
        self.kept.watch_slot(number[0])
        self.source = cluster.node(primary.node)
        self.backup = cluster.node(backup.replica.node)


def _is_learning(was: SlotState, slot: SlotState, target: NodeShell) -> bool:
    return (
        slot.learner is not None and slot.learner.replica.node == target.name and slot.primary == was.primary
    )


def _is_in_sync(was: SlotState, slot: SlotState, target: NodeShell) -> bool:
    return slot.backup is not None and slot.backup.replica.node == target.name and slot.primary == was.primary


def _is_swapped(was: SlotState, slot: SlotState, target: NodeShell) -> bool:
    return slot.primary is not None and slot.primary.node == target.name


STAGES: Final[dict[str, Callable[[SlotState, SlotState, NodeShell], bool]]] = {
    "the target begins to learn": _is_learning,
    "the target is in sync": _is_in_sync,
    "the swap is written, and no node knows it": _is_swapped,
}


@pytest.mark.parametrize("after_s", [0.0, 0.002])
@pytest.mark.parametrize("victim", ["source", "target", "backup", "source and target", "all"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_restart_at_any_stage_of_a_planned_move_loses_nothing(
    stage: str, victim: str, after_s: float
) -> None:
    move = Move(stage)
    move.kept.cluster.run(after_s)
    victims = {
        "source": [move.source],
        "target": [move.target],
        "backup": [move.backup],
        "source and target": [move.source, move.target],
        "all": move.kept.nodes,
    }[victim]
    move.kept.restart(*victims)
    assert move.kept.served_after() < ALONE_S
    move.kept.demand_kept()


# ----------------------------------------------------------------------- while the leading coordinator changes


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("restarted", ["primary", "all"])
def test_a_leader_that_dies_around_its_adoption_of_restarted_nodes_is_followed_by_one_that_adopts_them(
    moment: str, restarted: str
) -> None:
    kept = Kept(coordinators=3)
    cluster = kept.cluster
    leader = cluster.leader()
    nodes = [cluster.primary()] if restarted == "primary" else kept.nodes
    states = cluster.states()
    if moment == "before":
        # The leader never gets an answer to its write, which is not done either.
        cluster.simulation.store.cut(leader, 60 * S)
    kept.restart(*nodes)
    first = nodes[0]
    if moment == "before":
        cluster.run(0.1)
        cluster.crash(leader)
        assert not any(_names(state, first) for state in states)
    else:
        cluster.step(lambda: _names(states[-1], first), 2)
        cluster.crash(leader)
    took = kept.served_after()
    assert took < LEADS_S + ALONE_S
    kept.demand_kept()


def _names(state: ClusterState, node: NodeShell) -> bool:
    """Whether a state names the present life of a node in some slot."""
    life = None if node.core is None else node.core.replica
    return any(slot.primary == life for slot in state.slots)


# ----------------------------------------------------------------------- one after the other


@pytest.mark.parametrize("gap_s", [0.1, 0.5, 0.8, 1.2, 2, 5])
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_nodes_of_a_restarted_cluster_may_come_back_in_any_order(
    order: tuple[int, ...], gap_s: float
) -> None:
    kept = Kept(ttl_ms=TTL_LONG_MS)
    cluster, before = kept.cluster, kept.state
    started: dict[str, int] = {}
    served: dict[int, int] = {}

    def watch() -> bool:
        for node in kept.nodes:
            for number in node.serving():
                served.setdefault(number, cluster.world.now)
        return len(served) == len(before.slots)

    for node in kept.nodes:
        cluster.crash(node)
    cluster.run(0.2)
    for number in order:
        node = kept.nodes[number]
        node.start()
        started[node.name] = cluster.world.now
        until = cluster.world.now + int(gap_s * S)
        cluster.wait(lambda until=until: watch() or cluster.world.now >= until, gap_s + 1)
    cluster.wait(watch, 10)
    for number, slot in enumerate(before.slots):
        assert slot.primary is not None
        assert slot.backup is not None
        primary_s, backup_s = started[slot.primary.node] / S, started[slot.backup.replica.node] / S
        first_s, both_s = min(primary_s, backup_s), max(primary_s, backup_s)
        # The first of the two needs not wait for the other, and does not if that takes longer.
        bound_s = min(both_s + AT_ONCE_S, first_s + ALONE_S)
        if both_s - first_s > 1.6:
            bound_s = first_s + ALONE_S
        assert served[number] / S <= bound_s, f"slot {number}: {slot}"
    kept.demand_kept()


@pytest.mark.parametrize("gap_s", [0.0, 0.005, 0.05, 0.3])
@pytest.mark.parametrize("which", ["primary", "backup", "both", "all"])
def test_two_restarts_within_a_heartbeat_lose_nothing(which: str, gap_s: float) -> None:
    kept = Kept()
    cluster = kept.cluster
    primary, backup = cluster.primary(), cluster.backup()
    nodes = {"primary": [primary], "backup": [backup], "both": [primary, backup], "all": kept.nodes}[which]
    kept.restart(*nodes, after_s=0.02)
    cluster.run(gap_s)
    kept.restart(*nodes, after_s=0.02)
    assert kept.served_after() < (AT_ONCE_S if which == "all" else ALONE_S)
    kept.demand_kept()


@pytest.mark.parametrize("first", ["primary", "backup"])
def test_a_copy_that_ended_with_the_other_is_not_given_up_while_both_are_away(first: str) -> None:
    kept = Kept(ttl_ms=TTL_LONG_MS)
    cluster = kept.cluster
    primary, backup = cluster.primary(), cluster.backup()
    for node in (primary, backup):
        cluster.crash(node)
    cluster.run(FAILED_S)
    (primary if first == "primary" else backup).start()
    assert kept.cluster.wait(lambda: cluster.serves(primary) or cluster.serves(backup), 10) < ALONE_S
    cluster.run(5)
    (backup if first == "primary" else primary).start()
    kept.demand_kept()


# ----------------------------------------------------------------------- during a drain


@pytest.mark.parametrize("after_s", [0.001, 0.02, 0.06, 0.1, 0.3])
@pytest.mark.parametrize("by_operator", [False, True])
def test_a_node_that_restarts_while_it_is_drained_is_drained_on_and_loses_nothing(
    by_operator: bool, after_s: float
) -> None:
    kept = Kept()
    cluster = kept.cluster
    node = cluster.primary()
    if by_operator:
        cluster.simulation.operator.drain(node.id, [cluster.coordinator.address])
    else:
        node.drain()
    cluster.run(after_s)
    kept.restart(node)
    assert kept.served_after() < ALONE_S
    kept.demand_kept()
    if by_operator:
        assert cluster.slots_of(node) == 0 or kept.state.members[NodeId(node.id)].condition != "draining"


# ----------------------------------------------------------------------- beside a failing disk


@pytest.mark.parametrize("restarted", ["backup", "primary"])
def test_a_primary_whose_disk_fails_while_a_copy_restarts_keeps_its_locks(restarted: str) -> None:
    kept = Kept(nodes=2)
    cluster = kept.cluster
    primary, backup = cluster.primary(), cluster.backup()
    assert primary.disk is not None
    primary.disk.is_full = True
    wanted = cluster.simulation.clients[1].take(cluster.name + " free", ttl_ms=TTL_MS)
    cluster.run(1)
    if restarted == "backup":
        kept.restart(backup)
        assert kept.served_after() < ALONE_S
    else:
        # Its journal has all that it has answered for.
        kept.cluster.crash(primary)
        cluster.run(0.05)
        primary.disk.heal()
        primary.start()
        assert kept.served_after() < ALONE_S
    primary.disk.heal()
    cluster.wait(lambda: wanted.outcome == "held", 10)
    kept.demand_kept()


def test_a_drain_moves_everything_from_a_node_whose_disk_fails_to_others() -> None:
    kept = Kept()
    cluster = kept.cluster
    node = cluster.primary()
    assert node.disk is not None
    node.disk.is_full = True
    wanted = cluster.simulation.clients[1].take(cluster.names(9)[-1], ttl_ms=TTL_MS)
    cluster.run(1)
    assert wanted.outcome == "waiting"
    cluster.simulation.operator.drain(node.id, [cluster.coordinator.address])
    assert cluster.wait(lambda: wanted.outcome == "held", 30) < 10
    cluster.wait(lambda: cluster.slots_of(node) == 0, 30)
    kept.demand_kept()
