"""A node's journal: its entries, their order, and how far the disk is.

The journal is one more copy of every slot here. Its rules:

- Entries go into the next batch, in the order in which things happened: what a slot that is served here does to its
  table, and the news of primaries.
- A removal may wait for a while, as on its way to a copy. All else that is recorded for an answer leaves at once.
- A batch that was handed out is never handed out again. If it is lost, so is everything after the last durable one: all
  slots are missing from the journal, until a rewrite has said everything again. Of a missing slot nothing is recorded,
  since the rewrite will contain it.
- A rewrite goes slot by slot, a bounded number of holders for each batch, and other batches go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockring.cluster_state import ClusterState, Replica
from lockring.core.journal import (
    OWN_TENURE,
    ClusterSeen,
    EmptySlot,
    JournalBatch,
    JournalEntry,
    LifeBegan,
    ReignEnd,
)
from lockring.core.node.former_lives import FormerLives
from lockring.core.node.next_batch import AT_ONCE_NS, NOT_DUE_NS, JournalStream, NextBatch
from lockring.core.node.peer_news import REMOVALS_NS
from lockring.core.node.slot import NodeSlot
from lockring.ids import NO_INDEX, NO_VERSION, SlotNumber
from lockring.protocol import HandOverSlot, Position, Resume, StreamPart
from lockring.units import NS_PER_MS

# Bound once, for each batch: compiled code looks an imported name up in a dictionary.
_new_batch: Final = JournalBatch

REWRITE_COST_MAX: Final = 1_000
"""Bound of what a batch rewrites: each slot counts one, and each of its holders one more. At least one slot, since a
slot is written as a whole."""

REWRITE_PAUSE_NS: Final = 20 * NS_PER_MS
"""Pause between two batches of a rewrite: some times as long as it takes to make one, so that clients, and the start of
a node, lose little time to it."""

START_PAUSE_NS: Final = 500 * NS_PER_MS
"""How long a life's first rewrite waits: the former lives' journal has everything meanwhile, and all nodes of a machine
may be at their start, which has better use for its processors."""

MENDING_PAUSE_NS: Final = 5 * NS_PER_MS
"""The same while something is missing from the journal, so that grants wait for the end of the rewrite."""

NEVER: Final = 1 << 61
"""The number of the batch that will have what is missing from the journal: unknown until a rewrite is over."""


class _Rewrite:
    """A rewrite: what is still to be written again.

    Attributes:
        is_active: whether it has begun, and its last batch is still to be made.
        queue: the slots, in order; from the end.
        missing: slots with nothing in the journal that could be relied on, until their turn comes.
        at_ns: when the next batch is due.
        last: number of its last batch, `NEVER` until that is known.
        lost_at_ns: since when something is missing, where something is.
    """

    __slots__ = ("at_ns", "is_active", "last", "lost_at_ns", "missing", "queue")

    def __init__(self) -> None:
        self.is_active = False
        self.queue: list[SlotNumber] = []
        self.missing: dict[SlotNumber, None] = {}
        self.at_ns = 0
        self.last = NEVER
        self.lost_at_ns = 0


class NodeJournal:
    """The journal of one life of a node, without its files.

    Attributes:
        former: the lives before this one.
        next: the batch in the making.
        version: of a cluster state in these: the newest, once there is none on its way.
        number_of_state: of the batch that has the newest state.
        trouble: a sentence on why something is missing from it, "" if nothing is.
    """

    def __init__(
        self, me: Replica, slots: dict[SlotNumber, NodeSlot], former: FormerLives, *, now_ns: int
    ) -> None:
        """Begin this life's part of the journal, and soon a rewrite of all that is here.

        Args:
            me: this life.
            slots: its slots; the same object that the node changes.
            former: the lives before it.
            now_ns: the time.
        """
        self._me = me
        self._slots = slots
        self.former = former
        self.next = NextBatch()
        self.version = self._noted = NO_VERSION
        self.number_of_state = 0
        self.trouble = ""
        self._rewrite = _Rewrite()
        self.begin_rewrite(ClusterState(), now_ns)
        if self._rewrite.queue:
            self._rewrite.at_ns = now_ns + START_PAUSE_NS

    # ------------------------------------------------------------------ recording

    def reign_began(self, slot: NodeSlot, now_ns: int) -> None:
        """Write a slot that this node serves from now on, beginning with this call."""
        reign = slot.reign
        assert reign is not None
        reign.journal = JournalStream(self.next)
        if self._lacks(slot.number):
            return
        if reign.inherits is not None:
            self._add([Resume(slot.number, reign.since, OWN_TENURE, *reign.inherits)], now_ns)
        else:
            self._add(slot.snapshot(now_ns), now_ns)
        reign.journal.is_begun = True
        reign.journal.reach(NO_INDEX)

    def parts_came(self, parts: list[StreamPart]) -> None:
        """Record what slots that are copied here have just taken from their primary."""
        if self.trouble:
            parts = [part for part in parts if not self._lacks(part.slot)]
        if parts:
            self.next.entries += parts
            self.next.due_ns = AT_ONCE_NS

    def taken_over(self, end: HandOverSlot, now_ns: int) -> None:
        """Record the end of a former primary's reign, which a slot has just taken in."""
        if not self._lacks(end.slot):
            self._add([ReignEnd(end)], now_ns)

    def cleared(self, slot: NodeSlot, now_ns: int) -> None:
        """Record that a slot has been cleared."""
        if not self._lacks(slot.number):
            self._add([EmptySlot(slot.number, slot.base)], now_ns)

    def state_learned(self, state: ClusterState) -> None:
        """Record the newest cluster state. No acknowledgement is given by it before it is durable."""
        if not self._is_away:
            self._note_state(ClusterSeen(state.cluster, state.version, state.backup_lease_ms))
            self.next.due_ns = AT_ONCE_NS

    def number_of_positions(self, positions: list[Position]) -> int:
        """Return the batch with which the present positions of copies are durable, and the state by which they are."""
        if self.trouble and any(self._lacks(position.slot) for position in positions):
            return NEVER
        number = 0
        if positions:
            number = self.next.number if self.next.entries else self.number
        return max(number, self.number_of_state)

    def hurry(self) -> None:
        """Let what was recorded wait no longer, since an answer waits for it."""
        if self.next.entries:
            self.next.due_ns = AT_ONCE_NS

    @property
    def _is_away(self) -> bool:
        """Whether nothing can be written until a rewrite begins."""
        return bool(self.trouble) and not self._rewrite.is_active and self._rewrite.last == NEVER

    def _lacks(self, slot: SlotNumber) -> bool:
        """Return whether a slot is missing from the journal, so that only a rewrite can bring it back."""
        return bool(self.trouble) and (self._is_away or slot in self._rewrite.missing)

    def _add(self, entries: Sequence[JournalEntry], now_ns: int) -> None:
        """Record entries for which no answer waits, so that they may wait for more."""
        self.next.entries += entries
        self.next.wait(now_ns + REMOVALS_NS)

    def _note_state(self, seen: ClusterSeen) -> None:
        self.next.entries.append(seen)
        self._noted = seen.version
        self.number_of_state = self.next.number

    # ------------------------------------------------------------------ writing

    def take_batch(self, now_ns: int) -> JournalBatch | None:
        """Make the next batch, which is due; None if there is nothing in it."""
        batch = self.next
        is_urgent = batch.due_ns == AT_ONCE_NS
        batch.due_ns = NOT_DUE_NS
        ends_rewrite = False
        if self._rewrite.is_active:
            rewrite = self._rewrite
            if now_ns >= rewrite.at_ns:
                ends_rewrite = self._rewrite_some(now_ns)
                is_urgent = is_urgent or bool(self.trouble)  # grants wait for that
            if ends_rewrite:
                rewrite.last = batch.number
            else:
                batch.due_ns = rewrite.at_ns
        # Not kept here: nothing bounds how long a sync may take.
        entries = batch.entries
        if not (entries or ends_rewrite):
            return None
        number = batch.number
        batch.number = number + 1
        batch.entries = []
        return _new_batch(number, entries, is_urgent, ends_rewrite)

    def take_rest(self, now_ns: int) -> JournalBatch | None:
        """Make the next batch, whether or not it is due; None if nothing is left, nor of a rewrite."""
        self._rewrite.at_ns = min(self._rewrite.at_ns, now_ns)
        return self.take_batch(now_ns)

    def journaled(self, number: int) -> None:
        """Note that all batches up to one are durable."""
        if number > self.next.durable:
            self.next.durable = number
        if number >= self.number_of_state:
            self.version = self._noted
        if number >= self._rewrite.last:
            self.trouble = ""

    @property
    def number(self) -> int:
        """Number of the last batch that was made."""
        return self.next.number - 1

    @property
    def is_settled(self) -> bool:
        """Whether everything that was recorded is durable."""
        return not (self.next.entries or self.trouble) and self.next.durable == self.number

    # ------------------------------------------------------------------ rewriting

    def begin_rewrite(self, state: ClusterState, now_ns: int) -> None:
        """Write everything again, from the next batch on.

        Args:
            state: the newest cluster state that the node knows.
            now_ns: the time.
        """
        former, rewrite = self.former, self._rewrite
        node = self._me.node
        lives = (*former.named_in(state), self._me.incarnation)
        self.next.entries += [LifeBegan(node, life) for life in lives]
        if state.cluster:
            self._note_state(ClusterSeen(state.cluster, state.version, state.backup_lease_ms))
        elif former.seen is not None:
            self._note_state(former.seen)
        self.next.due_ns = AT_ONCE_NS
        rewrite.is_active = True
        # Missing slots may have been cleared, and the journal knows nothing of that.
        rewrite.queue = [number for number, slot in self._slots.items() if self.trouble or not slot.is_empty]
        rewrite.queue.reverse()
        rewrite.missing = dict.fromkeys(rewrite.queue) if self.trouble else {}
        rewrite.at_ns = now_ns
        rewrite.last = NEVER

    @property
    def lost_at_ns(self) -> int | None:
        """Since when something is missing from the journal, None if nothing is."""
        return self._rewrite.lost_at_ns if self.trouble else None

    def lost(self, trouble: str, now_ns: int) -> None:
        """Note that everything after the last durable batch is lost, and that nothing can be written for now."""
        if not self.trouble:
            self._rewrite.lost_at_ns = now_ns
        self.trouble = trouble
        self.next.clear()
        self.number_of_state = NEVER
        self._rewrite.is_active = False
        self._rewrite.last = NEVER
        for slot in self._slots.values():
            reign = slot.reign
            if reign is not None and reign.journal is not None:
                reign.journal.lost()

    def _rewrite_some(self, now_ns: int) -> bool:
        """Add the next slots of the rewrite to the batch, and return whether these are the last."""
        batch, rewrite = self.next, self._rewrite
        rewrite.at_ns = now_ns + (MENDING_PAUSE_NS if self.trouble else REWRITE_PAUSE_NS)
        cost = 0
        while rewrite.queue and cost < REWRITE_COST_MAX:
            number = rewrite.queue.pop()
            rewrite.missing.pop(number, None)
            slot = self._slots[number]
            parts = slot.snapshot(now_ns)
            batch.entries += parts or [EmptySlot(number, slot.base)]
            cost += 1 + sum(len(part.holders) for part in parts)
            reign = slot.reign
            if reign is not None and reign.journal is not None:
                reign.journal.is_begun = True
                reign.journal.reach(reign.index)
        rewrite.is_active = bool(rewrite.queue)
        return not rewrite.is_active
