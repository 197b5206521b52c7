"""Rules about what copies have; see `mutants`."""

from __future__ import annotations

from typing import Any

from lockring.core.leases import NEVER_NS
from lockring.core.lock_table import Holder
from lockring.core.node import NodeCore
from lockring.core.node_keeping import Keeping
from lockring.core.node_replication import Replicator
from lockring.core.node_roles import Roles
from lockring.core.node_service import Service
from lockring.core.node_slot import NodeSlot
from lockring.core.replication import CopyStream, Reign
from lockring.messages import Put, Resume, Verdict
from lockring.units import ms_to_ns
from tests.sim.switches import Change, mutant, pair


@mutant
def ack_early() -> list[Change]:
    """Grants are answered before the copies have them."""
    return [(Reign, "acknowledged", lambda self: self.index)]


@mutant
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
        self.not_before_ns = NEVER_NS
        return True

    return [(NodeSlot, "take_over_from", take_over_from)]


@mutant
def trim_early() -> list[Change]:
    """The log is cut where it was sent, not where it was acknowledged."""

    def kept_from(self: CopyStream, index: int) -> int:
        if self.sent is not None:
            return self.sent
        return 0 if self.resumable else index

    return [(CopyStream, "kept_from", kept_from)]


@mutant
def copy_expires() -> list[Change]:
    """A copy runs timers on what it holds, and begins its reign without what had run out there."""
    begin_reign = NodeSlot.begin_reign

    def changed(self: NodeSlot, since: int, base: int, generation_from: int, now_ns: int) -> Reign:
        for holder in list(self.table.holders()):
            if now_ns - holder.granted_at_ns > ms_to_ns(holder.session.ttl_ms):
                self.table.remove(holder.session.id, holder.acquisition)
        return begin_reign(self, since, base, generation_from, now_ns)

    return [(NodeSlot, "begin_reign", changed)]


@mutant
def no_ttl_restart() -> list[Change]:
    """A new reign does not start the sessions' TTLs afresh."""

    def reign_began(self: Service, data: NodeSlot, now_ns: int) -> None:
        for share in data.table.shares.values():
            self._sessions.extend(share.session, now_ns + 1)

    return [(Service, "reign_began", reign_began)]


def _reigns_only() -> list[Change]:
    """A copy's stream and its acknowledgements are named by the reign only, not by the tenure in it."""
    replicated, change_slot, acknowledged = Roles.replicated, Roles._change_slot, Replicator.acknowledged

    def hear(self: Roles, primary: Any, message: Any, now_ns: int) -> None:
        for stream in message.streams:
            copy = self._node.state.slots[stream.slot].copy_of(self._node.replica)
            if copy is not None and self._node.state.slots[stream.slot].since == stream.since:
                stream.joined = copy.joined
        replicated(self, primary, message, now_ns)

    def change(self: Roles, number: int, before: Any, after: Any, now_ns: int) -> None:
        data = self._node.slots.get(number)
        copy = after.copy_of(self._node.replica)
        if data is not None and copy is not None and data.content is not None:
            if data.content[0] == after.since:
                data.following = (after.since, copy.joined)
        change_slot(self, number, before, after, now_ns)

    def count(self: Replicator, peer: Any, message: Any, now_ns: int) -> None:
        for at, (slot, since, _, index) in enumerate(message.positions):
            data = self._node.slots.get(slot)
            stream = None if data is None or data.reign is None else data.reign.streams.get(peer)
            if stream is not None:
                message.positions[at] = (slot, since, stream.copy.joined, index)
        acknowledged(self, peer, message, now_ns)

    return [
        (Roles, "replicated", hear),
        (Roles, "_change_slot", change),
        (Replicator, "acknowledged", count),
    ]


def _old_answers_count() -> list[Change]:
    """What acknowledges a message from before the stream was (last) started counts for the stream."""
    return [(CopyStream, "started", property(lambda self: 0, lambda self, sequence: None))]


@pair(_reigns_only, _old_answers_count)
def no_tenure() -> None:
    """Streams are named by the reign only, not by the copy's tenure in it, and old acknowledgements count.

    Each alone suffices: what a copy acknowledged in an earlier tenure answers messages from before the present stream.
    """


@mutant
def inactive_sync() -> list[Change]:
    """A promoted copy fills learners before the former primary's right has ended, so before it may hear of its end."""
    begin_at, may_serve = Roles._begin_at, NodeCore.may_serve

    def fills_at_once(self: Roles, data: NodeSlot, now_ns: int) -> None:
        if data.reign is None:
            state = self._node.state.slots[data.number]
            data.begin_reign(state.since, state.base, state.generation_from, now_ns)
            self._node.replicator.set_copies(data, state, now_ns)
        begin_at(self, data, now_ns)

    def begin_due(self: Roles, now_ns: int) -> None:
        while (due := self.to_begin.pop_due(now_ns)) is not None:
            data = self._node.slots[due[1]]
            if self._is_to_begin(due[1], due[0]):
                del self._begin_at_ns[due[1]]
                if data.reign is not None:
                    self._node.service.reign_began(data, now_ns)

    def serves_later(self: NodeCore, slot: int, *, now_ns: int) -> bool:
        return may_serve(self, slot, now_ns=now_ns) and self.slots[slot].not_before_ns <= now_ns

    def handed_over(self: Roles, message: Any, now_ns: int) -> None:
        for end in message.slots:
            data = self._node.slots[end.slot]
            reign = data.reign
            if reign is None or reign.inherits is None or data.not_before_ns <= now_ns or reign.index:
                continue
            if reign.inherits[0] == end.since and reign.inherits[1] >= end.after:
                for mutation in end.mutations[reign.inherits[1] - end.after :]:
                    data.table.apply(mutation, now_ns)
                data.not_before_ns = NEVER_NS
                begin_at(self, data, now_ns)
        self.begin_due(now_ns)
        self._node.service.retry_parked(now_ns)

    return [
        (Roles, "_begin_at", fills_at_once),
        (Roles, "begin_due", begin_due),
        (Roles, "handed_over", handed_over),
        (NodeCore, "may_serve", serves_later),
    ]


@mutant
def order_gen_seq() -> list[Change]:
    """A copy orders what it applies by generation, and a former primary keeps its own table."""
    change_slot = Roles._change_slot

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

    def _apply_tail(self: NodeSlot, tail: Any, now_ns: int) -> None:
        index = self._index()
        if tail.after <= index:
            for mutation in tail.mutations[index - tail.after :]:
                merge(self, mutation, now_ns)
            self.content = (tail.since, max(index, tail.after + len(tail.mutations)))

    def keeps(self: Roles, number: int, before: Any, after: Any, now_ns: int) -> None:
        data = self._node.slots.get(number)
        clear = NodeSlot.clear
        if data is not None and after.copy_of(self._node.replica) is not None and data.base == after.base:
            NodeSlot.clear = lambda self, base=-1: None  # type: ignore[method-assign]
        try:
            change_slot(self, number, before, after, now_ns)
        finally:
            NodeSlot.clear = clear  # type: ignore[method-assign]

    return [
        (NodeSlot, "_apply_snapshot", _apply_snapshot),
        (NodeSlot, "_apply_tail", _apply_tail),
        (Roles, "_change_slot", keeps),
    ]


@mutant
def clear_on_swap() -> list[Change]:
    """A former primary forgets its table at once, not only when its successor's has taken its place."""
    change_slot = Roles._change_slot

    def changed(self: Roles, number: int, before: Any, after: Any, now_ns: int) -> None:
        change_slot(self, number, before, after, now_ns)
        data = self._node.slots.get(number)
        copy = after.copy_of(self._node.replica)
        if data is not None and copy is not None and data.following != (after.since, copy.joined):
            data.clear()

    return [(Roles, "_change_slot", changed)]


@mutant
def in_sync_nearly() -> list[Change]:
    """A learner is reported in sync as soon as it is required, not once it has what there was by then."""
    check = Replicator._check_learner

    def changed(self: Replicator, slot: int, reign: Reign, now_ns: int) -> None:
        check(self, slot, reign, now_ns)
        for stream in reign.streams.values():
            if stream.required_from:
                stream.required_from = 0
                check(self, slot, reign, now_ns)

    return [(Replicator, "_check_learner", changed)]


@mutant
def answered_when_asked() -> list[Change]:
    """A grant that its copies do not have yet is told as held to a client that lists it."""
    compare = Keeping._compare_list

    def changed(self: Keeping, session: Any, slot: int, *rest: Any) -> list[tuple[int, int, int]]:
        answers = compare(self, session, slot, *rest)
        share = session.served.get(slot)
        for at, (acquisition, verdict, _) in enumerate(answers):
            entry = None if share is None else share.entries.get(acquisition)
            if verdict == Verdict.WAITING and isinstance(entry, Holder):
                answers[at] = (acquisition, Verdict.HELD, entry.generation)
        return answers

    return [(Keeping, "_compare_list", changed)]


@mutant
def nobody_takes_over() -> list[Change]:
    """A backup does not ask for the slots of a primary that is gone, and leaves that to the coordinator's patience."""
    return [(Roles, "check_primaries", lambda self, now_ns: None)]
