"""Rules about who may serve, and until when; see `mutants`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockring.core import leases, node_roles, sessions, term
from lockring.core.coordinator import CoordinatorCore
from lockring.core.effects import Publish
from lockring.core.leases import NEVER_NS, Lease, Promises
from lockring.core.node import NodeCore
from lockring.core.node_replication import Replicator
from lockring.core.node_roles import Roles
from lockring.core.replication import Reign
from lockring.messages import AskItem, AskKind
from lockring.units import ms_to_ns
from tests.sim.switches import Change, mutant, pair
from tests.sim.world import Process, S


@mutant
def no_backup_lease() -> list[Change]:
    """A primary with copies serves without their lease."""

    def may_serve(self: NodeCore, slot: int, *, now_ns: int) -> bool:
        data = self.slots.get(slot)
        return data is not None and data.reign is not None and self.coordinator_lease_left_ns(now_ns) > 0

    def may_serve_everything(self: NodeCore, now_ns: int) -> bool:
        return self.coordinator_lease_left_ns(now_ns) > 0

    return [(NodeCore, "may_serve", may_serve), (NodeCore, "may_serve_everything", may_serve_everything)]


@mutant
def no_coordinator_lease() -> list[Change]:
    """A node serves without the coordinator's lease."""
    left = NodeCore.coordinator_lease_left_ns
    may = NodeCore.may_serve

    def coordinator_lease_left_ns(self: NodeCore, now_ns: int) -> int:
        return max(left(self, now_ns), 10 * S)

    def may_serve(self: NodeCore, slot: int, *, now_ns: int) -> bool:
        lease, self.coordinator_lease = self.coordinator_lease, Lease()
        self.coordinator_lease.until_ns = now_ns + S
        answer = may(self, slot, now_ns=now_ns)
        self.coordinator_lease = lease
        return answer

    return [
        (NodeCore, "coordinator_lease_left_ns", coordinator_lease_left_ns),
        (NodeCore, "may_serve", may_serve),
        (NodeCore, "may_serve_everything", lambda self, now_ns: self.replicator.has_all_leases(now_ns)),
    ]


@mutant
def no_wait() -> list[Change]:
    """A promoted copy serves at once, not after its promise to the former primary."""
    return [(Promises, "bound_until_ns", lambda self, primary, backup_lease_ns: NEVER_NS)]


@mutant
def learner_late() -> list[Change]:
    """A learner is required only once the state says that it is the backup, not from before that is asked for."""
    check = Replicator._check_learner

    def _check_learner(self: Replicator, slot: int, reign: Reign, now_ns: int) -> None:
        check(self, slot, reign, now_ns)
        learner = self._node.state.slots[slot].learner
        if learner is not None and learner.replica in reign.streams:
            reign.streams[learner.replica].required = False
            self._needed = None

    return [(Replicator, "_check_learner", _check_learner)]


@mutant
def snap_any() -> list[Change]:
    """A learner is reported in sync before it has anything."""

    def _check_learner(self: Replicator, slot: int, reign: Reign, now_ns: int) -> None:
        state = self._node.state.slots[slot]
        learner = state.learner
        stream = None if learner is None else reign.streams.get(learner.replica)
        if learner is not None and stream is not None:
            stream.required = True
            self._needed = None
            who = learner.replica
            item = AskItem(slot, state.epoch, who.node, who.incarnation, learner.joined)
            self._node.ask(AskKind.IN_SYNC, item)

    return [(Replicator, "_check_learner", _check_learner)]


@mutant
def no_ttl_cap() -> list[Change]:
    """What is promised to a client is not capped by the node's coordinator lease."""
    return [(sessions.Session, "promise_ms", lambda self, left_ns: self.ttl_ms)]


@mutant
def peer_ack_newer() -> list[Change]:
    """An acknowledgement of a peer that knows a newer state counts at once."""
    return [(Replicator, "acknowledged", _with_version(Replicator.acknowledged))]


def _with_version(acknowledged: Callable[..., None]) -> Callable[..., None]:
    def changed(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        link = self.links.get(peer)
        if link is not None and message.version > self._node.state.version:
            at_ns = link.sent._at_ns.get(message.sequence)
            if at_ns is not None:
                lease_ns = ms_to_ns(self._node.state.backup_lease_ms)
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
        if link is not None and link.lease.until_ns != NEVER_NS:
            link.lease.version = max(link.lease.version, self._node.state.version)

    return [(Replicator, "acknowledged", changed)]


def _coordinator_ack_counts() -> list[Change]:
    """A coordinator's acknowledgement at a newer state than the node's counts at once."""
    acknowledged = NodeCore._heartbeat_acknowledged

    def changed(self: NodeCore, message: Any, now_ns: int) -> None:
        message.version = min(message.version, self.state.version)
        acknowledged(self, message, now_ns)

    return [(NodeCore, "_heartbeat_acknowledged", changed)]


def _states_come_late() -> list[Change]:
    """Nodes hear of a state only by what is sent again to those whose heartbeats show that they are behind."""
    install = CoordinatorCore._install

    def changed(self: CoordinatorCore, now_ns: int, *, is_own: bool) -> None:
        install(self, now_ns, is_own=is_own)
        publish = self._effects.pop()
        assert isinstance(publish, Publish)

    return [(CoordinatorCore, "_install", changed)]


@pair(_coordinator_ack_counts, _states_come_late)
def coordinator_ack_newer() -> None:
    """A coordinator's acknowledgement at a newer state counts at once, and may arrive before that state.

    Each alone suffices: a coordinator sends a state before any acknowledgement at it, on the same ordered connection.
    """


@mutant
def no_drift() -> list[Change]:
    """No margin for clocks of different rates."""
    modules = [leases, node_roles, sessions, term]
    assert all("up" in module.__dict__ for module in modules)
    return [(module, "up", lambda duration_ns: duration_ns) for module in modules]


@mutant
def lease_from_ack() -> list[Change]:
    """Leases count from the arrival of the acknowledgement, not from the sending of what it acknowledges."""
    peer = Replicator.acknowledged
    coordinator = NodeCore._heartbeat_acknowledged

    def from_peer(self: Replicator, sender: Any, message: Any, now_ns: int) -> None:
        link = self.links.get(sender)
        if link is not None and message.sequence in link.sent._at_ns:
            link.sent._at_ns[message.sequence] = now_ns
        peer(self, sender, message, now_ns)

    def from_coordinator(self: NodeCore, message: Any, now_ns: int) -> None:
        if message.sequence in self._heartbeats._at_ns:
            self._heartbeats._at_ns[message.sequence] = now_ns
        coordinator(self, message, now_ns)

    return [(Replicator, "acknowledged", from_peer), (NodeCore, "_heartbeat_acknowledged", from_coordinator)]


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


@mutant
def orig_swap() -> list[Change]:
    """In a planned swap the successor does not wait its promise to the former primary out, nor for its word.

    That the former primary has to acknowledge in the new reign mostly protects here too, but it may be dropped meanwhile.
    """
    change_slot = Roles._change_slot

    def changed(self: Roles, number: int, before: Any, after: Any, now_ns: int) -> None:
        change_slot(self, number, before, after, now_ns)
        data = self._node.slots.get(number)
        if data is None or after.primary != self._node.replica or after.since == before.since:
            return
        if data.reign is None and after.backup is not None and after.backup.replica == before.primary:
            data.not_before_ns = NEVER_NS
            self._begin_at(data, now_ns)

    return [(Roles, "_change_slot", changed)]


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
                self._needed = None

    return [(Replicator, "check_copies", changed)]


@mutant
def state_any() -> list[Change]:
    """A node takes a cluster state that is older than its own."""
    adopt = NodeCore.adopt

    def changed(self: NodeCore, state: Any, *, now_ns: int) -> bool:
        if 0 < state.version < self.state.version:
            self.state = msgspec.structs.replace(self.state, version=0)
        return adopt(self, state, now_ns=now_ns)

    return [(NodeCore, "adopt", changed)]
