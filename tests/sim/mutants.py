"""Rules switched off, one at a time, to see that the checkers notice: a checker that cannot fail proves nothing.

Each mutant replaces methods of the real core classes (of the copy that the simulation has) for the time of a `with`
block. Its docstring says which rule is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lockring.core import (
    leases,
    node_keeping,
    node_roles,
    node_service,
    planning,
    term,
    transitions,
)
from lockring.core.coordinator import CoordinatorCore
from lockring.core.holdings import Share
from lockring.core.leases import NEVER_NS, Lease, Promises
from lockring.core.lock_table import Holder
from lockring.core.membership import Membership
from lockring.core.node import NodeCore
from lockring.core.node_keeping import Keeping
from lockring.core.node_locking import Locking
from lockring.core.node_replication import Replicator
from lockring.core.node_roles import Roles
from lockring.core.node_service import Service
from lockring.core.node_slot import NodeSlot
from lockring.core.reconciler import Situation
from lockring.core.renewal import Renewal
from lockring.core.replication import CopyStream, Reign
from lockring.core.routing import Routing
from lockring.core.term import News, Term
from lockring.messages import AskItem, AskKind, Lost, Resume
from lockring.ring.state import SlotState
from lockring.units import ms_to_ns
from tests.sim.node_shell import NodeShell
from tests.sim.world import Process, S

_LONG = 1_000 * S

Change = tuple[Any, str, Any]
MUTANTS: dict[str, Callable[[], list[Change]]] = {}


def _mutant(make: Callable[[], list[Change]]) -> Callable[[], list[Change]]:
    MUTANTS[make.__name__] = make
    return make


SHIELDED = {
    "coordinator_ack_newer": "a coordinator sends a state before any acknowledgement at it, on the same ordered connection",
    "no_tenure": "a primary passes over what acknowledges a message from before the stream was (last) started",
}
"""Rules behind which another one stands: nothing happens if only one of the two is switched off."""


@contextmanager
def applied(name: str) -> Iterator[None]:
    """Run with one rule switched off; with "" none is."""
    changes = MUTANTS[name]() if name else []
    before = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in changes]
    for owner, attribute, value in changes:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)


# --------------------------------------------------------------------------- rights


@_mutant
def no_backup_lease() -> list[Change]:
    """A primary with copies serves without their lease."""

    def may_serve(self: NodeCore, slot: int, *, now_ns: int) -> bool:
        data = self.slots.get(slot)
        return data is not None and data.reign is not None and self.coordinator_lease_left_ns(now_ns) > 0

    def may_serve_everything(self: NodeCore, now_ns: int) -> bool:
        return self.coordinator_lease_left_ns(now_ns) > 0

    return [(NodeCore, "may_serve", may_serve), (NodeCore, "may_serve_everything", may_serve_everything)]


@_mutant
def no_coordinator_lease() -> list[Change]:
    """A node serves without the coordinator's lease."""
    left = NodeCore.coordinator_lease_left_ns
    may = NodeCore.may_serve

    def coordinator_lease_left_ns(self: NodeCore, now_ns: int) -> int:
        return max(left(self, now_ns), 10 * S)

    def may_serve(self: NodeCore, slot: int, *, now_ns: int) -> bool:
        lease, self._coordinator_lease = self._coordinator_lease, Lease()
        self._coordinator_lease.until_ns = now_ns + S
        answer = may(self, slot, now_ns=now_ns)
        self._coordinator_lease = lease
        return answer

    return [
        (NodeCore, "coordinator_lease_left_ns", coordinator_lease_left_ns),
        (NodeCore, "may_serve", may_serve),
        (NodeCore, "may_serve_everything", lambda self, now_ns: self.replicator.has_all_leases(now_ns)),
    ]


@_mutant
def no_wait() -> list[Change]:
    """A promoted copy serves at once, not after its promise to the former primary."""
    return [(Promises, "bound_until_ns", lambda self, primary, backup_lease_ns: NEVER_NS)]


@_mutant
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


@_mutant
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


@_mutant
def no_ttl_cap() -> list[Change]:
    """What is promised to a client is not capped by the node's coordinator lease."""
    return [(Keeping, "promise_ms", lambda self, session, now_ns: session.ttl_ms)]


@_mutant
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


@_mutant
def peer_ack_older() -> list[Change]:
    """An acknowledgement of a peer that does not know the reign yet gives a lease for it."""
    acknowledged = Replicator.acknowledged

    def changed(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        acknowledged(self, peer, message, now_ns)
        link = self.links.get(peer)
        if link is not None and link.lease.until_ns != NEVER_NS:
            link.lease.version = max(link.lease.version, self._node.state.version)

    return [(Replicator, "acknowledged", changed)]


@_mutant
def coordinator_ack_newer() -> list[Change]:
    """A coordinator's acknowledgement at a newer state counts at once."""
    acknowledged = NodeCore._heartbeat_acknowledged

    def changed(self: NodeCore, message: Any, now_ns: int) -> None:
        message.version = min(message.version, self.state.version)
        acknowledged(self, message, now_ns)

    return [(NodeCore, "_heartbeat_acknowledged", changed)]


@_mutant
def no_drift() -> list[Change]:
    """No margin for clocks of different rates."""
    modules = [leases, node_keeping, node_roles, node_service, term]
    assert all("up" in module.__dict__ for module in modules)
    return [(module, "up", lambda duration_ns: duration_ns) for module in modules]


@_mutant
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


@_mutant
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


# --------------------------------------------------------------------------- replication


@_mutant
def ack_early() -> list[Change]:
    """Grants are answered before the copies have them."""
    return [(Reign, "acknowledged", lambda self: self.index)]


@_mutant
def gap_ok() -> list[Change]:
    """A copy applies what follows without looking whether something is missing, and what was lost is not sent again."""

    def _apply_tail(self: NodeSlot, tail: Any, now_ns: int) -> None:
        index = self._index()
        for mutation in tail.mutations[max(0, index - tail.after) :]:
            self.table.apply(mutation, now_ns)
        self.table.highest = max(self.table.highest, tail.highest)
        self.content = (tail.since, max(index, tail.after + len(tail.mutations)))

    def lost(self: CopyStream) -> None:
        self.parts = []

    return [(NodeSlot, "_apply_tail", _apply_tail), (CopyStream, "lost", lost)]


@_mutant
def resume_blind() -> list[Change]:
    """A former primary that becomes the backup takes its own table for the successor's, wherever it ended."""

    def apply(self: NodeSlot, stream: Any, base: int, now_ns: int) -> int | None:
        if isinstance(stream, Resume) and self.content is not None and self.base == base:
            self._follow((stream.since, stream.joined), 0)
            return 0
        return original(self, stream, base, now_ns)

    original = NodeSlot.apply
    return [(NodeSlot, "apply", apply)]


@_mutant
def hand_over_blind() -> list[Change]:
    """A successor takes a hand-over without looking whether its own table continues into it."""

    def take_over_from(self: NodeSlot, end: Any, now_ns: int) -> bool:
        if self.reign is not None or self.content is None:
            return False
        for mutation in end.mutations:
            self.table.apply(mutation, now_ns)
        self.table.highest = max(self.table.highest, end.highest)
        self.content = (end.since, end.index)
        self.not_before_ns = NEVER_NS
        return True

    return [(NodeSlot, "take_over_from", take_over_from)]


@_mutant
def trim_early() -> list[Change]:
    """The log is cut where it was sent, not where it was acknowledged."""

    def kept_from(self: CopyStream, index: int) -> int:
        if self.sent is not None:
            return self.sent
        return 0 if self.resumable else index

    return [(CopyStream, "kept_from", kept_from)]


@_mutant
def copy_expires() -> list[Change]:
    """A copy runs timers on what it holds, and begins its reign without what had run out there."""
    begin_reign = NodeSlot.begin_reign

    def changed(self: NodeSlot, since: int, base: int, now_ns: int) -> Reign:
        for holder in list(self.table.holders()):
            if now_ns - holder.granted_at_ns > ms_to_ns(holder.session.ttl_ms):
                self.table.remove(holder.session.id, holder.acquisition)
        return begin_reign(self, since, base, now_ns)

    return [(NodeSlot, "begin_reign", changed)]


@_mutant
def no_ttl_restart() -> list[Change]:
    """A new reign does not start the sessions' TTLs afresh."""

    def reign_began(self: Service, data: NodeSlot, now_ns: int) -> None:
        for share in data.table.shares.values():
            self._sessions.extend(share.session, now_ns + 1)

    return [(Service, "reign_began", reign_began)]


@_mutant
def no_tenure() -> list[Change]:
    """A copy's stream is named by the reign only, not by the tenure in it."""
    replicated = Roles.replicated

    def changed(self: Roles, primary: Any, message: Any, now_ns: int) -> None:
        for stream in message.streams:
            copy = self._node.state.slots[stream.slot].copy_of(self._node.replica)
            if copy is not None and self._node.state.slots[stream.slot].since == stream.since:
                stream.joined = copy.joined
                data = self._node.slots[stream.slot]
                if data.content is not None and data.content[0] == stream.since:
                    data.following = (stream.since, copy.joined)
        replicated(self, primary, message, now_ns)

    change_slot = Roles._change_slot

    def keeps(self: Roles, number: int, before: Any, after: Any, now_ns: int) -> None:
        data = self._node.slots.get(number)
        copy = after.copy_of(self._node.replica)
        if (
            data is not None
            and copy is not None
            and data.content is not None
            and data.content[0] == after.since
        ):
            data.following = (after.since, copy.joined)
        change_slot(self, number, before, after, now_ns)

    return [(Roles, "replicated", changed), (Roles, "_change_slot", keeps)]


# --------------------------------------------------------------------------- coordinator


@_mutant
def no_confirm() -> list[Change]:
    """A coordinator acknowledges heartbeats whatever the confirming read says."""
    return [(Term, "_confirmed", lambda self, ok, stored, now_ns: News.CONFIRMED)]


@_mutant
def ack_condemned() -> list[Change]:
    """A coordinator acknowledges a node while its own write against that node is under way."""
    acknowledge = CoordinatorCore._acknowledge

    def changed(self: CoordinatorCore, now_ns: int) -> None:
        condemned, self._condemned = self._condemned, frozenset()
        acknowledge(self, now_ns)
        self._condemned = condemned

    return [(CoordinatorCore, "_acknowledge", changed)]


@_mutant
def no_restart_wait() -> list[Change]:
    """A new coordinator takes those whom it has not heard for silent since long ago."""

    def unacknowledged_ns(self: Membership, replica: Any, *, now_ns: int) -> int:
        return now_ns - self._acknowledged_at_ns.get(replica, now_ns - _LONG)

    return [
        (Membership, "unacknowledged_ns", unacknowledged_ns),
        *_aged(lambda age_ns, version: lambda of: _LONG),
    ]


@_mutant
def no_slot_wait() -> list[Change]:
    """An assignment of an empty slot looks at its last primary only, not at when its reign began."""
    return _aged(lambda age_ns, version: lambda of: _LONG)


def _aged(change: Callable[[Any, int], Any]) -> list[Change]:
    """Replace `Situation.age_ns` wherever a situation is made."""

    def plan(situation: Situation) -> Any:
        return original(situation._replace(age_ns=change(situation.age_ns, situation.version)))

    original = planning.plan
    return [(planning, "plan", plan)]


@_mutant
def restart_empty() -> list[Change]:
    """The slots of a node that restarted, and had the only copy, are assigned empty at once."""
    unacknowledged = Membership.unacknowledged_ns

    def changed(self: Membership, replica: Any, *, now_ns: int) -> int:
        newer = any(
            each.node == replica.node and each.incarnation > replica.incarnation for each in self.settled
        )
        return _LONG if newer else unacknowledged(self, replica, now_ns=now_ns)

    return [(Membership, "unacknowledged_ns", changed), *no_slot_wait()]


@_mutant
def wipe_no_wait() -> list[Change]:
    """A coordinator whose store was lost assigns the slots at once. (To be run with lost stores.)"""

    def forgotten(slot: SlotState, version: int) -> SlotState:
        return SlotState(version, version, 0, None, None, None, slot.generation_below, slot.generation_below)

    return [(term, "forgotten", forgotten)]


@_mutant
def range_again() -> list[Change]:
    """A reign that begins empty hands out the generations of the one before again."""
    fresh = transitions._fresh_range

    def _fresh_range(slot: SlotState, version: int) -> tuple[int, int]:
        if slot.generation_below:
            return slot.generation_from, slot.generation_below
        return fresh(slot, version)

    return [(transitions, "_fresh_range", _fresh_range)]


@_mutant
def incarnation_blind() -> list[Change]:
    """A restarted node takes the incarnation of its former life."""
    start = NodeShell.on_start

    def on_start(self: NodeShell) -> None:
        wall_offset = self.wall_offset
        self.wall_offset = -self.world.now
        start(self)
        self.wall_offset = wall_offset

    return [(NodeShell, "on_start", on_start)]


# --------------------------------------------------------------------------- sessions and clients


@_mutant
def session_only() -> list[Change]:
    """A keepalive is answered per session, not per lock: a node agrees whatever it has."""
    keepalive = Keeping.keepalive

    def changed(self: Keeping, connection: int, message: Any, now_ns: int) -> None:
        if not message.slots and not message.listed:
            session = self.touch(message, connection, now_ns)
            message.count, message.digest = session.count, session.digest
        keepalive(self, connection, message, now_ns)

    return [
        (Keeping, "keepalive", changed),
        (NodeCore, "may_serve_everything", lambda self, now_ns: True),
    ]


@_mutant
def agreed_without_right() -> list[Change]:
    """A node whose digest agrees renews also in slots that it may not serve now."""
    return [(NodeCore, "may_serve_everything", lambda self, now_ns: True)]


@_mutant
def grant_by_session() -> list[Change]:
    """A grant's deadline comes from the newest request of the client, not from the one it answers."""
    granted = Renewal._granted

    def changed(self: Renewal, link: Any, message: Any, now_ns: int) -> None:
        message.basis = self._routing.request
        granted(self, link, message, now_ns)

    return [(Renewal, "_granted", changed)]


@_mutant
def client_from_response() -> list[Change]:
    """A client's deadlines count from the response, not from its request."""
    granted = Renewal._granted
    judge = Share.judge

    def late_granted(self: Renewal, link: Any, message: Any, now_ns: int) -> None:
        ticket = link.acquires.get(message.request)
        if ticket is not None:
            ticket.sent_at_ns = now_ns
        granted(self, link, message, now_ns)

    def late_judge(self: Share, request: int, sent_at_ns: int, kept: Any, now_ns: int) -> Any:
        return judge(self, request, now_ns, kept, now_ns)

    return [
        (Renewal, "_granted", late_granted),
        (Share, "judge", late_judge),
        (Routing, "sent_no_earlier_than", lambda self, request: self._log_times[-1]),
    ]


@_mutant
def revive() -> list[Change]:
    """A late answer revives a lock whose deadline has passed."""
    expire = Renewal._expire
    kept = Renewal._kept

    def late_kept(self: Any, link: Any, message: Any, now_ns: int) -> None:
        self.__dict__["reviving"] = True
        kept(self, link, message, now_ns)
        self.__dict__["reviving"] = False

    def late_expire(self: Any, share: Any, now_ns: int) -> None:
        if not self.__dict__.get("reviving"):
            expire(self, share, now_ns)

    return [(Renewal, "_kept", late_kept), (Renewal, "_expire", late_expire)]


@_mutant
def release_by_key() -> list[Change]:
    """A release names the lock and the session, not the acquisition."""
    release = Locking.release

    def changed(self: Locking, connection: int, message: Any, now_ns: int) -> None:
        for data in list(self._node.slots.values()):
            if data.reign is not None and message.name in data.table.locks:
                for holder in data.table.locks[message.name].holders:
                    if holder.session.id == message.session:
                        message.acquisition = holder.acquisition
        release(self, connection, message, now_ns)

    return [(Locking, "release", changed)]


@_mutant
def list_of_one_share() -> list[Change]:
    """A client lists for a slot only what it expects at that node, not what it expects elsewhere by now."""

    def listed(self: Share, slots: list[int]) -> list[tuple[int, list[tuple[int, str]]]]:
        lists: dict[int, list[tuple[int, str]]] = {slot: [] for slot in slots}
        for ticket in self.tickets.values():
            if ticket.slot in lists:
                lists[ticket.slot].append((ticket.acquisition, ticket.name))
        return list(lists.items())

    return [(Share, "listed", listed)]


@_mutant
def lost_from_anyone() -> list[Change]:
    """A client takes a loss from whatever node says so, and a node tells it without the right to."""

    def _told_lost(self: Renewal, link: Any, lost: Any, now_ns: int) -> None:
        session = self._session_of.get(lost.session)
        for share in session.shares.values() if session is not None else ():
            ticket = share.tickets.get(lost.acquisition)
            if ticket is not None:
                if ticket.generation:
                    self._lose(ticket, lost.reason, now_ns)
                return

    def tell_lost(self: Service, entry: Any, reason: str) -> None:
        if isinstance(entry, Holder) and entry.session.connection in self.connections:
            lost = Lost(entry.session.id, entry.acquisition, entry.lock.name, reason)
            self._node.send(entry.session.connection, lost)

    return [(Renewal, "_told_lost", _told_lost), (Service, "tell_lost", tell_lost)]
