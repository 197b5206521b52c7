"""A held lock when something goes wrong: one named story each, with all checkers watching."""

from __future__ import annotations

import pytest

from tests.sim.scenarios.scenario import TTL_MS, Scenario


@pytest.mark.parametrize("power", [False, True])
def test_a_lock_survives_the_crash_of_its_primary_and_is_served_again_within_the_backup_lease(
    power: bool,
) -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 1)
    waiting = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.crash(cluster.primary(), power=power)
    cluster.run(0.1)
    assert cluster.wait(lambda: not cluster.simulation.unserved(), 8) < 5.5
    cluster.run(15)
    assert held.outcome == "held", "the holder notices nothing"
    one.give_back(held)
    cluster.wait(lambda: waiting.outcome == "held", 1)
    assert waiting.generation > held.generation


def test_the_crash_of_the_backup_disturbs_no_client() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.crash(cluster.backup())
    cluster.run(15)
    assert held.outcome == "held"
    assert cluster.primary() is primary
    assert cluster.slot().backup is not None, "the third node has become the backup"
    one.give_back(held)
    other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.2)
    assert held.outcome == "released"


def test_when_both_copies_crash_the_holder_learns_of_it_before_the_lock_can_be_acquired_again() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(primary)
    cluster.crash(backup)
    cluster.run(0.1)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(11)
    assert held.outcome == "local-deadline"
    assert wanted.outcome == "waiting"
    took = cluster.wait(lambda: wanted.outcome == "held", 40)
    assert 15 < took < 30, "assigned empty once every lease from before is over"
    assert wanted.generation > held.generation


def test_a_primary_cut_off_from_its_backup_goes_on_or_is_replaced_and_the_holder_keeps_its_lock() -> None:
    cluster = Scenario()
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.cut(cluster.primary(), cluster.backup(), 20)
    assert cluster.wait(lambda: not cluster.simulation.unserved(), 5) < 5
    cluster.run(30)
    assert held.outcome == "held"
    assert cluster.slot().backup is not None


def test_a_primary_cut_off_from_the_coordinator_serves_for_its_lease_and_then_leaves_it_to_the_backup() -> (
    None
):
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.cut(primary, cluster.simulation.coordinators[0], 45)
    cluster.run(45)
    assert held.outcome == "held"
    assert cluster.primary() is not primary, "the coordinator took it for failed, and promoted the backup"
    one.give_back(held)
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 2)


def test_without_a_coordinator_held_and_new_locks_go_on_for_the_coordinator_lease() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.crash(cluster.simulation.coordinators[0])
    cluster.run(20)
    assert held.outcome == "held"
    one.give_back(held)
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 1)
    cluster.run(30)
    assert again.outcome == "local-deadline", "no node may serve, so no client can renew"
    cluster.simulation.coordinators[0].start()
    cluster.quiet()
    late = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: late.outcome == "held", 15)
    assert held.generation < again.generation < late.generation


def test_a_rolling_restart_with_drains_loses_nothing_and_never_takes_a_slot_without_its_data() -> None:
    cluster = Scenario()
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    for node in list(cluster.simulation.nodes):
        node.drain()
        cluster.wait(lambda node=node: not node.alive, 15)
        cluster.run(0.5)
        node.start()
        cluster.quiet()
    assert held.outcome == "held"
    assert cluster.world.stats["assigned_empty"] == 0
    assert cluster.world.stats["drained"] == 3


def test_killing_every_node_in_turn_with_time_to_replicate_again_loses_nothing() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    for node in list(cluster.simulation.nodes):
        cluster.crash(node)
        cluster.run(3)
        node.start()
        cluster.quiet()
    assert held.outcome == "held"
    one.give_back(held)
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 1)
    assert again.generation > held.generation


def test_a_primary_that_was_frozen_finds_its_rights_gone_and_its_holders_kept_elsewhere() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary = cluster.primary()
    primary.pause(6_000_000_000)
    cluster.run(5)
    assert cluster.primary() is not primary
    waiting = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(10)
    assert (held.outcome, waiting.outcome) == ("held", "waiting")


def test_after_the_loss_of_the_store_all_slots_are_assigned_again_above_all_tokens() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    coordinator = cluster.simulation.coordinators[0]
    cluster.crash(coordinator)
    coordinator.new_cluster = False
    cluster.simulation.store.wipe()
    coordinator.start()
    cluster.run(12)
    assert held.outcome == "local-deadline", "no node may serve any more, and the holder knows in time"
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    took = cluster.wait(lambda: again.outcome == "held", 40)
    assert took > 15, "not before every lease from before is over"
    assert again.generation > held.generation


def test_what_cannot_be_replicated_leaves_the_primary_working() -> None:
    cluster = Scenario(nodes=2)
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.cut(primary, backup, 30)
    cluster.silence(backup, cluster.coordinator, 30)  # it cannot ask for what it hears nothing of
    wanted = other.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    took = cluster.wait(lambda: wanted.outcome == "held", 8)
    assert took < 3, "once the backup is dropped, no request waits for it"
    cluster.run(5)
    assert cluster.primary() is primary
    assert (held.outcome, cluster.slot().backup) == ("held", None)
    cluster.run(30)
    cluster.quiet()
    assert cluster.slot().backup is not None, "it is copied to again once it can be reached"
    assert (held.outcome, wanted.outcome) == ("held", "held")


def test_restarting_every_process_in_turn_loses_nothing() -> None:
    cluster = Scenario(nodes=3)
    held = cluster.hold(cluster.simulation.clients[0], *cluster.many_names(40))
    for process in (*cluster.simulation.nodes, cluster.coordinator):
        cluster.crash(process)
        cluster.run(0.2)
        process.start()
        cluster.run(1)
        cluster.quiet()
    assert [task.outcome for task in held] == ["held"] * 40
    assert cluster.world.stats["assigned_empty"] == 0
