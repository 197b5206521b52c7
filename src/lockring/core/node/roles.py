"""A node's roles: what a new cluster state makes of it in each slot, and what it does as a copy.

- As primary it begins a reign once its promises to former primaries are over, or at once on a hand-over.
- When it learns that its reign is over, it hands the end of it to its successor and sends its waiters there.
- As a copy it follows its primary's stream and acknowledges; each acknowledgement is a promise (`leases`).
- As backup it asks for its primary's slots once that is silent, unreachable, or says that it may not serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.deadlines import DeadlineQueue
from lockring.core.farewells import is_release, mark_of
from lockring.core.node.leases import Promises
from lockring.core.node.locks import LockHolder
from lockring.core.node.sessions import NO_DEADLINE
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import ASK_AGAIN_NS, DISTANT_PAST_NS, up
from lockring.protocol import (
    HandOver,
    HandOverSlot,
    Replicate,
    ReplicateAck,
    SlotRequest,
    SlotRequestKind,
    State,
)
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore

BEHIND_NS = 300 * NS_PER_MS
"""How long a primary may not know the newest state before a copy passes it on: the coordinator is mostly quicker."""

HEARD_MAX = 1_024
"""More lives than this that have ever sent anything are looked through for those that are of no use any more."""


class SlotRoles:
    """What a node is in which slots."""

    def __init__(self, node: NodeCore) -> None:
        self._node = node
        self._promises = Promises()
        self.to_begin: DeadlineQueue[int] = DeadlineQueue(self._is_to_begin)
        self._begin_at_ns: dict[int, int] = {}
        self._backup_slots: dict[Replica, list[int]] = {}
        self._not_serving: dict[Replica, None] = {}
        self._asked_at_ns: dict[Replica, int] = {}
        self._behind_since_ns: dict[Replica, int] = {}
        self._early: dict[int, HandOverSlot] = {}
        self._forget_above = HEARD_MAX
        # Of the slots that this life gave up with nobody to take over: which, and until when promises about them may run.
        self.released = 0
        self.promised_until_ns = 0

    # ------------------------------------------------------------------ a new state

    def change(self, old: ClusterState, new: ClusterState, now_ns: int) -> None:
        """The node's state has just become `new`."""
        for number in range(SLOTS):
            before, after = old.slots[number], new.slots[number]
            if before is after:
                continue
            if before.primary == self._node.replica and is_release(before, after):
                self._part_from(number, before)
            if before.epoch != after.epoch:
                self._change_slot(number, before, after, now_ns)
            if before.generation_below != after.generation_below:
                data = self._node.slots.get(number)
                if data is not None and data.reign is not None:
                    self._node.service.locking.serve_slot(data, now_ns)
        self._index_backups(new, now_ns)
        self._early = {number: end for number, end in self._early.items() if self._may_succeed(number, end)}

    def _part_from(self, number: int, slot: SlotState) -> None:
        """A slot is given up with nobody to take over: until when may clients believe in what they hold there?"""
        data = self._node.slots.get(number)
        if data is None or data.reign is None or data.reign.since != slot.since:
            return  # others may know more of it: the digest lacks it, and that makes the word worth nothing
        self.released ^= mark_of(number, slot)
        for share in data.table.shares.values():
            if any(isinstance(entry, LockHolder) for entry in share.entries.values()):
                assert share.session.deadline_ns != NO_DEADLINE, "the sessions of a reign run"
                self.promised_until_ns = max(self.promised_until_ns, share.session.deadline_ns)

    def _may_succeed(self, number: int, end: HandOverSlot) -> bool:
        data = self._node.slots[number]
        return data.reign is None and data.following == (end.since, end.joined)

    def _change_slot(self, number: int, before: SlotState, after: SlotState, now_ns: int) -> None:
        node, me = self._node, self._node.replica
        copy = after.copy_of(me)
        data = node.slots.get(number)
        if data is None:
            if after.primary != me and copy is None:
                return
            data = node.slots[number] = NodeSlot(number, node.sessions)
        if after.since != before.since:
            if before.primary not in (None, me) and before.copy_of(me) is not None:
                bound_ns = self._promises.bound_until_ns(before.primary, self._backup_lease_ns())
                data.not_before_ns = max(data.not_before_ns, bound_ns)
            node.replicator.forget_hand_overs(number)
        if data.reign is not None and (after.primary != me or after.since != data.reign.since):
            self._end_reign(data, after, now_ns)
        if after.primary == me:
            if data.base != after.base:
                data.clear(after.base)
                data.not_before_ns = DISTANT_PAST_NS
            if data.reign is not None:
                node.replicator.set_copies(data, after, now_ns)
                return
            early = self._early.pop(number, None)
            if early is not None:
                data.take_over_from(early, now_ns)
            self._begin_at(data, now_ns)
        elif copy is not None:
            if data.following != (after.since, copy.joined):
                if copy.joined == after.since and data.base == after.base:
                    data.following = None
                else:
                    data.clear()
        else:
            data.clear()

    def _end_reign(self, data: NodeSlot, after: SlotState, now_ns: int) -> None:
        node = self._node
        reign = data.reign
        assert reign is not None
        if after.primary is None:
            node.locks_ended += sum(bool(lock.holders) for lock in data.table.locks.values())
        elif after.primary != node.replica:
            node.replicator.hand_over(reign, after.primary, now_ns)
        node.replicator.close_streams(reign)
        node.service.reign_ended(data)
        data.end_reign()

    # ------------------------------------------------------------------ beginning a reign

    @property
    def beginning(self) -> int:
        """How many slots are this node's to serve once promises to their former primaries are over."""
        return len(self._begin_at_ns)

    def begin_due(self, now_ns: int) -> None:
        """Begin the reigns whose promises are over."""
        while (due := self.to_begin.pop_due(now_ns)) is not None:
            number = due[1]
            if not self._is_to_begin(number, due[0]):
                continue
            del self._begin_at_ns[number]
            data = self._node.slots[number]
            state = self._node.state.slots[number]
            if state.primary != self._node.replica or data.reign is not None:
                continue
            if data.not_before_ns > now_ns:
                self._begin_at(data, now_ns)
                continue
            data.begin_reign(state.since, state.base, state.generation_from, now_ns)
            self._node.replicator.set_copies(data, state, now_ns)
            self._node.service.reign_began(data, now_ns)

    def _begin_at(self, data: NodeSlot, now_ns: int) -> None:
        at_ns = max(now_ns, data.not_before_ns)
        self._begin_at_ns[data.number] = at_ns
        self.to_begin.push(at_ns, data.number)

    def _is_to_begin(self, number: int, at_ns: int) -> bool:
        return self._begin_at_ns.get(number) == at_ns

    def handed_over(self, message: HandOver, now_ns: int) -> None:
        """A former primary tells how its reigns ended: the successor need not wait its promise out."""
        node = self._node
        for end in message.slots:
            if not 0 <= end.slot < SLOTS:
                continue
            data = node.slots.get(end.slot)
            if data is None or data.reign is not None:
                continue
            state = node.state.slots[end.slot]
            if state.primary == node.replica and state.since > end.since:
                if data.take_over_from(end, now_ns):
                    self._begin_at(data, now_ns)
            elif message.version > node.state.version and data.following == (end.since, end.joined):
                self._early[end.slot] = end
        self.begin_due(now_ns)
        node.service.retry_parked(now_ns)

    # ------------------------------------------------------------------ as a copy

    def replicated(self, primary: Replica, message: Replicate, now_ns: int) -> None:
        """News of a primary: follow it, acknowledge it, and so promise not to serve in its place for a while."""
        node = self._node
        positions: list[tuple[int, int, int, int]] = []
        for stream in message.streams:
            if not 0 <= stream.slot < SLOTS:
                continue
            state = node.state.slots[stream.slot]
            copy = state.copy_of(node.replica)
            if (
                state.primary != primary
                or copy is None
                or (state.since, copy.joined) != (stream.since, stream.joined)
            ):
                continue
            node.replicator.hand_over_done(primary, stream.slot)
            index = node.slots[stream.slot].apply(stream, state.base, now_ns)
            if index is not None:
                positions.append((stream.slot, stream.since, stream.joined, index))
        self._promises.acknowledge(primary, now_ns)
        if len(self._promises.heard_at_ns) > self._forget_above:
            self._forget_others(now_ns)
        self._pass_state_on(primary, message.version, now_ns)
        node.reply(primary, ReplicateAck(message.sequence, node.state.version, positions))
        if message.serving:
            self._not_serving.pop(primary, None)
        elif primary not in self._not_serving:
            self._not_serving[primary] = None
            self.check_primaries(now_ns)

    def _pass_state_on(self, primary: Replica, version: int, now_ns: int) -> None:
        """A primary that goes on without the newest state may be cut off from the coordinator: pass it on, so that it
        learns that its reigns are over and sends its clients on. Repeated, since a reply is lost with its connection."""
        node = self._node
        if version >= node.state.version:
            self._behind_since_ns.pop(primary, None)
        elif now_ns - self._behind_since_ns.setdefault(primary, now_ns) >= BEHIND_NS:
            self._behind_since_ns[primary] = now_ns
            node.reply(primary, State(node.encoded_state()))

    def check_primaries(self, now_ns: int) -> None:
        """As backup, ask for the slots of every primary that is silent, or unable to serve."""
        node = self._node
        silent_ns = up(self._backup_lease_ns())
        for primary, slots in self._backup_slots.items():
            silence_ns = now_ns - self._promises.heard_at_ns.get(primary, now_ns)
            gone = node.replicator.is_down(primary, node.timing.takeover_link_grace_ns, now_ns)
            if not (
                silence_ns > silent_ns
                or (gone and silence_ns > node.timing.takeover_link_grace_ns)
                or primary in self._not_serving
            ):
                continue
            if now_ns - self._asked_at_ns.get(primary, DISTANT_PAST_NS) < ASK_AGAIN_NS:
                continue
            self._asked_at_ns[primary] = now_ns
            for number in slots:
                state = node.state.slots[number]
                assert state.backup is not None
                node.ask(
                    SlotRequestKind.TAKEOVER,
                    SlotRequest(
                        number, state.epoch, node.replica.node, node.replica.incarnation, state.backup.joined
                    ),
                )

    def _index_backups(self, state: ClusterState, now_ns: int) -> None:
        me = self._node.replica
        heard = self._promises.heard_at_ns
        backups: dict[Replica, list[int]] = {}
        for number in self._node.slots:
            slot = state.slots[number]
            if slot.primary is not None and slot.backup is not None and slot.backup.replica == me:
                backups.setdefault(slot.primary, []).append(number)
        for primary in backups:
            if primary not in self._backup_slots:
                heard[primary] = max(now_ns, heard.get(primary, now_ns))
        self._backup_slots = backups
        self._forget_others(now_ns)

    def _forget_others(self, now_ns: int) -> None:
        """Drop what is remembered of those that are no members and have no slot that this node has the backup of."""
        heard, state = self._promises.heard_at_ns, self._node.state
        for known in [
            each for each in heard if each not in self._backup_slots and not state.is_current(each)
        ]:
            self._promises.forget(known, now_ns, self._backup_lease_ns())
            self._not_serving.pop(known, None)
            self._asked_at_ns.pop(known, None)
            self._behind_since_ns.pop(known, None)
        self._forget_above = max(HEARD_MAX, 2 * len(heard))

    def _backup_lease_ns(self) -> int:
        return self._node.state.backup_lease_ms * NS_PER_MS
