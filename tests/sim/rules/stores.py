"""Rules about a store that fails."""

from __future__ import annotations

from lockring.core.coordinator.store_health import StoreHealth
from lockring.core.coordinator.term import Term
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import Scenario


@mutant
def no_store_pause() -> list[Change]:
    """A store that failed is asked again at once."""
    return [(Term, "_pause", lambda self, pause_ns, now_ns: self.begin(now_ns=now_ns))]


def _full_disk() -> None:
    cluster = Scenario()
    simulation = cluster.simulation
    core = cluster.coordinator.deciding
    assert core is not None
    simulation.store.full = True
    cluster.crash(cluster.backup())
    cluster.wait(lambda: not core.is_active, 10)
    before, seconds = simulation.world.stats["store_operations"], 20
    cluster.run(seconds)
    asked = simulation.world.stats["store_operations"] - before
    cluster.demand(asked <= 2 * seconds, "WORK", f"a store that fails was asked {asked} times in {seconds} s")
    told = [each.text for each in core.take_store_news()]
    cluster.demand(len(told) == 1, "WORK", f"one thing happened to the store, and {len(told)} were told")
    simulation.store.full = False
    cluster.wait(lambda: core.is_active, 3)
    cluster.quiet()


@drill
def drill_no_store_pause() -> None:
    """The disk under the store is full for a while in which a node dies, so that a write is due."""
    _full_disk()


@mutant
def works_by_reading() -> list[Change]:
    """A store whose writes fail counts as working once it can be read."""
    worked = StoreHealth.worked

    def changed(self: StoreHealth, *, is_write: bool, now_ns: int) -> None:
        worked(self, is_write=True, now_ns=now_ns)

    return [(StoreHealth, "worked", changed)]


@drill
def drill_works_by_reading() -> None:
    """The same: with a pause that never grows, and an end of the trouble that is logged after each read."""
    _full_disk()
