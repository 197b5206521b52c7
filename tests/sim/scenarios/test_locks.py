"""Locks, their tokens and their releases under load and failure: one named story each, with all checkers watching."""

from __future__ import annotations

from lockring.protocol import Verdict
from tests.sim.scenarios.scenario import TTL_MS, Scenario


def test_a_token_grows_with_each_acquisition_and_stays_with_each_renewal() -> None:
    cluster = Scenario(nodes=3, late_nodes=1)
    one, other = cluster.simulation.clients
    tokens: list[int] = []

    def acquire_twice() -> None:
        for client in (one, other):
            (task,) = cluster.hold(client, cluster.name, ttl_ms=1000)
            tokens.append(task.generation)
            cluster.run(3)
            assert (task.outcome, task.generation) == ("held", tokens[-1]), "renewed several times by now"
            cluster.let_go(client, task)

    acquire_twice()
    failed = cluster.primary()
    cluster.crash(failed)
    cluster.run(6)
    acquire_twice()
    failed.start()
    cluster.quiet()
    acquire_twice()
    cluster.simulation.add_node()
    cluster.quiet()
    acquire_twice()
    for node in (cluster.primary(), cluster.backup()):
        cluster.crash(node)
    cluster.run(45)
    acquire_twice()
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 10


def test_after_the_crash_of_the_primary_the_backup_has_the_lock_with_a_token_that_is_good() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name)
    before = cluster.table(cluster.primary())
    backup = cluster.backup()
    assert cluster.table(backup) == before
    cluster.crash(cluster.primary())
    cluster.wait(lambda: cluster.serves(backup), 8)
    assert cluster.table(backup) == before
    assert {generation for _, _, _, generation in before} == {held.generation}
    cluster.let_go(one, held)
    (again,) = cluster.hold(other, cluster.name)
    assert again.generation > held.generation


def test_a_release_reaches_the_backup_and_an_old_one_releases_nothing() -> None:
    cluster = Scenario()
    one, _ = cluster.simulation.clients
    (first,) = cluster.hold(one, cluster.name)
    cluster.let_go(one, first)
    cluster.run(0.1)
    assert cluster.table(cluster.primary()) == cluster.table(cluster.backup()) == set()
    (second,) = cluster.hold(one, cluster.name)
    cluster.release_again(one, first)
    cluster.run(0.5)
    assert second.outcome == "held"
    assert {generation for _, _, _, generation in cluster.table(cluster.primary())} == {second.generation}


def test_replication_and_transfers_that_come_late_or_twice_change_nothing() -> None:
    cluster = Scenario()
    one, _ = cluster.simulation.clients
    primary, backup = cluster.primary(), cluster.backup()
    replicated = cluster.tape(primary, backup)
    answered = cluster.tape(backup, primary, answers=True)
    first, second = cluster.names(2)
    (given,) = cluster.hold(one, first)
    (kept,) = cluster.hold(one, second)
    cluster.let_go(one, given)
    cluster.run(1)
    before = cluster.table(primary)
    assert replicated
    assert answered
    for late in (replicated[::-1], list(replicated)):
        cluster.play(late, primary, backup)
        cluster.play(answered[::-1], backup, primary, answers=True)
        cluster.run(0.5)
        assert cluster.table(primary) == cluster.table(backup) == before
    primary.drain()
    cluster.wait(lambda: cluster.primary() is backup, 5)
    cluster.wait(lambda: cluster.serves(backup), 5)
    cluster.play(replicated[::-1], primary, backup)
    cluster.run(0.5)
    assert cluster.table(backup) == before
    assert kept.outcome == "held"


def test_an_expired_holder_no_longer_holds_the_lock() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    cluster.hold(one, cluster.name, ttl_ms=1000)
    cluster.crash(one)
    wanted = other.take(cluster.name, ttl_ms=1000)
    took = cluster.wait(lambda: wanted.outcome == "held", 3)
    assert took < 1.2, "one TTL after the last renewal, lengthened"
    assert len(cluster.table(cluster.primary())) == 1


def test_a_release_that_races_a_renewal_never_leaves_a_ghost() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    for step in range(60):
        (held,) = cluster.hold(one, cluster.name, ttl_ms=300)
        cluster.run(0.09 + 0.000_5 * step)  # a keepalive is sent after 100 ms
        one.give_back(held)
        cluster.run(0.01)
        (next_one,) = cluster.hold(other, cluster.name, ttl_ms=300)
        cluster.let_go(other, next_one)
    cluster.run(1)
    assert not [left for node in cluster.simulation.nodes for left in node.leftovers()]


def test_a_client_that_was_frozen_past_its_ttl_finds_its_lock_lost_when_it_resumes() -> None:
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=1000)
    cluster.run(0.3)
    waiting = other.take(cluster.name, ttl_ms=1000)
    one.pause(3_000_000_000)
    cluster.wait(lambda: waiting.outcome == "held", 1.5)
    assert held.outcome == "held", "it is frozen, and looks at nothing"
    cluster.run(3)
    assert held.outcome in ("local-deadline", "expired")
    assert waiting.outcome == "held"
    assert waiting.generation > held.generation


def test_each_node_and_the_coordinator_die_in_turn_and_none_of_200_held_locks_is_lost() -> None:
    cluster = Scenario(nodes=3)
    one, other = cluster.simulation.clients
    names = cluster.many_names(200)
    held = cluster.hold(one, *names)
    tokens = [task.generation for task in held]
    for process in (*cluster.simulation.nodes, cluster.coordinator):
        cluster.crash(process)
        cluster.run(3)
        process.start()
        cluster.run(1)
        cluster.quiet()
        assert [task.outcome for task in held] == ["held"] * 200
    assert [task.generation for task in held] == tokens
    assert cluster.world.stats["assigned_empty"] == 0
    cluster.let_go(one, *held)
    for task, token in zip(cluster.hold(other, *names), tokens, strict=True):
        assert task.generation > token


def test_a_lock_acquired_for_a_program_is_renewed_and_released_through_any_other_client() -> None:
    cluster = Scenario(clients=3)
    one, second, other = cluster.simulation.clients
    one.act_for_others()
    second.act_for_others()
    taken = one.take_for("program", cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: taken.outcome == "held", 2)
    one.crash()
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.primary().crash()
    for _ in range(8):
        second.renew_for("program", cluster.name, ttl_ms=TTL_MS)
        cluster.run(TTL_MS / 3000)
    replies = [each.answer for each in second.answers if each.error is None]
    assert {reply.acquisitions[0].verdict for reply in replies} == {Verdict.HELD}
    assert len(replies) >= 6, "only the crash may have left one or two without an answer"
    assert wanted.outcome == "waiting"
    second.release_for("program", cluster.name)
    cluster.wait(lambda: wanted.outcome == "held", 1)
    assert second.answers[-1].answer.dropped
    assert wanted.generation > taken.generation
