"""Rules about the coordinator's term, and what it may decide."""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.cluster_state import GENERATIONS_PER_REIGN, Replica, SlotState
from lockring.core.coordinator import CoordinatorCore, transitions
from lockring.core.coordinator import reconciler_runs as planning
from lockring.core.coordinator import slot_requests as asks
from lockring.core.coordinator.heartbeats import Heartbeats
from lockring.core.coordinator.term import News, Phase, Term
from lockring.core.node.grants import NodeGrants
from lockring.core.timing import up
from lockring.ids import ConnectionId, SequenceNumber, Version
from lockring.ring.hash_ring import HashRing
from lockring.units import ms_to_ns
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import S
from tests.sim.rules.stores import versions_below_reservations
from tests.sim.rules.switches import Change, drill, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def no_confirm() -> list[Change]:
    """A coordinator acknowledges heartbeats whatever the confirming read says."""
    return [(Term, "_confirmed", lambda self, ok, stored, now_ns: News.CONFIRMED)]


@drill
def drill_no_confirm() -> None:
    """A second coordinator takes over while all nodes but a new one stay with the first."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, coordinators=2)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    first, second = cluster.simulation.coordinators
    for node in cluster.simulation.nodes:
        cluster.cut(node, second, 80)
    second.start()
    cluster.run(0.5)
    cluster.simulation.add_node()
    cluster.cut(cluster.simulation.nodes[-1], first, 80)
    cluster.run(60)
    assert held.outcome == "local-deadline"


@mutant
def confirmed_by_an_earlier_read() -> list[Change]:
    """A read of the store confirms all heartbeats that have arrived by its end, not by its beginning."""

    def take(self: Heartbeats) -> dict[ConnectionId, SequenceNumber]:
        confirmed = {**self._confirming, **self._waiting}
        self._confirming, self._waiting = {}, {}
        return confirmed

    return [(Heartbeats, "take_confirmed", take)]


@drill
def drill_confirmed_by_an_earlier_read() -> None:
    """A second coordinator takes over right after the first has read the store, and the answer is long under way."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, coordinators=2)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    (first, second), store = cluster.simulation.coordinators, cluster.simulation.store
    store.timeout, store.answer_delay[first.name] = 9 * S, 8 * S
    for node in cluster.simulation.nodes:
        cluster.cut(node, second, 90)
    core = first.deciding
    assert core is not None
    cluster.wait(lambda: not core._term.is_confirming, 20)
    cluster.step(lambda: core._term.is_confirming, 5)
    cluster.run(0.02)
    second.start()
    cluster.run(0.5)
    cluster.simulation.add_node()
    cluster.cut(cluster.simulation.nodes[-1], first, 90)
    cluster.run(70)
    assert held.outcome == "local-deadline"


@mutant
def ack_deposed() -> list[Change]:
    """A coordinator acknowledges a node while its own write against that node is under way."""
    acknowledge = CoordinatorCore._acknowledge

    def changed(self: CoordinatorCore, now_ns: int) -> None:
        deposed, self._term.deposed = self._term.deposed, frozenset()
        acknowledge(self, now_ns)
        self._term.deposed = deposed

    return [(CoordinatorCore, "_acknowledge", changed)]


@drill
def drill_ack_deposed() -> None:
    """A lone primary comes back while the write that gives its slots away is under way."""
    cluster = Scenario(nodes=2, clients=1)
    simulation = cluster.simulation
    coordinator = simulation.coordinators[0]
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, coordinator, 300)
    backup.start()
    cluster.run(25)
    simulation.store.in_line = False
    simulation.store.timeout, simulation.store.write_delay = 9 * S, 8 * S
    core = coordinator.deciding
    assert core is not None
    cluster.wait(lambda: core._term.deposed, 15)
    simulation.network.heal()
    cluster.run(5)
    cluster.cut(primary, coordinator, 60)
    cluster.run(10)


@mutant
def range_again() -> list[Change]:
    """A reign that begins empty hands out the generations of the one before again."""
    fresh = transitions._fresh_range

    def _fresh_range(slot: SlotState, version: Version) -> tuple[int, int]:
        if slot.generation_below:
            return slot.generation_from, slot.generation_below
        return fresh(slot, version)

    return [(transitions, "_fresh_range", _fresh_range)]


@drill
def drill_range_again() -> None:
    """Both copies are lost, and the slot is assigned empty."""
    cluster = Scenario()
    client = cluster.simulation.clients[0]
    held = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    for node in (cluster.primary(), cluster.backup()):
        cluster.crash(node)
    cluster.run(45)
    again = client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 10)
    assert again.generation > held.generation


@mutant
def incarnation_blind() -> list[Change]:
    """A restarted node takes the incarnation of its former life."""
    start = NodeShell.on_start

    def on_start(self: NodeShell) -> None:
        wall_offset = self.wall_offset
        self.wall_offset = -self.world.now
        start(self)
        self.wall_offset = wall_offset

    return [(NodeShell, "on_start", on_start)]


@drill
def drill_incarnation_blind() -> None:
    """A lone primary restarts at once; who looks only at its name takes it for the one that had the locks."""
    cluster = Scenario(nodes=1, clients=1)
    primary = cluster.primary()
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=30_000)
    cluster.crash(primary)
    primary.start()
    cluster.run(15)


_TERM_OF: dict[str, str] = {}
"""For `no_bump`: who has said last that it is the coordinator of a cluster, kept beside the state."""


@mutant
def no_bump() -> list[Change]:
    """A coordinator starts without writing its term into the state: it is kept beside it, and confirmed there."""
    read, installed = Term._read, Term._installed

    def starts(self: Term, ok: bool, stored: Any, now_ns: int, wall_ns: int) -> News:
        if not ok or stored is None or self._past.has_lost or self.state is not None:
            return read(self, ok, stored, now_ns, wall_ns)
        self._past.record_found(stored, is_own=False, may_be_empty=True)
        self.lease_wait_ns = max(self.lease_wait_ns, up(ms_to_ns(stored.coordinator_lease_ms)))
        self.phase = Phase.CLAIMING
        claimed = msgspec.structs.replace(stored, term=self.name, coordinator=self.address)
        return self._installed(claimed)

    def noted(self: Term, state: Any) -> News:
        if self.phase is not Phase.ACTIVE:
            _TERM_OF[state.cluster] = self.name
        return installed(self, state)

    def confirmed(self: Term, ok: bool, stored: Any, now_ns: int) -> News:
        if not ok or stored is None:
            return News.NONE
        return News.CONFIRMED if _TERM_OF[stored.cluster] == self.name else self._end(stored)

    return [(Term, "_read", starts), (Term, "_installed", noted), (Term, "_confirmed", confirmed)]


@drill
def drill_no_bump() -> None:
    """A coordinator starts while its predecessor's write against a lone primary is under way, and hears that
    primary."""
    cluster = Scenario(nodes=2, clients=1, coordinators=2)
    simulation = cluster.simulation
    first, second = simulation.coordinators
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, first, 300)
    cluster.cut(backup, second, 300)
    cluster.cut(backup, primary, 300)
    backup.start()
    cluster.run(25)
    simulation.store.timeout, simulation.store.write_delay = 9 * S, 8 * S
    core = first.deciding
    assert core is not None
    cluster.wait(lambda: core._term.deposed, 15)
    cluster.run(5.5)
    simulation.store.write_delay = 0
    second.start()
    cluster.run(3)
    # It starts again, and reports that write; the lone primary does not hear it any more.
    cluster.cut(primary, second, 300)
    cluster.crash(second)
    cluster.mend(backup, second)
    second.start()
    cluster.run(10)


def _fresh_from_the_version() -> list[Change]:
    def _fresh_range(slot: SlotState, version: Version) -> tuple[int, int]:
        first = version // 1_000
        return first, max(first + GENERATIONS_PER_REIGN, slot.generation_below)

    return [(transitions, "_fresh_range", _fresh_range)]


@pair(_fresh_from_the_version, versions_below_reservations)
def orig_gen() -> None:
    """The generations of a reign that begins empty come from the clock alone, not from what was reserved before.

    They are above all reservations, and versions are too: either rule suffices.
    """


@drill
def drill_orig_gen() -> None:
    """The coordinator's clock is an hour behind its versions while every copy is lost, twice."""
    cluster = Scenario()
    client = cluster.simulation.clients[0]
    cluster.set_back_the_clock(cluster.coordinator)
    for _ in range(2):
        copies = (cluster.primary(), cluster.backup())
        for node in copies:
            cluster.crash(node)
        cluster.run(45)
        task = client.take(cluster.name, ttl_ms=TTL_MS)
        cluster.wait(lambda task=task: task.outcome == "held", 10)
        client.give_back(task)
        for node in copies:
            node.start()
        cluster.quiet()


@mutant
def range_ignored() -> list[Change]:
    """A primary hands out generations beyond those that are reserved for it."""
    grant = NodeGrants.grant

    def changed(self: NodeGrants, slot: Any, *rest: Any, now_ns: int) -> Any:
        before = self._context.state
        slots = list(before.slots)
        slots[slot.number] = msgspec.structs.replace(slots[slot.number], generation_below=1 << 52)
        self._context.state = msgspec.structs.replace(before, slots=tuple(slots))
        try:
            return grant(self, slot, *rest, now_ns=now_ns)
        finally:
            self._context.state = before

    return [(NodeGrants, "grant", changed)]


@drill
def drill_range_ignored() -> None:
    """A primary runs out of generations while it is cut off from the coordinator; then every copy is lost."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    with cluster.short_reservations():
        cluster.set_back_the_clock(cluster.coordinator)
        for _ in range(2):
            copies = (cluster.primary(), cluster.backup())
            cluster.cut(copies[0], cluster.coordinator, 3)
            for _ in range(10):
                task = one.take(cluster.name, ttl_ms=300, wait_ms=100)
                cluster.run(0.2)
                if task.outcome == "held":
                    one.give_back(task)
            for node in copies:
                cluster.crash(node)
            cluster.run(45)
            again = other.take(cluster.name, ttl_ms=300)
            cluster.wait(lambda task=again: task.outcome == "held", 10)
            other.give_back(again)
            for node in copies:
                node.start()
            cluster.quiet()


@mutant
def range_of_laggards() -> list[Change]:
    """With `async` replication too, a promoted copy goes on in the generations of the reign before."""

    def _inherited_range(slot: SlotState, version: Version, lagging: bool) -> tuple[int, int]:
        return slot.generation_from, slot.generation_below

    return [(transitions, "_inherited_range", _inherited_range)]


@drill
def drill_range_of_laggards() -> None:
    """With asynchronous replication a grant never leaves the primary, which dies."""
    cluster = Scenario(replication="async")
    one, other = cluster.simulation.clients
    primary = cluster.primary()
    cluster.silence(primary, cluster.backup(), 60)
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 1)
    cluster.crash(one)
    cluster.crash(primary, power=True)
    again = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: again.outcome == "held", 15)


@mutant
def version_by_clock() -> list[Change]:
    """Versions are the wall clock's time, even if that was set back."""
    return [(Term, "_version_after", lambda self, version, wall_ns: wall_ns)]


@drill
def drill_version_by_clock() -> None:
    """A coordinator starts again with its clock set back."""
    cluster = Scenario(clients=1)
    cluster.crash(cluster.coordinator)
    cluster.set_back_the_clock(cluster.coordinator)
    cluster.run(1)
    cluster.coordinator.start()
    cluster.quiet()


@mutant
def lease_of_config() -> list[Change]:
    """A coordinator waits for leases as long as its own configuration says, not as the stored state says."""
    claim = Term._claim

    def changed(self: Term, stored: Any, now_ns: int, wall_ns: int) -> None:
        claim(self, stored, now_ns, wall_ns)
        self.lease_wait_ns = up(self._settings.timing.coordinator_lease_ns)

    return [(Term, "_claim", changed)]


@drill
def drill_lease_of_config() -> None:
    """A coordinator is started again with a shorter lease configured, while both copies of a slot are cut off from
    it."""
    cluster = Scenario()
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    coordinator = cluster.coordinator
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, coordinator, 90)
    cluster.crash(coordinator)
    cluster.configure_lease(6)
    cluster.run(0.5)
    coordinator.start()
    cluster.run(25)


def _any_epoch() -> list[Change]:
    """A request about an earlier epoch of a slot is granted."""
    granted = asks._granted

    def changed(
        state: Any, slot: SlotState, sender: Any, kind: int, item: Any, version: Version
    ) -> SlotState:
        item = msgspec.structs.replace(item, epoch=slot.epoch)
        return granted(state, slot, sender, kind, item, version=version)

    return [(asks, "_granted", changed)]


def _any_tenure() -> list[Change]:
    """A request about an earlier tenure of a copy is granted for its present one."""
    granted = asks._granted

    def changed(
        state: Any, slot: SlotState, sender: Any, kind: int, item: Any, version: Version
    ) -> SlotState:
        for copy in (slot.backup, slot.learner):
            if copy is not None and copy.replica == Replica(item.node, item.incarnation):
                item = msgspec.structs.replace(item, joined=copy.joined)
        return granted(state, slot, sender, kind, item, version=version)

    return [(asks, "_granted", changed)]


@pair(_any_epoch, _any_tenure)
def ask_by_name() -> None:
    """Requests about a copy name the node only, not the epoch of the slot, nor the copy's tenure.

    Each alone suffices: whatever ends a tenure and begins another changes the epoch.
    """


@drill
def drill_ask_by_name() -> None:
    """A report of a learner in sync is late: the learner was dropped since, and has begun again."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    coordinator = cluster.coordinator
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    learner.start()
    cluster.run(0.9)
    cluster.silence(learner, coordinator, 60)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(learner, primary, 60)
    cluster.run(3)
    cluster.silence(primary, coordinator, 60)
    cluster.unsilence(learner, primary)
    cluster.step(lambda: cluster.slot().learner is None, 3)
    cluster.silence(primary, learner, 60)
    cluster.unsilence(learner, coordinator)
    cluster.step(lambda: cluster.slot().learner is not None, 1)
    cluster.step(lambda: cluster.knows(learner), 1)
    cluster.unsilence(primary, coordinator)
    cluster.run(2)


@mutant
def ring_from_scratch() -> list[Change]:
    """The ring of the new members is made from scratch, not from the ring before."""
    return [
        (
            planning,
            "_target_of",
            lambda settled, state, previous: HashRing(
                {replica.node: weight for replica, weight in settled.items()}
            ),
        )
    ]


@drill
def drill_ring_from_scratch() -> None:
    """Nodes join one by one, leave one by one, and come again."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=3)
    for _ in range(3):
        cluster.simulation.add_node()
        cluster.quiet()
    for node in cluster.simulation.nodes[1:4]:
        node.drain()
        cluster.wait(lambda node=node: not node.alive, 15)
        cluster.quiet()
        node.start()
        cluster.quiet()
