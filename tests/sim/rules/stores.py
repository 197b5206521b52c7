"""Rules about a store that fails, that does not say what became of a write, or gets one late."""

from __future__ import annotations

from lockring.cluster_state import ClusterState
from lockring.core.coordinator import CoordinatorCore, invariants, store_past, term
from lockring.core.coordinator.store_health import StoreHealth
from lockring.core.coordinator.store_past import OwnVersions, StorePast
from lockring.core.coordinator.term import News, Phase, Term
from lockring.ids import NO_VERSION, OperationNumber, Version
from lockring.store.memory import MemoryStore
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario


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


@mutant
def write_without_version() -> list[Change]:
    """The store takes a write of the leader whatever version it has."""

    def write(self: MemoryStore, expected_version: Version, state: ClusterState) -> bool:
        del expected_version
        if self._leader is not None and self._leader.term != state.term:
            return False
        self._state = state
        return True

    return [(MemoryStore, "write", write)]


@drill
def drill_write_without_version() -> None:
    """A write arrives when its coordinator has given up on it, and has written since."""
    cluster = Scenario(coordinators=2, standbys=True)
    _write_late(cluster, 6)
    cluster.run(10)
    cluster.quiet()


@mutant
def leader_by_lease_alone() -> list[Change]:
    """The store takes every write: only the lead's time keeps former leaders from writing."""

    def write(self: MemoryStore, expected_version: Version, state: ClusterState) -> bool:
        del expected_version
        self._state = state
        return True

    return [(MemoryStore, "write", write)]


@drill
def drill_leader_by_lease_alone() -> None:
    """A leader is frozen while a write of its own is on its way, which arrives under the next leader."""
    cluster = Scenario(coordinators=2, standbys=True)
    former = cluster.leader()
    _write_late(cluster, 8)
    former.pause(40 * S)
    cluster.run(60)
    cluster.quiet()


def _write_late(cluster: Scenario, seconds: float) -> None:
    """Let a node die, and the write that follows from that arrive so much later."""
    store, core = cluster.simulation.store, cluster.leader().deciding
    assert core is not None
    store.write_delay = int(seconds * S)
    cluster.crash(cluster.backup())
    cluster.step(lambda: core._term.is_writing, 5)
    cluster.run(0.01)
    store.write_delay = 0


def _unknown(self: Term, operation: OperationNumber, ok: bool, state: ClusterState | None) -> bool:
    """Whether a result is that of the write under way, and does not say what became of it."""
    operations = self._operations
    is_writing = operations.writing is not None and operations.current is not None
    return is_writing and operation == operations.current.number and not ok and state is None


@mutant
def unknown_is_stored() -> list[Change]:
    """A write whose outcome is unknown counts as stored."""
    take = Term.take_result

    def changed(
        self: Term,
        operation: OperationNumber,
        ok: bool,
        state: ClusterState | None,
        problem: str,
        **clocks: int,
    ) -> News:
        is_taken = ok or _unknown(self, operation, ok, state)
        return take(self, operation, is_taken, state, problem, **clocks)

    return [(Term, "take_result", changed)]


@drill
def drill_unknown_is_stored() -> None:
    """A write is lost on its way to the store."""
    cluster = Scenario()
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    store, core = cluster.simulation.store, cluster.coordinator.deciding
    assert core is not None
    cluster.crash(cluster.backup())
    store.unknown, store.outcomes = 1.0, ("lost",)
    cluster.step(lambda: core._term.is_writing, 5)
    cluster.run(0.01)
    store.recover()
    cluster.run(40)
    cluster.demand(held.outcome == "held", "LOSS", "a lock was lost with a message to the store")


@mutant
def unknown_is_not_stored() -> list[Change]:
    """A write whose outcome is unknown counts as not stored, and its coordinator goes on where it was."""
    take = Term.take_result

    def changed(
        self: Term,
        operation: OperationNumber,
        ok: bool,
        state: ClusterState | None,
        problem: str,
        **clocks: int,
    ) -> News:
        if self.phase is Phase.ACTIVE and _unknown(self, operation, ok, state):
            self._operations.current = self._operations.writing = None
            self.deposed = frozenset()
            return News.NONE
        return take(self, operation, ok, state, problem, **clocks)

    return [(Term, "take_result", changed)]


@drill
def drill_unknown_is_not_stored() -> None:
    """A lone primary comes back while the write that gives its slots away is late, and would be acknowledged."""
    cluster = Scenario(nodes=2, clients=1)
    simulation, store = cluster.simulation, cluster.simulation.store
    store.in_line = False
    coordinator, core = cluster.coordinator, cluster.coordinator.deciding
    assert core is not None
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, coordinator, 300)
    backup.start()
    cluster.run(25)
    store.write_delay = int(3.5 * S)
    cluster.wait(lambda: core._term.deposed, 15)
    cluster.run(0.01)
    store.write_delay = int(1.9 * S)
    simulation.network.heal()
    cluster.run(3.4)
    cluster.cut(primary, coordinator, 60)
    cluster.cut(primary, backup, 60)
    store.write_delay = 0
    cluster.run(10)


@mutant
def skipped_versions_known() -> list[Change]:
    """Every version below the newest one passes for a state of this store."""
    return [(ClusterState, "has_skipped", lambda self, version: False)]


def _set_back_to_before_a_failover(*, starts: int, with_the_clock: bool) -> None:
    """Let a store go back to before a failover. Coordinators start there that meet no node, and then one meets them.

    Args:
        starts: how many meet none.
        with_the_clock: whether their clock is behind all versions.
    """
    cluster = Scenario(nodes=2, clients=1)
    simulation, coordinator, store = cluster.simulation, cluster.coordinator, cluster.simulation.store
    former, successor, client = cluster.primary(), cluster.backup(), cluster.simulation.clients[0]
    if with_the_clock:
        cluster.set_back_the_clock(coordinator)
    moments = store.length
    for process in (successor, coordinator, client):
        cluster.cut(former, process, 60)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.wait(lambda: cluster.serves(successor), 5)
    cluster.hold(client, cluster.name, ttl_ms=30_000)
    cluster.crash(coordinator)
    coordinator.new_cluster = False
    store.set_back(store.length - moments)
    cluster.cut(successor, coordinator, 60)
    for _ in range(starts):
        coordinator.start()
        cluster.run(1)
        cluster.crash(coordinator)
    cluster.mend(successor, coordinator)
    coordinator.start()
    cluster.wait(lambda: cluster.is_joined(successor), 5)
    simulation.network.heal()
    cluster.run(40)


@drill
def drill_skipped_versions_known() -> None:
    """A store goes back to before a failover; one coordinator meets no node there, and then another one meets them."""
    _set_back_to_before_a_failover(starts=1, with_the_clock=False)


@mutant
def newest_version_forgotten() -> list[Change]:
    """A coordinator that begins to lead knows nothing of what it has read or written before."""
    start = CoordinatorCore.start

    def changed(self: CoordinatorCore, *, newest: Version = NO_VERSION, now_ns: int) -> None:
        del newest
        start(self, now_ns=now_ns)

    return [(CoordinatorCore, "start", changed)]


@drill
def drill_newest_version_forgotten() -> None:
    """A store goes back to before a failover that its standby has read, and the standby leads.

    It reaches the former primary alone, and a client that has not heard of the failover either.
    """
    cluster = Scenario(nodes=2, clients=2, coordinators=2, standbys=True)
    store, (client, other) = cluster.simulation.store, cluster.simulation.clients
    first, (second,) = cluster.leader(), cluster.standbys()
    former, successor = cluster.primary(), cluster.backup()
    moments = store.length
    for process in (successor, first, second, client):
        cluster.cut(former, process, 300)
    cluster.cut(other, successor, 300)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.wait(lambda: cluster.serves(successor), 5)
    cluster.hold(client, cluster.name, ttl_ms=20_000)
    cluster.run(2)
    for coordinator in (first, second):
        cluster.cut(successor, coordinator, 300)
        cluster.mend(former, coordinator)
    cluster.crash(first)
    first.new_cluster = second.new_cluster = False
    store.set_back(store.length - moments)
    cluster.wait(lambda: cluster.decides(second), 10)
    taken = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(25)
    assert taken.outcome == "waiting"


@mutant
def set_back_below_its_leader() -> list[Change]:
    """A leader goes on in a store that has an older version than it knows, as if nothing had been lost."""
    return [(StorePast, "record_older", lambda self, version, found: None)]


@drill
def drill_set_back_below_its_leader() -> None:
    """A store goes back to before a failover under its one leader, and the former primary is back."""
    cluster = Scenario(nodes=2, clients=1)
    simulation, coordinator, store = cluster.simulation, cluster.coordinator, cluster.simulation.store
    former, successor, client = cluster.primary(), cluster.backup(), simulation.clients[0]
    moments = store.length
    for process in (successor, coordinator, client):
        cluster.cut(former, process, 20)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.wait(lambda: cluster.serves(successor), 5)
    cluster.hold(client, cluster.name, ttl_ms=30_000)
    store.set_back(store.length - moments)
    cluster.run(60)


@mutant
def versions_below_reservations() -> list[Change]:
    """Versions rise with the clock alone, whatever is reserved.

    A step by its term's name would make up for that, where it is not a small one.
    """
    return [
        (term, "own_step_ns", lambda term, version: 0),
        (term, "version_above_reserved", lambda state: NO_VERSION),
        (invariants, "is_above_reserved", lambda state: True),
    ]


@mutant
def lost_reservations_uncounted() -> list[Change]:
    """A coordinator begins just above a lost version, as if nothing had been reserved with it.

    A step by its term's name would make up for that, where it is not a small one.
    """
    return [
        (store_past, "version_above_seen", lambda version: Version(version + 1)),
        (term, "own_step_ns", lambda term, version: 0),
    ]


def _tokens_over_a_lost_store() -> None:
    """Let a slot change hands with reservations that outrun the clock, and the store lose everything after that."""
    cluster = Scenario(nodes=2, clients=1, replication="async")
    coordinator, client = cluster.coordinator, cluster.simulation.clients[0]
    cluster.set_back_the_clock(coordinator)
    former, successor = cluster.primary(), cluster.backup()
    cluster.crash(former)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    former.start()
    cluster.quiet()
    cluster.crash(successor)
    cluster.wait(lambda: cluster.primary() is former, 10)
    for _ in range(3):
        cluster.let_go(client, *cluster.hold(client, cluster.name))
    cluster.crash(coordinator)
    coordinator.new_cluster = False
    cluster.simulation.store.wipe()
    coordinator.start()
    cluster.run(40)
    cluster.hold(client, cluster.name)


@drill
def drill_versions_below_reservations() -> None:
    """A slot changes hands twice while the clock is behind, with `async` replication, and then the store is lost."""
    _tokens_over_a_lost_store()


@drill
def drill_lost_reservations_uncounted() -> None:
    """The same: the last that the lost store had reserved was above its version."""
    _tokens_over_a_lost_store()


@mutant
def first_version_by_count() -> list[Change]:
    """A term's first version is the lowest that is free by what is known, and states that were lost may have had it."""
    return [(term, "own_step_ns", lambda term, version: 0)]


def _lost_with_the_clock() -> None:
    """Let a store be lost, and the clock. The only node that is left was away when the latest states were made."""
    cluster = Scenario(replication="async", durability="process")
    coordinator, first, third = cluster.coordinator, cluster.primary(), cluster.third()
    cluster.set_back_the_clock(coordinator)
    stored = cluster.states()
    cluster.crash(first)
    # This state gives a slot new generations, as the next such state does, by as many versions as a loss skips.
    cluster.step(lambda: cluster.version() % 1000 == 0 and cluster.knows(third), 10)
    cluster.run(0.01)
    cluster.crash(third)
    first.start()
    cluster.run(6)
    for process in (coordinator, *cluster.simulation.nodes):
        cluster.crash(process)
    cluster.simulation.store.wipe()
    coordinator.start()
    third.start()
    cluster.wait(lambda: cluster.knows(third), 10)
    versions = [state.version for state in stored]
    cluster.demand(len(set(versions)) == len(versions), "STATE", "two states have one version")


@drill
def drill_first_version_by_count() -> None:
    """A store is set back, or lost, and so is the clock. Nodes come back that know of states which were lost."""
    _set_back_to_before_a_failover(starts=6, with_the_clock=True)
    _lost_with_the_clock()


@mutant
def own_versions_unasked() -> list[Change]:
    """A version between those of this term passes for one of them."""
    return [(OwnVersions, "lack", lambda self, version: False)]


@drill
def drill_own_versions_unasked() -> None:
    """A store goes back to before failovers, and the clock. Others follow, and then comes a node that knows the first.

    With `async` replication each failover takes the versions a second further. A coordinator's step is about as long.
    """
    cluster = Scenario(replication="async")
    simulation, coordinator, store = cluster.simulation, cluster.coordinator, cluster.simulation.store
    former, third = cluster.primary(), cluster.third()
    successor = next(each for each in simulation.nodes if each not in (former, third))
    cluster.set_back_the_clock(coordinator)
    moments, before = store.length, cluster.version()

    def fail_over(times: int) -> None:
        for _ in range(times):
            cluster.crash(third)
            cluster.run(7)
            third.start()
            cluster.run(5)

    for process in (successor, coordinator):
        cluster.cut(former, process, 600)
    cluster.run(10)
    fail_over(3)
    known = cluster.version()
    assert known > before + 2 * S
    for process in (coordinator, third):
        cluster.crash(process)
    coordinator.new_cluster = False
    store.set_back(store.length - moments)
    cluster.cut(successor, coordinator, 600)
    cluster.mend(former, coordinator)
    coordinator.start()
    third.start()
    cluster.run(10)
    first = cluster.version()
    fail_over(5)
    assert first < known < cluster.version()
    cluster.mend(successor, coordinator)
    cluster.wait(lambda: cluster.is_joined(successor), 20)
    core = coordinator.deciding
    assert core is not None
    cluster.demand(
        core._term._past.loss is not None, "P4", "a store was set back, and its coordinator trusts in it"
    )


@mutant
def own_versions_kept() -> list[Change]:
    """A term goes on counting the versions that it has written, although another one has written since."""
    record = StorePast.record_found

    def changed(self: StorePast, stored: ClusterState, *, is_own: bool, may_be_empty: bool) -> None:
        own = self.own
        record(self, stored, is_own=is_own, may_be_empty=may_be_empty)
        self.own = own

    return [(StorePast, "record_found", changed)]


@drill
def drill_own_versions_kept() -> None:
    """A coordinator does not hear that its claims are in the store. Meanwhile another one leads, and decides."""
    cluster = Scenario(coordinators=2)
    (first, second), store = cluster.simulation.coordinators, cluster.simulation.store
    third = cluster.third()
    claims: list[int] = []

    def has_claimed() -> bool:
        state = store.state
        return state is not None and state.term.startswith(f"{second.name}-") and state.version not in claims

    cluster.crash(first)
    second.start()
    for silent_s in (1, 60):
        cluster.step(has_claimed, 30)
        claims.append(cluster.version())
        store.cut(second, silent_s * S)
    first.start()
    cluster.wait(lambda: cluster.is_joined(third) and cluster.knows(third), 20)
    cluster.crash(third)
    cluster.run(20)
    between = cluster.version()
    cluster.crash(first)
    third.start()
    cluster.wait(lambda: cluster.decides(second), 60)
    assert claims[-1] < between < cluster.version()
    cluster.wait(lambda: all(cluster.is_joined(node) for node in cluster.simulation.nodes), 20)
    core = second.deciding
    assert core is not None
    text = "all slots wait, since a version that another coordinator wrote passes for a lost one"
    cluster.demand(core._term._past.loss is None, "WORK", text)
