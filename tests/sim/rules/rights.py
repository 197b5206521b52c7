"""Rules about who may serve, and until when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockring.cluster_state import ClusterState
from lockring.core.coordinator import CoordinatorCore, term
from lockring.core.effects import Broadcast
from lockring.core.node import copies, leases, locks, states
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.core.node.leases import Lease, Promises
from lockring.core.node.reign import Reign
from lockring.core.node.replicator import Replicator
from lockring.core.node.rights import Rights
from lockring.core.node.roles import SlotRoles
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import SlotNumber, Version
from lockring.protocol import SlotRequest, SlotRequestKind, State, StateDifference
from lockring.units import ms_to_ns
from tests.sim.framework.world import Process, S
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def no_backup_lease() -> list[Change]:
    """A primary with copies serves without their lease."""

    def may_serve(self: Rights, number: SlotNumber, *, now_ns: int) -> bool:
        slot = self._slots.get(number)
        return slot is not None and slot.reign is not None and self.coordinator_lease_left_ns(now_ns) > 0

    def may_serve_everything(self: Rights, now_ns: int) -> bool:
        return self.coordinator_lease_left_ns(now_ns) > 0

    return [(Rights, "may_serve", may_serve), (Rights, "may_serve_everything", may_serve_everything)]


@drill
def drill_no_backup_lease() -> None:
    """A primary is cut off from every process, and its backup takes over."""
    cluster = Scenario(clients=1)
    primary = cluster.primary()
    for process in [*cluster.simulation.nodes, cluster.coordinator]:
        if process is not primary:
            cluster.cut(primary, process, 20)
    cluster.run(10)


@mutant
def no_coordinator_lease() -> list[Change]:
    """A node serves without the coordinator's lease."""
    left = Rights.coordinator_lease_left_ns
    may = Rights.may_serve

    def coordinator_lease_left_ns(self: Rights, now_ns: int) -> int:
        return max(left(self, now_ns), 10 * S)

    def may_serve(self: Rights, number: SlotNumber, *, now_ns: int) -> bool:
        lease, self.coordinator_lease = self.coordinator_lease, Lease()
        self.coordinator_lease.until_ns = now_ns + S
        answer = may(self, number, now_ns=now_ns)
        self.coordinator_lease = lease
        return answer

    return [
        (Rights, "coordinator_lease_left_ns", coordinator_lease_left_ns),
        (Rights, "may_serve", may_serve),
        (Rights, "may_serve_everything", lambda self, now_ns: self.has_all_copy_leases(now_ns)),
    ]


@drill
def drill_no_coordinator_lease() -> None:
    """Both copies of a slot are cut off from the coordinator, until it is assigned again."""
    cluster = Scenario(clients=1)
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, cluster.coordinator, 60)
    cluster.run(50)


@mutant
def no_wait() -> list[Change]:
    """A promoted copy serves at once, not after its promise to the former primary."""
    return [(Promises, "bound_until_ns", lambda self, primary, backup_lease_ns: DISTANT_PAST_NS)]


@drill
def drill_no_wait() -> None:
    """A primary is cut off from the coordinator, which promotes its backup; the two reach each other."""
    cluster = Scenario(clients=1)
    cluster.cut(cluster.primary(), cluster.coordinator, 60)
    cluster.run(15)


@mutant
def learner_late() -> list[Change]:
    """A learner is required only once the state says that it is the backup, not from before that is asked for."""
    check = Replicator._check_learner

    def _check_learner(self: Replicator, slot: SlotNumber, reign: Reign, now_ns: int) -> None:
        check(self, slot, reign, now_ns)
        learner = self._context.state.slots[slot].learner
        if learner is not None and learner.replica in reign.streams:
            reign.streams[learner.replica].required = False
            self._context.rights.copies_changed()

    return [(Replicator, "_check_learner", _check_learner)]


@drill
def drill_learner_late() -> None:
    """A lock is taken when the learner is reported in sync, and only that report gets through."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    client, coordinator = cluster.simulation.clients[0], cluster.coordinator
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.let_go(client, *cluster.hold(client, cluster.name))
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(primary, coordinator, 60)
    cluster.run(0.05)
    cluster.silence(primary, learner, 60)
    client.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.05)
    cluster.unsilence(primary, coordinator)
    cluster.run(3)


@mutant
def snap_any() -> list[Change]:
    """A learner is reported in sync before it has anything."""

    def _check_learner(self: Replicator, slot: SlotNumber, reign: Reign, now_ns: int) -> None:
        state = self._context.state.slots[slot]
        learner = state.learner
        stream = None if learner is None else reign.streams.get(learner.replica)
        if learner is not None and stream is not None:
            stream.required = True
            self._context.rights.copies_changed()
            who = learner.replica
            item = SlotRequest(slot, state.epoch, who.node, who.incarnation, learner.joined)
            self._context.outbox.ask(SlotRequestKind.IN_SYNC, item)

    return [(Replicator, "_check_learner", _check_learner)]


@drill
def drill_snap_any() -> None:
    """A learner gets nothing of the snapshot that it is to begin with."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(learner, primary, 60)
    cluster.step(lambda: cluster.knows(primary) and cluster.knows(learner), 1)
    cluster.silence(primary, learner, 60)
    cluster.unsilence(learner, primary)
    cluster.run(3)


@mutant
def no_ttl_cap() -> list[Change]:
    """A promise to a client is not capped by the node's coordinator lease."""
    return [(locks.Session, "promise_ms", lambda self, left_ns: self.ttl_ms)]


@drill
def drill_no_ttl_cap() -> None:
    """A lone primary is cut off from the coordinator while a client with the longest TTL renews at it."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=30_000)
    cluster.run(1)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, cluster.simulation.coordinators[0], 200)
    backup.start()
    cluster.run(80)


@mutant
def peer_ack_newer() -> list[Change]:
    """An acknowledgement of a peer that knows a newer state counts at once."""
    return [(Replicator, "acknowledged", _with_version(Replicator.acknowledged))]


@drill
def drill_peer_ack_newer() -> None:
    """As for `no_wait`, and what the backup knows does not get to the former primary, but what it acknowledges does."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    cluster.cut(former, cluster.coordinator, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.run(0.28)
    cluster.silence(successor, former, 60)
    cluster.run(5)


def _with_version(acknowledged: Callable[..., None]) -> Callable[..., None]:
    def changed(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        link = self.links.get(peer)
        if link is not None and message.version > self._context.state.version:
            at_ns = link.sent._at_ns.get(message.sequence)
            if at_ns is not None:
                lease_ns = ms_to_ns(self._context.state.backup_lease_ms)
                link.lease.until_ns = max(link.lease.until_ns, at_ns + lease_ns)
                link.lease.version = max(link.lease.version, message.version)
        acknowledged(self, peer, message, now_ns)

    return changed


@mutant
def peer_ack_older() -> list[Change]:
    """An acknowledgement of a peer that does not know the reign yet gives a lease for it."""
    acknowledged = Replicator.acknowledged

    def changed(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        acknowledged(self, peer, message, now_ns)
        link = self.links.get(peer)
        if link is not None and link.lease.until_ns != DISTANT_PAST_NS:
            link.lease.version = max(link.lease.version, self._context.state.version)

    return [(Replicator, "acknowledged", changed)]


@drill
def drill_peer_ack_older() -> None:
    """A node joins and takes a slot over; the former primary acknowledges without knowing of that, and gets it back."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, member_lease_s=3, slot=2)
    cluster.be_patient()
    former = cluster.simulation.nodes[0]
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.wait(lambda: cluster.slot().backup is not None, 5)
    # The former primary hears nothing of the swap, and its successor nothing of the former primary.
    cluster.silence(cluster.coordinator, former, 60)
    cluster.step(lambda: cluster.primary() is joined, 5)
    cluster.silence(joined, cluster.coordinator, 60)
    cluster.silence(former, joined, 60)
    cluster.step(lambda: cluster.knows(joined), 1)
    cluster.silence(cluster.coordinator, joined, 60)
    # Its reign begins, and its first message gets through; the news that would follow does not.
    cluster.step(lambda: cluster.reigns(joined), 5)
    cluster.silence(joined, former, 60)
    cluster.unsilence(former, joined)
    cluster.run(0.05)
    # It counts as failed, and is replaced by the former primary, which learns only of that.
    cluster.wait(lambda: cluster.primary() is former, 5)
    cluster.forget_steps()
    cluster.break_connections(former, cluster.coordinator)
    cluster.mend(cluster.coordinator, former)
    cluster.wait(lambda: cluster.serves(former), 5)


def _coordinator_ack_counts() -> list[Change]:
    """A coordinator's acknowledgement at a newer state than the node's counts at once."""
    acknowledged = CoordinatorTie.acknowledged

    def changed(self: CoordinatorTie, message: Any) -> bool:
        message.version = min(message.version, self._context.state.version)
        return acknowledged(self, message)

    return [(CoordinatorTie, "acknowledged", changed)]


def _states_come_late() -> list[Change]:
    """Nodes hear of a state only by what is sent again to those whose heartbeats show that they are behind."""
    install = CoordinatorCore._install

    def changed(self: CoordinatorCore, now_ns: int, *, is_own: bool) -> None:
        before = len(self._effects)
        install(self, now_ns, is_own=is_own)
        self._effects[before:] = [
            each
            for each in self._effects[before:]
            if not (isinstance(each, Broadcast) and isinstance(each.message, (State, StateDifference)))
        ]

    return [(CoordinatorCore, "_install", changed)]


@pair(_coordinator_ack_counts, _states_come_late)
def coordinator_ack_newer() -> None:
    """A coordinator's acknowledgement at a newer state counts at once, and may arrive before that state.

    Each alone suffices: a coordinator sends a state before any acknowledgement at it, on the same ordered connection.
    """


@drill
def drill_coordinator_ack_newer() -> None:
    """A lone primary comes back just after its slots were given to another, and the news of that is late."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.crash(backup)
    cluster.run(10)
    assert cluster.slot().backup is None
    cluster.cut(primary, cluster.coordinator, 300)
    backup.start()
    cluster.wait(lambda: cluster.primary() is backup, 60)
    cluster.break_connections(backup, cluster.coordinator)
    cluster.wait(lambda: cluster.serves(backup), 5)
    cluster.mend(cluster.coordinator, primary)
    cluster.run(3)


@mutant
def no_drift() -> list[Change]:
    """No margin for clocks of different rates."""
    modules = [leases, copies, locks, term]
    assert all("up" in module.__dict__ for module in modules)
    return [(module, "up", lambda duration_ns: duration_ns) for module in modules]


@drill
def drill_no_drift() -> None:
    """As for `peer_ack_newer`, and the successor's clock is nearly 5 % faster than the former primary's."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    cluster.set_clock_rate(former, 0)
    cluster.set_clock_rate(successor, 49_000)
    cluster.cut(former, cluster.coordinator, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.step(lambda: cluster.knows(successor), 1)
    cluster.silence(successor, former, 60)
    cluster.run(5)


@mutant
def lease_from_ack() -> list[Change]:
    """Leases count from the arrival of the acknowledgement, not from the sending of what it acknowledges."""
    peer = Replicator.acknowledged
    coordinator = CoordinatorTie.acknowledged

    def from_peer(self: Replicator, sender: Any, message: Any, now_ns: int) -> None:
        link = self.links.get(sender)
        if link is not None and message.sequence in link.sent._at_ns:
            link.sent._at_ns[message.sequence] = now_ns
        peer(self, sender, message, now_ns)

    def from_coordinator(self: CoordinatorTie, message: Any) -> bool:
        if message.sequence in self._heartbeats._at_ns:
            self._heartbeats._at_ns[message.sequence] = self._context.now_ns
        return coordinator(self, message)

    return [(Replicator, "acknowledged", from_peer), (CoordinatorTie, "acknowledged", from_coordinator)]


@drill
def drill_lease_from_ack() -> None:
    """The backup's acknowledgements arrive only when the primary's lease is nearly over."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    for process in (cluster.third(), cluster.coordinator):
        cluster.cut(primary, process, 60)
    cluster.run(0.5)
    cluster.delay(backup, primary, 1.2)
    cluster.run(0.45)
    cluster.cut(primary, backup, 60)
    cluster.run(6)


@mutant
def stale_now() -> list[Change]:
    """After a stop handlers go on with the clock that was read before it."""
    finish = Process._finish
    go_on = Process._go_on

    def stale_finish(self: Process, life: int) -> None:
        then = self._turn_now if self._busy and self.life == life else None
        if then is None or not self.__dict__.get("stopped_in_turn"):
            finish(self, life)
            return
        self.__dict__["stopped_in_turn"] = False
        self.__dict__["now_ns"] = lambda: then
        try:
            finish(self, life)
        finally:
            del self.__dict__["now_ns"]

    def stale_go_on(self: Process, rest: Any) -> None:
        self.__dict__["stopped_in_turn"] = True
        go_on(self, rest)

    return [(Process, "_finish", stale_finish), (Process, "_go_on", stale_go_on)]


@drill
def drill_stale_now() -> None:
    """A primary is stopped in the middle of a turn, for longer than its lease."""
    cluster = Scenario(clients=1)
    cluster.stop_in_a_turn(cluster.primary(), 4)
    cluster.run(20)


@mutant
def orig_swap() -> list[Change]:
    """In a planned swap the successor does not wait its promise to the former primary out, nor for its word.

    That the former primary has to acknowledge in the new reign mostly protects here too, but it may be dropped
    meanwhile.
    """
    change_slot = SlotRoles._change_slot

    def changed(self: SlotRoles, number: SlotNumber, before: Any, after: Any, now_ns: int) -> Any:
        ended = change_slot(self, number, before, after, now_ns)
        slot = self._context.slots.get(number)
        if slot is None or after.primary != self._context.replica or after.since == before.since:
            return ended
        if slot.reign is None and after.backup is not None and after.backup.replica == before.primary:
            slot.not_before_ns = DISTANT_PAST_NS
            self._begin_at(slot, now_ns)
        return ended

    return [(SlotRoles, "_change_slot", changed)]


@drill
def drill_orig_swap() -> None:
    """A draining primary hears neither of the swap nor of its successor, who is rid of it soon."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    former, successor = cluster.primary(), cluster.backup()
    former.drain()
    cluster.run(0.5)
    cluster.silence(cluster.coordinator, former, 60)
    cluster.silence(cluster.third(), former, 60)
    cluster.step(lambda: cluster.primary() is successor, 5)
    cluster.step(lambda: cluster.knows(successor), 1)
    cluster.cut(former, successor, 60)
    cluster.break_connections(successor, former)
    cluster.run(3)


@mutant
def drop_unasked() -> list[Change]:
    """A primary does without a copy from when it has asked for that, not from when a state says so."""
    check = Replicator.check_copies

    def changed(self: Replicator, now_ns: int) -> None:
        check(self, now_ns)
        for link in self.links.values():
            if link.asked_at_ns == now_ns:
                for stream in link.streams.values():
                    stream.required = False
                self._context.rights.copies_changed()

    return [(Replicator, "check_copies", changed)]


@drill_by_chance(range(1, 6))
def drill_drop_unasked(seed: int) -> None:
    """A primary can reach neither its backup nor, with what it asks, the coordinator."""
    cluster = Scenario(clients=1, seed=seed)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(primary, cluster.coordinator, 30)
    cluster.cut(primary, backup, 30)
    cluster.run(10)
    assert cluster.primary() is backup


@mutant
def state_any() -> list[Change]:
    """A node takes a cluster state that is older than its own."""
    may_follow = states._may_follow

    def changed(context: NodeContext, state: ClusterState) -> bool:
        if 0 < state.version < context.state.version:
            context.state = msgspec.structs.replace(context.state, version=Version(0))
        return may_follow(context, state)

    return [(states, "_may_follow", changed)]


@drill
def drill_state_any() -> None:
    """A former primary hears once more of the state in which it had the slot alone."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, slot=2)
    former = cluster.simulation.nodes[0]
    states = cluster.states()
    cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.simulation.add_node()
    cluster.quiet()
    joined = cluster.simulation.nodes[1]
    assert cluster.primary() is joined
    old = next(each for each in states if each.slots[2].primary is not None)
    cluster.cut(former, cluster.coordinator, 20)
    cluster.silence(joined, former, 20)
    cluster.tell_again(former, old)
    cluster.run(5)
