"""Held locks and a journal: restarts of one node and of all at once, with or without their machines, and disks with
faults."""

from __future__ import annotations

import pytest

from tests.sim.framework.disk import STYLES
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.workload import Task
from tests.sim.framework.world import Process
from tests.sim.scenarios.scenario import TTL_MS, Scenario

DURABILITIES: list[Durability] = ["process", "disk"]
SOON_S = 2
"""A restarted node whose word counts serves again within this time: no lease of its former life is waited for."""


def began(
    *, nodes: int = 1, durability: Durability = "process", ttl_ms: int = TTL_MS, seed: int = 1
) -> tuple[Scenario, Task]:
    """A cluster whose nodes keep a journal, with a held lock."""
    cluster = Scenario(nodes=nodes, durability=durability, seed=seed)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=ttl_ms)
    return cluster, held


def crash_all(cluster: Scenario, *processes: Process, power: bool = False) -> None:
    """End several processes at one instant."""
    for process in processes:
        cluster.crash(process, power=power)


def start_all(*processes: Process) -> None:
    """Start several processes."""
    for process in processes:
        process.start()


def served_again(cluster: Scenario, seconds: float = 60) -> float:
    """Wait until every slot is served, and return how long that takes."""
    return cluster.wait(lambda: not cluster.simulation.unserved(), seconds)


def assert_kept(cluster: Scenario, held: Task) -> None:
    """Assert that a held lock is held on under its token, can be released, and that the next token is greater."""
    generation = held.generation
    cluster.run(TTL_MS / 1000 + 5)
    assert (held.outcome, held.generation) == ("held", generation)
    one, other = cluster.simulation.clients
    cluster.let_go(one, held)
    (next_one,) = cluster.hold(other, cluster.name)
    assert next_one.generation > generation
    assert cluster.world.stats["lost"] == 0


def acquired_after(cluster: Scenario, held: Task, seconds: float = 90) -> float:
    """Let another client have the lock that was held, and return how long it takes."""
    wanted = cluster.simulation.clients[1].take(cluster.name, ttl_ms=TTL_MS)
    took = cluster.wait(lambda: wanted.outcome == "held", seconds)
    assert wanted.generation > held.generation
    return took


# ----------------------------------------------------------------------- all of them are gone for a moment


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_lone_node_that_is_killed_has_its_locks_again_as_soon_as_it_starts(durability: Durability) -> None:
    cluster, held = began(durability=durability)
    (node,) = cluster.simulation.nodes
    cluster.crash(node)
    cluster.run(0.2)
    node.start()
    assert served_again(cluster) < SOON_S
    free = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=TTL_MS)
    assert cluster.wait(lambda: free.outcome == "held", 10) < SOON_S, (
        "it does not wait for leases of the former life"
    )
    assert_kept(cluster, held)


def test_a_lone_node_without_a_journal_has_none_of_them() -> None:
    cluster, held = began(durability="none")
    (node,) = cluster.simulation.nodes
    cluster.crash(node)
    cluster.run(0.2)
    node.start()
    assert acquired_after(cluster, held) > 10
    assert held.outcome == "local-deadline"


@pytest.mark.parametrize("with_coordinator", [False, True])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_all_nodes_that_are_killed_at_once_have_their_locks_again(
    durability: Durability, with_coordinator: bool
) -> None:
    cluster, held = began(nodes=3, durability=durability)
    processes: list[Process] = [*cluster.simulation.nodes]
    if with_coordinator:
        processes.append(cluster.coordinator)
    crash_all(cluster, *processes)
    cluster.run(0.2)
    start_all(*processes)
    assert served_again(cluster) < 2 * SOON_S
    assert cluster.world.stats["assigned_empty"] == 0
    assert_kept(cluster, held)


@pytest.mark.parametrize("nodes", [1, 3])
def test_with_the_durability_disk_locks_survive_a_loss_of_power_of_every_machine(nodes: int) -> None:
    cluster, held = began(nodes=nodes, durability="disk")
    processes = [*cluster.simulation.nodes, cluster.coordinator]
    crash_all(cluster, *processes, power=True)
    cluster.run(1)
    start_all(*processes)
    assert served_again(cluster) < 2 * SOON_S
    assert_kept(cluster, held)


def test_a_node_whose_machine_restarts_takes_the_place_of_a_connection_that_never_ended() -> None:
    cluster, held = began(durability="disk")
    (node,) = cluster.simulation.nodes
    crash_all(cluster, node, power=True)
    cluster.run(0.2)
    node.start()
    assert served_again(cluster) < SOON_S, "its coordinator need not notice the silence of the former life"
    assert_kept(cluster, held)


@pytest.mark.parametrize("nodes", [1, 3])
def test_with_the_durability_process_a_loss_of_power_of_every_machine_loses_them_safely(nodes: int) -> None:
    cluster, held = began(nodes=nodes, durability="process")
    processes = [*cluster.simulation.nodes, cluster.coordinator]
    crash_all(cluster, *processes, power=True)
    cluster.run(1)
    start_all(*processes)
    assert acquired_after(cluster, held) > 10, "not before the holder knows that it has lost the lock"
    assert held.outcome == "local-deadline"
    assert cluster.world.stats["inherited"] == 0


# ----------------------------------------------------------------------- one of several is gone for a moment


def test_a_primary_that_restarts_before_the_takeover_inherits_its_slots() -> None:
    cluster, held = began(nodes=3)
    primary = cluster.primary()
    cluster.crash(primary)
    cluster.run(0.05)
    primary.start()
    assert served_again(cluster) < SOON_S
    cluster.run(1)
    assert cluster.primary() is primary
    assert cluster.world.stats["promotion"] == 0
    assert_kept(cluster, held)


def test_a_primary_that_restarts_after_the_takeover_gets_a_copy_of_its_successors_table() -> None:
    cluster, held = began(nodes=2)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(primary)
    cluster.wait(lambda: cluster.serves(backup), 8)
    (later,) = cluster.hold(cluster.simulation.clients[1], cluster.names(2)[1])
    primary.start()
    cluster.quiet()
    assert later.outcome == "held"
    for node in (primary, backup):
        assert len(cluster.table(node)) == 2, "both have what happened after the takeover"
    assert_kept(cluster, held)


def test_a_backup_that_restarts_is_a_backup_again_at_once() -> None:
    cluster, held = began(nodes=2)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(0.05)
    backup.start()
    cluster.wait(lambda: cluster.world.stats["backup_inherited"] > 0, 2)
    cluster.quiet()
    assert (cluster.primary(), cluster.backup()) == (primary, backup)
    assert cluster.world.stats["backup_dropped"] == 0
    assert_kept(cluster, held)


def test_a_backups_journal_suffices_when_the_primarys_machine_is_gone_for_good() -> None:
    cluster, held = began(nodes=2, durability="disk")
    primary, backup = cluster.primary(), cluster.backup()
    crash_all(cluster, primary, backup, power=True)
    cluster.run(0.5)
    backup.start()
    assert served_again(cluster) < 8, "the coordinator has to notice that the primary is gone"
    assert_kept(cluster, held)


def test_a_node_that_restarts_twice_in_quick_succession_vouches_for_both_lives() -> None:
    cluster, held = began()
    (node,) = cluster.simulation.nodes
    for _ in range(2):
        cluster.crash(node)
        node.start()
        cluster.run(0.01)
    cluster.crash(node)
    cluster.run(0.1)
    node.start()
    assert served_again(cluster) < SOON_S
    assert_kept(cluster, held)


@pytest.mark.parametrize("after_s", [0.001, 0.005, 0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("all_nodes", [False, True])
def test_a_restart_during_a_planned_move_loses_nothing(all_nodes: bool, after_s: float) -> None:
    cluster, held = began(nodes=3)
    primary = cluster.primary()
    primary.drain()
    cluster.run(after_s)
    nodes = cluster.simulation.nodes if all_nodes else [primary]
    crash_all(cluster, *nodes)
    cluster.run(0.05)
    start_all(*nodes)
    assert served_again(cluster) < 5
    assert_kept(cluster, held)


def test_a_coordinator_that_changes_while_all_nodes_restart_loses_nothing() -> None:
    cluster, held = began(nodes=3)
    nodes = cluster.simulation.nodes
    crash_all(cluster, *nodes)
    start_all(*nodes)
    cluster.run(0.012)
    cluster.crash(cluster.coordinator)
    cluster.run(0.3)
    cluster.coordinator.start()
    assert served_again(cluster) < 2 * SOON_S
    assert_kept(cluster, held)


# ----------------------------------------------------------------------- what is wrong with the disk


@pytest.mark.parametrize("nodes", [1, 3])
def test_while_the_disk_is_full_grants_wait_and_renewals_go_on(nodes: int) -> None:
    cluster, held = began(nodes=nodes)
    node = cluster.primary()
    assert node.disk is not None
    node.disk.is_full = True
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(15)
    assert held.outcome == "held"
    assert wanted.outcome == "waiting"
    node.disk.heal()
    assert cluster.wait(lambda: wanted.outcome == "held", 10) < SOON_S
    cluster.run(1)
    cluster.crash(node)
    cluster.run(0.05)
    node.start()
    cluster.quiet()
    assert wanted.outcome == "held", "everything was written again"
    assert_kept(cluster, held)


def test_a_backup_whose_disk_is_full_delays_grants_no_longer_than_a_dead_one() -> None:
    cluster, held = began(nodes=3)
    backup = cluster.backup()
    assert backup.disk is not None
    backup.disk.is_full = True
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=TTL_MS)
    assert cluster.wait(lambda: wanted.outcome == "held", 10) < 3
    backup.disk.heal()
    cluster.quiet()
    assert_kept(cluster, held)


def test_after_a_failed_sync_only_what_is_written_again_counts() -> None:
    cluster, held = began(durability="disk")
    (node,) = cluster.simulation.nodes
    assert node.disk is not None
    node.disk.fails = True
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(3)
    assert wanted.outcome == "waiting"
    node.disk.heal()
    cluster.wait(lambda: wanted.outcome == "held", 10)
    crash_all(cluster, node, power=True)
    cluster.run(0.5)
    node.start()
    served_again(cluster)
    assert_kept(cluster, held)
    assert wanted.outcome == "held"


@pytest.mark.parametrize("style", STYLES)
def test_an_older_copy_of_the_directory_is_noticed_and_nothing_of_it_served(style: str) -> None:
    cluster, held = began()
    (node,) = cluster.simulation.nodes
    assert node.disk is not None
    older = node.disk.picture()
    (later,) = cluster.hold(cluster.simulation.clients[0], cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(2)  # until the position file is another one
    cluster.crash(node)
    node.disk.put_back(older, style=style)
    node.start()
    assert acquired_after(cluster, held) > 10
    assert (held.outcome, later.outcome) == ("local-deadline", "local-deadline")
    assert cluster.world.stats["inherited"] == 0


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_another_owner_of_the_files_matters_only_where_nothing_better_tells_a_copy(seed: int) -> None:
    cluster, held = began(seed=seed)
    (node,) = cluster.simulation.nodes
    assert node.disk is not None
    cluster.crash(node)
    node.disk.change_owner()
    is_doubtful = bool(node.disk.doubt)
    node.start()
    if is_doubtful:
        assert acquired_after(cluster, held) > 10
        return
    served_again(cluster)
    assert_kept(cluster, held)


def test_a_node_whose_directory_is_lost_begins_with_nothing_and_the_other_copy_is_used() -> None:
    cluster, held = began(nodes=2)
    primary = cluster.primary()
    assert primary.disk is not None
    cluster.crash(primary)
    primary.disk.lose_directory()
    cluster.run(0.05)
    primary.start()
    assert served_again(cluster) < 8
    cluster.quiet()
    assert_kept(cluster, held)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_directory_that_is_deleted_under_a_running_node_is_made_again(durability: Durability) -> None:
    cluster, held = began(durability=durability)
    (node,) = cluster.simulation.nodes
    assert node.disk is not None
    node.disk.lose_directory()
    cluster.run(2)
    (wanted,) = cluster.hold(cluster.simulation.clients[1], cluster.names(2)[1], ttl_ms=30_000)
    assert cluster.world.stats["journal_made_again"] == 1
    cluster.run(1)
    cluster.crash(node)
    cluster.run(0.1)
    node.start()
    served_again(cluster)
    assert_kept(cluster, held)
    assert wanted.outcome == "held"


def test_two_processes_cannot_use_one_directory() -> None:
    cluster, held = began(nodes=2)
    primary = cluster.primary()
    assert primary.disk is not None
    cluster.simulation.plan = cluster.simulation.plan._replace(late_nodes=1)
    cluster.simulation.add_node(primary.name)
    second: NodeShell = cluster.simulation.nodes[-1]
    second.crash()
    second.disk = primary.disk
    second.start()
    cluster.run(5)
    assert cluster.world.stats["journal_refused"] > 0
    assert_kept(cluster, held)


# ----------------------------------------------------------------------- stops in order


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_cluster_that_is_stopped_in_order_has_its_locks_again_when_it_starts(nodes: int) -> None:
    cluster, held = began(nodes=nodes)
    everyone = cluster.simulation.nodes
    for node in everyone:
        node.drain()
        cluster.wait(lambda node=node: not node.alive, 15)
    cluster.crash(cluster.coordinator)
    cluster.run(0.5)
    cluster.coordinator.start()
    start_all(*everyone)
    assert served_again(cluster) < 2 * SOON_S
    assert cluster.world.stats["assigned_empty"] == 0
    assert_kept(cluster, held)


def test_a_node_that_is_stopped_in_order_beside_others_moves_everything_as_without_a_journal() -> None:
    cluster, held = began(nodes=3)
    primary = cluster.primary()
    primary.drain()
    cluster.wait(lambda: not primary.alive, 15)
    cluster.run(0.5)
    primary.start()
    cluster.quiet()
    assert cluster.world.stats["inherited"] == 0
    assert_kept(cluster, held)
