"""Rules about what copies have."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from lockring.core.node import peer_link
from lockring.core.node.copies import Copies
from lockring.core.node.leases import SentTimes
from lockring.core.node.locks import LockHolder
from lockring.core.node.reign import CopyStream, Reign
from lockring.core.node.renewals import Renewals
from lockring.core.node.replicator import Replicator
from lockring.core.node.rights import Rights
from lockring.core.node.roles import ReignBegan, SlotChange, SlotRoles
from lockring.core.node.session_leases import SessionLeases
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import MutationIndex, SlotNumber, Version
from lockring.protocol import AcquisitionVerdict, Put, Replicate, Resume, SlotList, Snapshot, Verdict
from lockring.slots import slot_of
from lockring.units import ms_to_ns
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import S
from tests.sim.rules.held import holding
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant, pair, replaced
from tests.sim.scenarios.scenario import TTL_MS, Scenario
from tests.sim.seeds.alone import watch


@mutant
def ack_early() -> list[Change]:
    """Grants are answered before the copies have them."""
    return [(Reign, "acknowledged_index", lambda self: self.index)]


@drill
def drill_ack_early() -> None:
    """Nothing gets to the backup when a lock is taken."""
    cluster = Scenario(clients=1)
    cluster.silence(cluster.primary(), cluster.backup(), 1)
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(3)


@mutant
def gap_ok() -> list[Change]:
    """A copy applies what follows without looking whether something is missing, and what was lost is not sent again."""

    def _apply_tail(self: NodeSlot, tail: Any, now_ns: int) -> MutationIndex:
        index = self._index()
        for mutation in tail.mutations[max(0, index - tail.after) :]:
            self.table.apply(mutation, now_ns)
        self.table.highest = max(self.table.highest, tail.highest)
        self.content = (tail.since, max(index, tail.after + len(tail.mutations)))
        return self._index()

    def lost(self: CopyStream) -> None:
        self.parts = []

    return [(NodeSlot, "_apply_tail", _apply_tail), (CopyStream, "lost", lost)]


@drill
def drill_gap_ok() -> None:
    """The message that brings a grant to the backup is lost with the connection; another grant follows."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, primary, backup = cluster.simulation.clients[0], cluster.primary(), cluster.backup()
    first, second = cluster.names(2)
    cluster.silence(primary, backup, 60)
    client.take(first, ttl_ms=TTL_MS)
    cluster.run(0.1)
    cluster.break_connections(primary, backup)
    cluster.run(0.01)
    cluster.unsilence(primary, backup)
    client.take(second, ttl_ms=TTL_MS)
    cluster.run(5)


@mutant
def resume_blind() -> list[Change]:
    """A former primary that becomes the backup takes its own table for the successor's, wherever it ended."""

    def apply(self: NodeSlot, stream: Any, base: int, now_ns: int) -> int | None:
        if isinstance(stream, Resume) and self.content is not None and self.base == base:
            self._follow((stream.since, stream.joined), 0)
            return 0
        return original(self, stream, base, now_ns)

    original = NodeSlot.apply
    return [(NodeSlot, "apply", apply)]


@drill
def drill_resume_blind() -> None:
    """A grant that never left the former primary is still there when it becomes its successor's backup."""
    cluster = Scenario(nodes=1, late_nodes=1, slot=2)
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former = cluster.simulation.nodes[0]
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.trust_nothing_inside()
    cluster.wait(lambda: cluster.slot().backup is not None, 5)
    cluster.silence(former, joined, 60)
    cluster.cut(one, joined, 60)
    taken = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.primary() is joined, 5)
    cluster.wait(lambda: not cluster.reigns(former), 5)
    # The hand-over is under way, but lost before it arrives.
    cluster.step(lambda: cluster.reigns(joined), 5)
    cluster.break_connections(former, joined)
    cluster.unsilence(former, joined)
    held = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 5)
    assert taken.outcome == "waiting"
    cluster.run(1)
    cluster.crash(joined)
    cluster.cut(one, joined, 60)
    cluster.run(15)


@mutant
def hand_over_blind() -> list[Change]:
    """A successor takes a hand-over without looking whether its own table continues into it."""

    def take_over_from(self: NodeSlot, end: Any, now_ns: int) -> bool:
        if self.reign is not None or self.content is None:
            return False
        for mutation in end.mutations:
            self.table.apply(mutation, now_ns)
        self.table.highest = max(self.table.highest, end.highest)
        self.content = (end.since, end.index)
        self.not_before_ns = DISTANT_PAST_NS
        return True

    return [(NodeSlot, "take_over_from", take_over_from)]


@drill
def drill_hand_over_blind() -> None:
    """The end of a reign arrives late, at who is about to succeed another since."""
    cluster = Scenario()
    cluster.be_patient()
    former, again, between = cluster.primary(), cluster.backup(), cluster.third()
    cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    # The primary falls silent, and the end of its reign is under way from now on.
    cluster.silence(former, again, 300)
    cluster.silence(former, cluster.coordinator, 300)
    cluster.wait(lambda: cluster.primary() is again, 5)
    cluster.unsilence(former, cluster.coordinator)
    cluster.wait(lambda: not cluster.reigns(former), 5)
    cluster.silence(again, former, 300)
    cluster.cut(former, between, 300)
    cluster.wait(lambda: cluster.slot().backup is not None and cluster.backup() is between, 60)
    # The second reign ends too, and its primary becomes the backup of the third.
    again.pause(5_000_000_000)
    cluster.wait(lambda: cluster.primary() is between, 5)
    cluster.wait(lambda: cluster.slot().backup is not None and cluster.backup() is again, 60)
    # The third counts as failed, and does not learn of it.
    cluster.cut(between, cluster.coordinator, 60)
    cluster.wait(lambda: cluster.primary() is again, 10)
    cluster.step(lambda: cluster.knows(again), 1)
    cluster.mend(former, again)
    cluster.run(5)


@mutant
def trim_early() -> list[Change]:
    """The log is cut where it was sent, not where it was acknowledged."""

    def kept_from(self: CopyStream, index: int) -> int:
        if self.sent is not None:
            return self.sent
        return 0 if self.resumable else index

    return [(CopyStream, "kept_from", kept_from)]


@drill
def drill_trim_early() -> None:
    """The end of a reign is handed over before the successor has acknowledged what it says."""
    cluster = Scenario(nodes=1, late_nodes=1, slot=2)
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former = cluster.simulation.nodes[0]
    for client in (one, other):
        cluster.let_go(client, *cluster.hold(client, cluster.name))
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.trust_nothing_inside()
    cluster.step(lambda: cluster.slot().backup is not None, 5)
    # An acknowledgement lets the log be cut; later messages are under way.
    cluster.silence(joined, former, 60)
    other.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(0.008)
    cluster.silence(former, joined, 60)
    cluster.cut(one, joined, 60)
    one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.005)
    cluster.unsilence(joined, former)
    cluster.run(0.005)
    assert cluster.primary() is former
    cluster.wait(lambda: cluster.primary() is joined, 5)
    cluster.wait(lambda: not cluster.reigns(former) and cluster.knows(joined), 5)
    cluster.unsilence(former, joined)
    cluster.wait(lambda: cluster.reigns(joined), 1)
    other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(2)
    cluster.crash(joined)
    cluster.run(15)


@mutant
def copy_expires() -> list[Change]:
    """A copy runs timers on what it holds, and begins its reign without what had run out there."""
    begin_reign = NodeSlot.begin_reign

    def changed(self: NodeSlot, since: Version, base: int, generation_from: int, now_ns: int) -> Reign:
        for holder in list(self.table.holders()):
            if now_ns - holder.granted_at_ns > ms_to_ns(holder.session.ttl_ms):
                self.table.remove(holder.session.id, holder.acquisition)
        return begin_reign(self, since, base, generation_from, now_ns)

    return [(NodeSlot, "begin_reign", changed)]


@drill
def drill_copy_expires() -> None:
    """The primary dies when a lock has been held for longer than its TTL, and was renewed."""
    cluster = Scenario(clients=1)
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=4000)
    cluster.run(6)
    cluster.crash(cluster.primary())
    cluster.run(10)


@mutant
def no_ttl_restart() -> list[Change]:
    """A new reign does not start the sessions' TTLs afresh."""

    def reign_began(self: SessionLeases, slot: NodeSlot, now_ns: int) -> None:
        for share in slot.table.shares.values():
            self._sessions.extend(share.session, now_ns + 1)

    return [(SessionLeases, "reign_began", reign_began)]


@drill
def drill_no_ttl_restart() -> None:
    """The primary dies, and a client does not reach its successor for a while."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    cluster.hold(client, cluster.name)
    cluster.run(4)
    cluster.cut(client, cluster.backup(), 5)
    cluster.crash(cluster.primary())
    cluster.run(10)


def _reigns_only() -> list[Change]:
    """A copy's stream and its acknowledgements are named by the reign only, not by the tenure in it."""
    replicated, change_slot, acknowledged = (
        Copies.replicated,
        SlotRoles._change_slot,
        Replicator.acknowledged,
    )

    def hear(self: Copies, primary: Any, message: Any, now_ns: int) -> None:
        state, me = self._context.state, self._context.replica
        for stream in message.streams:
            copy = state.slots[stream.slot].copy_of(me)
            if copy is not None and state.slots[stream.slot].since == stream.since:
                stream.joined = copy.joined
        replicated(self, primary, message, now_ns)

    def change(self: SlotRoles, number: SlotNumber, before: Any, after: Any, now_ns: int) -> Any:
        slot = self._context.slots.get(number)
        copy = after.copy_of(self._context.replica)
        if slot is not None and copy is not None and slot.content is not None:
            if slot.content[0] == after.since:
                slot.following = (after.since, copy.joined)
        return change_slot(self, number, before, after, now_ns)

    def count(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        link = self.links.get(peer)
        for at, position in enumerate(message.positions):
            stream = None if link is None else link.streams.get(position.slot)
            if stream is not None:
                message.positions[at] = msgspec.structs.replace(position, joined=stream.copy.joined)
        acknowledged(self, peer, message, now_ns)

    return [
        (Copies, "replicated", hear),
        (SlotRoles, "_change_slot", change),
        (Replicator, "acknowledged", count),
    ]


def _old_answers_count() -> list[Change]:
    """An acknowledgement of a message from before the stream was (last) started counts for the stream."""
    return [(CopyStream, "started", property(lambda self: 0, lambda self, sequence: None))]


@pair(_reigns_only, _old_answers_count)
def no_tenure() -> None:
    """Streams are named by the reign only, not by the copy's tenure in it, and old acknowledgements count.

    Each alone suffices: what a copy acknowledged in an earlier tenure answers messages from before the present stream.
    """


@drill_by_chance(range(2, 6))
def drill_no_tenure(seed: int) -> None:
    """A backup is dropped and taken again; its earlier acknowledgements arrive only then, and its new stream does
    not."""
    cluster = Scenario(nodes=2, clients=1, seed=seed)
    cluster.be_patient()
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(backup, primary, 60)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: cluster.slot().backup is None, 5)
    cluster.step(lambda: cluster.slot().learner is not None, 5)
    cluster.silence(primary, backup, 60)
    cluster.step(lambda: cluster.knows(primary) and cluster.knows(backup), 1)
    cluster.run(0.2)
    assert held.outcome == "held"
    cluster.unsilence(backup, primary)
    cluster.run(2)


@mutant
def inactive_sync() -> list[Change]:
    """A promoted copy fills learners before the former primary's right has ended, so before it may hear of its end."""
    begin_at, may_serve = SlotRoles._begin_at, Rights.may_serve

    def fills_at_once(self: SlotRoles, slot: NodeSlot, now_ns: int) -> None:
        if slot.reign is None:
            state = self._context.state.slots[slot.number]
            slot.begin_reign(state.since, state.base, state.generation_from, now_ns)
            self._replicator.set_copies(slot, state, now_ns)
        begin_at(self, slot, now_ns)

    def begin_due(self: SlotRoles, now_ns: int) -> list[SlotChange]:
        began: list[SlotChange] = []
        while (due := self.to_begin.pop_due(now_ns)) is not None:
            slot = self._context.slots[due[1]]
            if self._is_to_begin(due[1], due[0]):
                del self._begin_at_ns[due[1]]
                if slot.reign is not None:
                    began.append(ReignBegan(slot))
        return began

    def serves_later(self: Rights, number: SlotNumber, *, now_ns: int) -> bool:
        return may_serve(self, number, now_ns=now_ns) and self._slots[number].not_before_ns <= now_ns

    def handed_over(self: SlotRoles, message: Any, now_ns: int) -> list[SlotChange]:
        for end in message.slots:
            slot = self._context.slots[end.slot]
            reign = slot.reign
            if reign is None or reign.inherits is None or slot.not_before_ns <= now_ns or reign.index:
                continue
            if reign.inherits[0] == end.since and reign.inherits[1] >= end.after:
                for mutation in end.mutations[reign.inherits[1] - end.after :]:
                    slot.table.apply(mutation, now_ns)
                slot.not_before_ns = DISTANT_PAST_NS
                begin_at(self, slot, now_ns)
        return self.begin_due(now_ns)

    return [
        (SlotRoles, "_begin_at", fills_at_once),
        (SlotRoles, "begin_due", begin_due),
        (SlotRoles, "handed_over", handed_over),
        (Rights, "may_serve", serves_later),
    ]


@drill
def drill_inactive_sync() -> None:
    """The end of a reign arrives when the successor, still bound by its promise, has a new copy already."""
    cluster = Scenario()
    cluster.be_patient()
    one, other = cluster.simulation.clients
    former, successor = cluster.primary(), cluster.backup()
    # Cut off from the coordinator it is replaced unawares; its further grants reach no copy yet.
    cluster.cut(former, cluster.coordinator, 60)
    cluster.run(4.5)
    taken = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: taken.outcome == "held", 1)
    cluster.step(lambda: cluster.primary() is successor, 3)
    cluster.silence(former, successor, 60)
    wanted = other.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(1.2)
    cluster.mend(former, cluster.coordinator)
    cluster.wait(lambda: not cluster.reigns(former), 1)
    cluster.unsilence(former, successor)
    cluster.wait(lambda: wanted.outcome == "held", 5)
    cluster.run(5)


@mutant
def order_gen_seq() -> list[Change]:
    """A copy orders what it applies by generation, and a former primary keeps its own table."""
    change_slot = SlotRoles._change_slot

    def merge(self: NodeSlot, mutation: Any, now_ns: int) -> None:
        if isinstance(mutation, Put):
            lock = self.table.locks.get(mutation.name)
            others = [
                each
                for each in (lock.holders if lock is not None else ())
                if (each.session.id, each.acquisition) != (mutation.session, mutation.acquisition)
            ]
            if any(each.generation >= mutation.generation for each in others):
                return
            for each in others:
                self.table.remove(each.session.id, each.acquisition)
        self.table.apply(mutation, now_ns)

    def _apply_snapshot(self: NodeSlot, part: Any, tenure: tuple[int, int], now_ns: int) -> int:
        if self.base != part.base:
            self.clear(part.base)
        for holder in part.holders:
            merge(self, holder, now_ns)
        self._follow(tenure, part.index)
        return int(part.index)

    def _apply_tail(self: NodeSlot, tail: Any, now_ns: int) -> MutationIndex:
        index = self._index()
        if tail.after <= index:
            for mutation in tail.mutations[index - tail.after :]:
                merge(self, mutation, now_ns)
            self.content = (tail.since, max(index, tail.after + len(tail.mutations)))
        return self._index()

    def keeps(self: SlotRoles, number: SlotNumber, before: Any, after: Any, now_ns: int) -> Any:
        slot = self._context.slots.get(number)
        clear = NodeSlot.clear
        if slot is not None and after.copy_of(self._context.replica) is not None and slot.base == after.base:
            NodeSlot.clear = lambda self, base=-1: None  # type: ignore[method-assign]
        try:
            return change_slot(self, number, before, after, now_ns)
        finally:
            NodeSlot.clear = clear  # type: ignore[method-assign]

    return [
        (NodeSlot, "_apply_snapshot", _apply_snapshot),
        (NodeSlot, "_apply_tail", _apply_tail),
        (SlotRoles, "_change_slot", keeps),
    ]


@drill
def drill_order_gen_seq() -> None:
    """A grant that never left the former primary has the same generation as one of its successor."""
    drill_resume_blind()


@mutant
def clear_on_swap() -> list[Change]:
    """A former primary forgets its table at once, not only when its successor's has taken its place."""
    change_slot = SlotRoles._change_slot

    def changed(self: SlotRoles, number: SlotNumber, before: Any, after: Any, now_ns: int) -> Any:
        ended = change_slot(self, number, before, after, now_ns)
        slot = self._context.slots.get(number)
        copy = after.copy_of(self._context.replica)
        if slot is not None and copy is not None and slot.following != (after.since, copy.joined):
            slot.clear()
        return ended

    return [(SlotRoles, "_change_slot", changed)]


@drill
def drill_clear_on_swap() -> None:
    """A successor dies when its former primary knows of the swap and has nothing of it yet."""
    cluster = Scenario(nodes=1, clients=1, late_nodes=1, slot=2)
    former = cluster.simulation.nodes[0]
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.simulation.add_node()
    joined = cluster.simulation.nodes[1]
    cluster.step(lambda: cluster.slot().primary is not None and cluster.primary() is joined, 5)
    cluster.silence(joined, former, 60)
    cluster.step(lambda: cluster.knows(former), 1)
    cluster.crash(joined)
    cluster.run(8)
    assert held.outcome == "held"


@mutant
def in_sync_nearly() -> list[Change]:
    """A learner is reported in sync as soon as it is required, not once it has what there was by then."""
    check = Replicator._check_learner

    def changed(self: Replicator, slot: SlotNumber, reign: Reign, now_ns: int) -> None:
        check(self, slot, reign, now_ns)
        for stream in reign.streams.values():
            if stream.required_from:
                stream.required_from = 0
                check(self, slot, reign, now_ns)

    return [(Replicator, "_check_learner", changed)]


def _has_table(cluster: Scenario, node: NodeShell) -> bool:
    data = None if node.core is None else node.core.slots.get(slot_of(cluster.name))
    return data is not None and data.content is not None


@drill
def drill_in_sync_nearly() -> None:
    """A lock is granted while a learner has the snapshot from before, and nothing more gets to it."""
    cluster = Scenario(nodes=2, clients=1)
    cluster.be_patient()
    primary, learner = cluster.primary(), cluster.backup()
    cluster.crash(learner)
    cluster.run(8)
    learner.start()
    cluster.run(0.9)
    cluster.step(lambda: cluster.is_sent(primary), 5)  # snapshots that nothing acknowledges hold up others
    cluster.silence(learner, primary, 60)
    cluster.delay(primary, learner, 0.05)  # so that the learner knows by then that it is one
    # Snapshots of all slots leave before the first is acknowledged.
    with replaced([(peer_link, "LINK_COST_MAX", 2_000)]):
        cluster.step(lambda: _has_table(cluster, learner), 1)
    cluster.silence(primary, learner, 60)
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 0.3)
    cluster.unsilence(learner, primary)
    cluster.run(2)


@mutant
def answered_when_asked() -> list[Change]:
    """A grant that its copies do not have yet is shown as held to a client that lists it."""
    compare = Renewals._compare_list

    def changed(
        self: Renewals, session: Any, listing: SlotList, *rest: Any, **named: Any
    ) -> list[AcquisitionVerdict]:
        answers = compare(self, session, listing, *rest, **named)
        share = session.totals.served.get(listing.slot)
        for at, answer in enumerate(answers):
            entry = None if share is None else share.entries.get(answer.acquisition)
            if answer.verdict == Verdict.WAITING and isinstance(entry, LockHolder):
                answers[at] = AcquisitionVerdict(answer.acquisition, Verdict.HELD, entry.generation)
        return answers

    return [(Renewals, "_compare_list", changed)]


@drill
def drill_answered_when_asked() -> None:
    """A client lists what was granted to it while the backup does not have that yet."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    client.take(cluster.names(2)[0], ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.silence(cluster.primary(), cluster.backup(), 1)
    client.take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.run(0.1)
    client.list_all()
    cluster.run(1)


@mutant
def nobody_takes_over() -> list[Change]:
    """A backup does not ask for the slots of a primary that is gone, and leaves that to the coordinator's patience."""
    return [(Copies, "check_primaries", lambda self, now_ns: None)]


@drill
def drill_nobody_takes_over() -> None:
    """A primary's machine loses its power, so that no connection ends."""
    cluster = Scenario()
    cluster.crash(cluster.primary(), power=True)
    watch(cluster.simulation, "power", 10 * S)


@mutant
def forgotten_message_unanswered() -> list[Change]:
    """An acknowledgement says nothing at all if it is not known any more when its message was sent."""
    return [(SentTimes, "has_forgotten", lambda self, sequence: False)]


@drill
def drill_forgotten_message_unanswered() -> None:
    """A copy learns late that it is one again, and its acknowledgements are under way for longer than many messages."""
    cluster, _ = holding(2, "process")
    coordinator, primary, backup = cluster.coordinator, cluster.primary(), cluster.backup()
    cluster.be_patient()
    cluster.crash(primary)
    cluster.silence(coordinator, backup, 60)
    primary.start()
    cluster.step(lambda: cluster.is_sent(primary), 5)
    cluster.silence(backup, primary, 60)
    cluster.run(0.1)  # the news of the reign is there, and the backup understands nothing of it
    cluster.unsilence(coordinator, backup)
    cluster.wait(lambda: cluster.knows(backup), 5)
    with cluster.few_messages_known():
        cluster.run(1.3)  # three heartbeats
        cluster.unsilence(backup, primary)
        cluster.run(0.05)
    cluster.run(10)
    cluster.demand(cluster.is_copied(primary), "P7", "a copy never hears again of what it did not understand")


@mutant
def former_start_acknowledged() -> list[Change]:
    """An acknowledgement counts in a stream that was started again since, or is still to be."""

    def acknowledged(self: CopyStream, index: MutationIndex) -> None:
        if self.acked is None or index > self.acked:
            self.acked = index
            if self.sent is not None and index > self.sent:
                self.sent = index

    return [(CopyStream, "acknowledged", acknowledged)]


@drill_by_chance(range(1, 5))
def drill_former_start_acknowledged(seed: int) -> None:
    """The connection to a learner breaks when it has a whole snapshot, which its slow disk does not have yet."""
    cluster = Scenario(nodes=2, late_nodes=1, durability="disk", slot=1, seed=seed)
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.be_patient()
    *held, later = cluster.names(12)
    cluster.hold(client, *held, ttl_ms=30_000)
    cluster.simulation.add_node()
    learner = cluster.simulation.nodes[-1]
    assert learner.disk is not None
    cluster.step(lambda: _parts_at(cluster, learner) > 5, 10)
    learner.disk.slow_ns = 2 * S
    cluster.step(lambda: _has_table(cluster, learner), 5)
    cluster.break_connections(primary, learner)
    client.take(later, ttl_ms=30_000)
    with cluster.ends_no_process():
        cluster.run(10)


def _is_wholly_sent(cluster: Scenario, primary: NodeShell, copy: NodeShell) -> bool:
    """Return whether all parts of a snapshot are under way to the present life of a copy."""
    assert primary.core is not None
    assert copy.core is not None
    reign = primary.core.slots[slot_of(cluster.name)].reign
    stream = None if reign is None else reign.streams.get(copy.core.replica)
    return stream is not None and stream.started > 0 and not stream.parts


def _parts_at(cluster: Scenario, node: NodeShell) -> int:
    data = None if node.core is None else node.core.slots.get(slot_of(cluster.name))
    return 0 if data is None else len(data.parts)


@mutant
def gap_named_by_its_place() -> list[Change]:
    """A copy that misses mutations says how far it is, and takes back so that it needs a snapshot."""
    apply_tail = NodeSlot._apply_tail

    def changed(self: NodeSlot, tail: Any, now_ns: int) -> MutationIndex:
        apply_tail(self, tail, now_ns)
        return self._index()

    return [(NodeSlot, "_apply_tail", changed)]


@drill_by_chance(range(1, 5))
def drill_gap_named_by_its_place(seed: int) -> None:
    """A snapshot begins before the copy knows that it is one, and the next grant follows while its disk is slow."""
    cluster = Scenario(nodes=2, durability="disk", seed=seed)
    client, primary, backup = cluster.simulation.clients[0], cluster.primary(), cluster.backup()
    cluster.be_patient()
    *held, later = cluster.names(6)
    tasks = cluster.hold(client, *held, ttl_ms=30_000)
    cluster.crash(backup)
    cluster.let_go(client, tasks[0])
    cluster.run(0.05)
    backup.start()
    cluster.step(lambda: cluster.is_joined(backup), 5)
    cluster.silence(cluster.coordinator, backup, 60)
    cluster.step(lambda: _is_wholly_sent(cluster, primary, backup), 5)
    assert backup.disk is not None
    backup.disk.slow_ns = S // 5
    client.take(later, ttl_ms=30_000)
    cluster.run(0.1)
    cluster.unsilence(cluster.coordinator, backup)
    cluster.run(10)
    cluster.demand(
        cluster.is_copied(primary), "P7", "a copy never gets the snapshot that it has refused a part of"
    )


@mutant
def late_acknowledgement_misread() -> list[Change]:
    """A copy that acknowledges late, for the lease alone, counts as one that lacks all that it does not mention."""
    acknowledged = Replicator.acknowledged

    def changed(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        acknowledged(self, peer, replace(message, is_lease_only=False), now_ns)

    return [(Replicator, "acknowledged", changed)]


@drill_by_chance(range(1, 4))
def drill_late_acknowledgement_misread(seed: int) -> None:
    """A learner with a slow disk gets its slots, and states follow one another."""
    cluster = Scenario(nodes=2, late_nodes=1, durability="disk", slot=1, seed=seed)
    cluster.hold(cluster.simulation.clients[0], *cluster.names(12), ttl_ms=30_000)
    again: list[SlotNumber] = []

    def heard(sender: str, receiver: str, message: object) -> None:
        del sender
        for part in message.streams if isinstance(message, Replicate) and receiver == learner.name else ():
            slot = None if learner.core is None else learner.core.slots.get(part.slot)
            if (
                isinstance(part, Snapshot)
                and slot is not None
                and slot.following == (part.since, part.joined)
            ):
                again.append(part.slot)

    cluster.simulation.add_node()
    learner = cluster.simulation.nodes[-1]
    assert learner.disk is not None
    cluster.world.heard = heard
    cluster.wait(lambda: cluster.is_joined(learner), 5)
    learner.disk.slow_ns = S // 2
    cluster.run(10)
    cluster.demand(not again, "WORK", f"a copy is sent again what it has, of slots {again}")
