"""Several coordinators on one store when something goes wrong: one named story each, with all checkers watching.

In each of them must hold: another coordinator decides within five seconds, no slot moves, no lock is lost, and the
new leader takes its members as they are, at once: their stabilization window does not begin again with each that comes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.framework.coordinator_shell import CoordinatorShell
from tests.sim.framework.store import Outcome
from tests.sim.framework.workload import Task
from tests.sim.framework.world import S
from tests.sim.scenarios.scenario import TTL_MS, Scenario

DECIDES_S = 5.0
"""Within this time after the end of a leader another one decides."""


class Led:
    """A cluster with three coordinators, under which locks are held.

    Attributes:
        cluster: the cluster.
        held: locks in all slots.
        copies: where each slot was at first: primary and backup.
    """

    def __init__(self, *, late_nodes: int = 0) -> None:
        self.cluster = Scenario(coordinators=3, standbys=True, late_nodes=late_nodes)
        self.held: list[Task] = self.cluster.hold(
            self.cluster.simulation.clients[0], *self.cluster.many_names(16)
        )
        self.copies = self._copies()

    def _copies(self) -> list[object]:
        state = self.cluster.simulation.store.state
        assert state is not None
        return [(slot.primary, slot.backup and slot.backup.replica, slot.since) for slot in state.slots]

    def leads_after(self, former: CoordinatorShell) -> float:
        """Wait until another one than this decides, and return how long it took, in seconds."""
        others = [each for each in self.cluster.simulation.coordinators if each is not former]
        return self.cluster.wait(lambda: any(map(self.cluster.decides, others)), 30)

    def demand_nothing_lost(self) -> None:
        """Fail unless all locks are held, and every slot is where it was, in the same reign."""
        assert {task.outcome for task in self.held} == {"held"}
        assert self._copies() == self.copies, "no slot has moved, and no reign has begun"
        assert self.cluster.simulation.unserved() == []
        assert self.cluster.world.stats["assigned_empty"] == 0

    def demand_settled_once(self) -> None:
        """Fail if the leader has made more than one ring of its members."""
        core = self.cluster.leader().deciding
        assert core is not None
        assert core.status().ring_updates == 1


def _crash(cluster: Scenario, leader: CoordinatorShell) -> None:
    cluster.crash(leader)


def _lose_power(cluster: Scenario, leader: CoordinatorShell) -> None:
    cluster.crash(leader, power=True)


def _freeze(cluster: Scenario, leader: CoordinatorShell) -> None:
    leader.pause(40 * S)


def _cut_from_store(cluster: Scenario, leader: CoordinatorShell) -> None:
    cluster.simulation.store.cut(leader, 40 * S)


@pytest.mark.parametrize("lose", [_crash, _lose_power, _freeze, _cut_from_store])
def test_a_lost_leader_is_followed_within_five_seconds_and_nothing_moves(
    lose: Callable[[Scenario, CoordinatorShell], None],
) -> None:
    led = Led()
    former = led.cluster.leader()
    lose(led.cluster, former)
    assert led.leads_after(former) < DECIDES_S
    led.cluster.run(60)
    led.demand_nothing_lost()
    led.demand_settled_once()


def test_a_leader_that_goes_on_after_forty_seconds_stands_by_and_writes_nothing() -> None:
    led = Led()
    former = led.cluster.leader()
    former.pause(40 * S)
    led.cluster.run(39)
    present = led.cluster.leader()
    version = led.cluster.version()
    led.cluster.run(10)
    assert led.cluster.leader() is present
    assert former in led.cluster.standbys()
    assert not led.cluster.decides(former)
    assert led.cluster.version() == version
    led.demand_nothing_lost()


def test_leaders_that_die_one_after_the_other_are_each_followed() -> None:
    led = Led()
    for _ in range(4):
        former = led.cluster.leader()
        led.cluster.crash(former)
        assert led.leads_after(former) < DECIDES_S
        led.cluster.run(5)
        former.start()
        led.cluster.run(5)
    led.demand_nothing_lost()


def test_all_coordinators_at_once_may_be_away_for_most_of_the_lease() -> None:
    led = Led()
    for coordinator in led.cluster.simulation.coordinators:
        led.cluster.crash(coordinator)
    led.cluster.run(15)
    for coordinator in led.cluster.simulation.coordinators:
        coordinator.start()
    led.cluster.wait(lambda: any(map(led.cluster.decides, led.cluster.simulation.coordinators)), DECIDES_S)
    led.cluster.run(40)
    led.demand_nothing_lost()
    led.demand_settled_once()


def test_a_store_that_is_away_for_most_of_the_lease_costs_nothing() -> None:
    led = Led()
    for coordinator in led.cluster.simulation.coordinators:
        led.cluster.simulation.store.cut(coordinator, 15 * S)
    led.cluster.run(15)
    led.cluster.wait(lambda: any(map(led.cluster.decides, led.cluster.simulation.coordinators)), DECIDES_S)
    led.cluster.run(40)
    led.demand_nothing_lost()


def test_a_slow_store_keeps_its_leader() -> None:
    led = Led()
    leads, store = led.cluster.world.stats["leads"], led.cluster.simulation.store
    store.slow, store.slow_max = 1.0, S * 8 // 10
    led.cluster.run(60)
    assert led.cluster.world.stats["leads"] == leads
    store.recover()
    led.cluster.run(5)
    led.demand_nothing_lost()


def test_a_leader_whose_campaigns_are_not_answered_leads_on() -> None:
    led = Led()
    leads = led.cluster.world.stats["leads"]
    led.cluster.simulation.store.campaigns_unanswered = True
    led.cluster.run(60)
    assert led.cluster.world.stats["leads"] == leads
    assert led.cluster.decides(led.cluster.leader())
    led.demand_nothing_lost()


@pytest.mark.parametrize("outcome", ["done", "late", "lost"])
def test_writes_of_unknown_outcome_lose_nothing(outcome: Outcome) -> None:
    led = Led()
    store = led.cluster.simulation.store
    backup = led.cluster.backup()
    store.unknown, store.outcomes = 0.8, (outcome,)
    led.cluster.crash(backup)
    led.cluster.run(4)
    store.recover()
    led.cluster.quiet()
    led.cluster.run(40)
    assert {task.outcome for task in led.held} == {"held"}
    assert led.cluster.world.stats["assigned_empty"] == 0


def test_a_node_that_joins_while_the_leader_changes_gets_its_slots_within_seconds() -> None:
    led = Led(late_nodes=1)
    former = led.cluster.leader()
    led.cluster.crash(former)
    led.cluster.simulation.add_node()
    late = led.cluster.simulation.nodes[-1]
    assert led.cluster.wait(lambda: led.cluster.slots_of(late) >= 2, 15) < 8
    led.cluster.run(20)
    assert {task.outcome for task in led.held} == {"held"}


def test_a_primary_that_dies_with_the_leader_is_followed_once_the_lead_is() -> None:
    led = Led()
    former, primary = led.cluster.leader(), led.cluster.primary()
    led.cluster.crash(former)
    led.cluster.crash(primary)
    assert led.leads_after(former) < DECIDES_S
    assert led.cluster.wait(lambda: not led.cluster.simulation.unserved(), 5) < 3
    led.cluster.run(30)
    assert {task.outcome for task in led.held} == {"held"}
    assert led.cluster.world.stats["assigned_empty"] == 0


def test_a_rolling_restart_of_the_coordinators_moves_nothing() -> None:
    led = Led()
    for coordinator in led.cluster.simulation.coordinators:
        led.cluster.crash(coordinator)
        led.cluster.run(1)
        coordinator.start()
        led.cluster.wait(lambda: any(map(led.cluster.decides, led.cluster.simulation.coordinators)), 10)
        led.cluster.run(2)
    led.demand_nothing_lost()


def test_a_store_that_goes_back_under_its_leader_counts_as_lost_and_tokens_grow() -> None:
    led = Led()
    cluster, store = led.cluster, led.cluster.simulation.store
    cluster.crash(cluster.backup())
    cluster.run(10)
    store.set_back(3)
    cluster.run(15)
    assert {task.outcome for task in led.held} == {"local-deadline"}
    first = led.held[0]
    again = cluster.simulation.clients[1].take(cluster.many_names(1)[0], ttl_ms=TTL_MS)
    assert cluster.wait(lambda: again.outcome == "held", 40) > 10, (
        "not before every lease from before is over"
    )
    assert again.generation > first.generation
