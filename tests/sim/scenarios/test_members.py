"""Members that come and go, and the coordinator's reports of them: one named story each, with all checkers watching."""

from __future__ import annotations

import pytest

from tests.sim.scenarios.scenario import TTL_MS, Scenario


def test_a_ring_is_made_from_nothing_and_reaches_every_process() -> None:
    cluster = Scenario(nodes=4)
    assert cluster.world.stats["assigned"] == len(cluster.primaries()), "no slot was assigned twice"
    state = cluster.simulation.store.state
    assert state is not None
    assert {slot.primary.node for slot in state.slots if slot.primary} <= {"n1", "n2", "n3", "n4"}
    assert all(slot.primary is not None and slot.backup is not None for slot in state.slots)
    assert cluster.ring_updates() == 1, "four nodes that start within the window are one update"
    assert all(cluster.knows(node) for node in cluster.simulation.nodes)


def test_each_group_of_rapid_changes_is_one_update_of_the_ring() -> None:
    cluster = Scenario(nodes=3, late_nodes=5)
    held = cluster.hold(cluster.simulation.clients[0], *cluster.names(5))
    for joining, leaving in ((2, 0), (1, 1), (0, 2), (2, 1)):
        before = cluster.ring_updates()
        for _ in range(joining):
            cluster.simulation.add_node()
            cluster.run(0.2)
        staying = [node for node in cluster.simulation.nodes if node.alive and not node.draining]
        for node in staying[:leaving]:
            node.drain()
            cluster.run(0.2)
        cluster.quiet()
        assert cluster.ring_updates() == before + 1, (joining, leaving)
    assert all(task.outcome == "held" for task in held)


def test_a_drop_and_a_join_within_the_window_are_one_update_of_the_ring() -> None:
    cluster = Scenario(nodes=3, late_nodes=1)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    core = cluster.simulation.coordinators[0].deciding
    assert core is not None
    before = core.status().ring_updates
    leaving = next(n for n in cluster.simulation.nodes if n not in (cluster.primary(), cluster.backup()))
    leaving.drain()
    cluster.simulation.add_node()
    cluster.quiet()
    assert core.status().ring_updates == before + 1
    assert held.outcome == "held"


def test_a_drop_and_a_join_disturb_nothing_that_survives() -> None:
    cluster = Scenario(nodes=5, late_nodes=1)
    one, other = cluster.simulation.clients
    leaving, before = cluster.third(), cluster.primaries()
    slots = cluster.slots_among(cluster.many_names(40))
    survive = [name for name, slot in slots.items() if before[slot] != leaving.name]
    held = cluster.hold(one, *survive, cluster.name, ttl_ms=1000)
    cluster.simulation.add_node()
    cluster.crash(leaving)
    cluster.quiet()
    moved = {slot for slot, node in cluster.primaries().items() if before[slot] != node}
    for slot in moved:
        assert before[slot] == leaving.name or cluster.primaries()[slot] == "n6", (
            "nothing moves between those who stay"
        )
    assert all(task.outcome == "held" for task in held)
    wanted = other.take(cluster.name, ttl_ms=1000)
    cluster.let_go(one, held[-1])
    cluster.run(0.5)
    assert wanted.outcome == "held"


def test_renewals_and_acquires_go_on_while_a_joining_node_takes_its_slots() -> None:
    cluster = Scenario(nodes=2, late_nodes=1)
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=1000)
    cluster.run(0.5)
    cluster.simulation.add_node()
    generation = 0
    for _ in range(40):
        task = other.take("elsewhere", ttl_ms=1000)
        cluster.wait(lambda task=task: task.outcome == "held", 0.3)
        assert task.generation > generation or cluster.world.stats["swap"]
        other.give_back(task)
        cluster.run(0.1)
    assert held.outcome == "held"
    assert cluster.slots_of(cluster.simulation.nodes[2]) > 0
    assert cluster.world.stats["promotion"] == 0, "every move is a swap"


def test_a_held_lock_survives_a_joining_node_with_its_token() -> None:
    cluster = Scenario(nodes=2, late_nodes=2)
    held = cluster.hold(cluster.simulation.clients[0], *cluster.many_names(40))
    tokens = [task.generation for task in held]
    for _ in range(2):
        cluster.simulation.add_node()
        cluster.quiet()
    assert cluster.world.stats["swap"] > 0
    assert [task.outcome for task in held] == ["held"] * 40
    assert [task.generation for task in held] == tokens


def test_an_older_state_is_refused_in_whatever_order_states_arrive() -> None:
    cluster = Scenario(nodes=3, late_nodes=1)
    held = cluster.hold(cluster.simulation.clients[0], cluster.name)
    states = cluster.states()
    cluster.simulation.add_node()
    cluster.quiet()
    assert len(states) > 3
    node = cluster.simulation.nodes[0]
    assert cluster.knows(node)
    for state in (states[-2], states[0], states[-3], states[-1], states[1]):
        assert state is not None
        cluster.tell_again(node, state)
        cluster.run(0.1)
        assert cluster.knows(node)
    assert held[0].outcome == "held"


@pytest.mark.parametrize("back_s", [0, 3600])
def test_a_restarted_coordinator_issues_higher_versions_and_disturbs_no_client(back_s: float) -> None:
    cluster = Scenario()
    held = cluster.hold(cluster.simulation.clients[0], cluster.name)
    for _ in range(3):
        before = cluster.version()
        cluster.crash(cluster.coordinator)
        cluster.set_back_the_clock(cluster.coordinator, back_s)
        cluster.run(2)
        cluster.coordinator.start()
        cluster.run(10)
        cluster.quiet()
        assert cluster.version() > before
        assert all(cluster.knows(node) for node in cluster.simulation.nodes)
    assert held[0].outcome == "held"
    assert cluster.world.stats["assigned_empty"] == 0


def test_a_node_that_reconnects_gets_the_ring_at_once() -> None:
    cluster = Scenario(nodes=3, late_nodes=1)
    cluster.be_patient()
    node = cluster.third()
    cluster.cut(node, cluster.coordinator, 3)
    for other in cluster.simulation.nodes:
        if other is not node:
            cluster.cut(node, other, 3)
    cluster.simulation.add_node()
    cluster.cut(node, cluster.simulation.nodes[-1], 3)
    cluster.run(2.5)
    assert not cluster.knows(node)
    cluster.break_connections(node, cluster.coordinator)
    cluster.run(0.1)
    assert not cluster.is_joined(node)
    cluster.mend(node, cluster.coordinator)
    cluster.wait(lambda: cluster.is_joined(node), 5)
    assert cluster.wait(lambda: cluster.knows(node), 1) < 0.02
