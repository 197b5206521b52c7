"""A node's roles: the changes that a new cluster state brings for it in each slot.

- As primary it begins a reign once its promises to former primaries are over, or at once on a hand-over.
- When it learns that its reign is over, it hands the end of it to its successor.
- As a copy it forgets a table that does not continue into the tenure which the state gives it.
- It keeps what its journal has of former lives until the state puts this life in their place (`former_lives`).

The changes are returned as a list, in order, so that the other parts of the node can act on them.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.cluster_state import ClusterState, SlotState
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.farewells import is_release, mark_of
from lockring.core.node.context import NodeContext
from lockring.core.node.leases import Promises
from lockring.core.node.locks import NO_DEADLINE, LockHolder
from lockring.core.node.replicator import Replicator
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NO_BASE, EndedReign, NodeSlot
from lockring.core.node.states import StateChange
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import SlotNumber, Version
from lockring.protocol import HandOver, HandOverSlot
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS


class ReignBegan(NamedTuple):
    """The beginning of this node's reign in a slot."""

    slot: NodeSlot


class NewGenerations(NamedTuple):
    """More generations for a slot that is served here: waiters may be granted."""

    slot: NodeSlot


SlotChange = ReignBegan | EndedReign | NewGenerations


class ReleasedSlots:
    """The slots that this life gave up with no node to take over.

    Attributes:
        digest: which, with the reigns.
        promised_until_ns: until when promises to clients about them may run.
        locks: how many of their locks were held.
    """

    __slots__ = ("digest", "locks", "promised_until_ns")

    def __init__(self) -> None:
        self.digest = 0
        self.promised_until_ns = 0
        self.locks = 0


class SlotRoles:
    """A node's roles in all slots.

    Attributes:
        to_begin: when to begin which slot's reign.
        released: the slots that were given up.
    """

    def __init__(
        self, context: NodeContext, sessions: Sessions, replicator: Replicator, promises: Promises
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._replicator = replicator
        self._promises = promises
        self.to_begin: DeadlineQueue[SlotNumber] = DeadlineQueue(self._is_to_begin, context.outbox.wake)
        self._begin_at_ns: dict[SlotNumber, int] = {}
        self._early: dict[SlotNumber, HandOverSlot] = {}
        self.released = ReleasedSlots()

    # ------------------------------------------------------------------ a new state

    def change(self, change: StateChange, now_ns: int) -> list[SlotChange]:
        """Take the roles of the state that the node has just taken."""
        old, new = change.old, self._context.state
        changes: list[SlotChange] = []
        if self._context.journal is not None:
            self._context.journal.state_learned(new)
        for number in change.slots:
            before, after = old.slots[number], new.slots[number]
            if before.primary == self._context.replica and is_release(before, after):
                self._part_from(number, before)
            if before.epoch != after.epoch:
                ended = self._change_slot(number, before, after, now_ns)
                if ended is not None:
                    changes.append(ended)
            if before.generation_below != after.generation_below:
                slot = self._context.slots.get(number)
                if slot is not None and slot.reign is not None:
                    changes.append(NewGenerations(slot))
        self._early = {number: end for number, end in self._early.items() if self._may_succeed(number, end)}
        self._drop_unnamed(new, now_ns)
        return changes

    def _part_from(self, number: SlotNumber, state: SlotState) -> None:
        """Note until when clients may believe in what they hold in a slot that is given up with no successor."""
        slot = self._context.slots.get(number)
        if slot is None or slot.reign is None or slot.reign.since != state.since:
            return  # others may know more of it: the digest lacks it, and that makes the farewell worth nothing
        released = self.released
        released.digest ^= mark_of(number, state)
        for share in slot.table.shares.values():
            if any(isinstance(entry, LockHolder) for entry in share.entries.values()):
                assert share.session.deadline_ns != NO_DEADLINE, "the sessions of a reign run"
                released.promised_until_ns = max(released.promised_until_ns, share.session.deadline_ns)

    def _may_succeed(self, number: SlotNumber, end: HandOverSlot) -> bool:
        slot = self._context.slots[number]
        return slot.reign is None and slot.following == (end.since, end.joined)

    def _change_slot(
        self, number: SlotNumber, before: SlotState, after: SlotState, now_ns: int
    ) -> EndedReign | None:
        me, slots = self._context.replica, self._context.slots
        copy = after.copy_of(me)
        slot = slots.get(number)
        if slot is None:
            if after.primary != me and copy is None:
                return None
            slot = slots[number] = NodeSlot(number, self._sessions)
        if after.since != before.since:
            if before.primary not in (None, me) and before.copy_of(me) is not None:
                bound_ns = self._promises.bound_until_ns(before.primary, self._backup_lease_ns())
                slot.not_before_ns = max(slot.not_before_ns, bound_ns)
            self._replicator.forget_hand_overs(number)
        is_heir = False
        journal = self._context.journal
        if journal is not None and number in journal.former.restored:
            if journal.former.keeps(after):
                journal.former.look(slot, after)
                return None
            journal.former.give_up(number, to_primary=after.primary == me)
            is_heir = True
        ended = None
        if slot.reign is not None and (after.primary != me or after.since != slot.reign.since):
            ended = self._end_reign(slot, after, now_ns)
        if after.primary == me:
            self._become_primary(slot, after, now_ns)
            if journal is not None and is_heir:
                journal.former.locks_back += len(slot.table.locks)
        elif copy is None:
            self._clear(slot, NO_BASE, now_ns)
        elif slot.following != (after.since, copy.joined):
            # A former primary keeps its table, though it follows nothing yet: should its successor die before it has
            # sent a snapshot, this is the only copy.
            if slot.base == after.base and (copy.joined == after.since or (is_heir and copy is after.backup)):
                slot.following = None
            else:
                self._clear(slot, NO_BASE, now_ns)
        return ended

    def _become_primary(self, slot: NodeSlot, after: SlotState, now_ns: int) -> None:
        if slot.base != after.base:
            self._clear(slot, after.base, now_ns)
            slot.not_before_ns = DISTANT_PAST_NS
        if slot.reign is not None:
            self._replicator.set_copies(slot, after, now_ns)
            return
        self._wait_for_former_lives(slot, after)
        early = self._early.pop(slot.number, None)
        if early is not None:
            self._take_over(slot, early, now_ns)
        self._begin_at(slot, now_ns)

    def _take_over(self, slot: NodeSlot, end: HandOverSlot, now_ns: int) -> bool:
        """Take in the end of a former primary's reign; False if it does not fit."""
        if not slot.take_over_from(end, now_ns):
            return False
        if self._context.journal is not None:
            self._context.journal.taken_over(end, now_ns)
        return True

    def _clear(self, slot: NodeSlot, base: Version, now_ns: int) -> None:
        """Let a slot hold nothing, as of a base."""
        held_nothing = slot.is_empty
        slot.clear(base)
        if not held_nothing and self._context.journal is not None:
            self._context.journal.cleared(slot, now_ns)

    def _end_reign(self, slot: NodeSlot, after: SlotState, now_ns: int) -> EndedReign:
        reign = slot.reign
        assert reign is not None
        if after.primary is None:
            self.released.locks += sum(bool(lock.holders) for lock in slot.table.locks.values())
        elif after.primary != self._context.replica:
            self._replicator.hand_over(reign, after.primary, now_ns)
        self._replicator.close_streams(reign)
        return slot.end_reign()

    # ------------------------------------------------------------------ what former lives have left

    def _drop_unnamed(self, state: ClusterState, now_ns: int) -> None:
        """Drop what a journal has of slots that the newest state knows nothing of."""
        former = None if self._context.journal is None else self._context.journal.former
        if former is None or not former.restored:
            return
        for number in list(former.restored):
            slot = self._context.slots[number]
            if not former.keeps(state.slots[number]):
                former.give_up(number)
                self._clear(slot, NO_BASE, now_ns)

    def _wait_for_former_lives(self, slot: NodeSlot, after: SlotState) -> None:
        """Keep the promises of former lives in a slot that this life is about to serve, unless it begins empty."""
        journal = self._context.journal
        if journal is not None and after.base != after.since:
            bound_ns = journal.former.bound_until_ns(slot.number, self._context.state.backup_lease_ms)
            slot.not_before_ns = max(slot.not_before_ns, bound_ns)

    # ------------------------------------------------------------------ beginning a reign

    @property
    def beginning(self) -> int:
        """How many slots this node will serve once promises to their former primaries are over."""
        return len(self._begin_at_ns)

    def begin_due(self, now_ns: int) -> list[SlotChange]:
        """Begin the reigns whose promises are over."""
        began: list[SlotChange] = []
        while (due := self.to_begin.pop_due(now_ns)) is not None:
            number = due[1]
            if not self._is_to_begin(number, due[0]):
                continue
            del self._begin_at_ns[number]
            slot = self._context.slots[number]
            state = self._context.state.slots[number]
            if state.primary != self._context.replica or slot.reign is not None:
                continue
            if slot.not_before_ns > now_ns:
                self._begin_at(slot, now_ns)
                continue
            slot.begin_reign(state.since, state.base, state.generation_from, now_ns)
            if self._context.journal is not None:
                self._context.journal.reign_began(slot, now_ns)
            self._replicator.set_copies(slot, state, now_ns)
            began.append(ReignBegan(slot))
        return began

    def _begin_at(self, slot: NodeSlot, now_ns: int) -> None:
        at_ns = max(now_ns, slot.not_before_ns)
        self._begin_at_ns[slot.number] = at_ns
        self.to_begin.push(at_ns, slot.number)

    def _is_to_begin(self, number: SlotNumber, at_ns: int) -> bool:
        return self._begin_at_ns.get(number) == at_ns

    def handed_over(self, message: HandOver, now_ns: int) -> list[SlotChange]:
        """Succeed a former primary that says how its reigns ended: its word releases this node from its promise."""
        context = self._context
        for end in message.slots:
            if not 0 <= end.slot < SLOTS:
                continue
            slot = context.slots.get(end.slot)
            if slot is None or slot.reign is not None:
                continue
            state = context.state.slots[end.slot]
            if state.primary == context.replica and state.since > end.since:
                if self._take_over(slot, end, now_ns):
                    self._begin_at(slot, now_ns)
            elif message.version > context.state.version and slot.following == (end.since, end.joined):
                # It has overtaken the state by which this node succeeds: kept until that comes.
                self._early[end.slot] = end
        return self.begin_due(now_ns)

    def _backup_lease_ns(self) -> int:
        return self._context.state.backup_lease_ms * NS_PER_MS
