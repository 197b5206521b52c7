"""A node's journal: its entries, their order, and how far the disk is.

The journal is one more copy of every slot here. Its rules:

- Entries go into the next batch, in order. Mutations of slots that are served here are collected when the batch is
  made, one tail for each slot; the news of primaries was recorded as it came, and stands before them.
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
from lockring.core.node.peer_news import REMOVALS_NS, PeerNews
from lockring.core.node.reign import JournalStream
from lockring.core.node.slot import NodeSlot
from lockring.ids import NO_INDEX, NO_VERSION, MutationIndex, SlotNumber
from lockring.protocol import HandOverSlot, Resume, StreamPart
from lockring.units import NS_PER_MS

REWRITE_COST_MAX: Final = 1_000
"""Bound of what a batch rewrites: each slot counts one, and each of its holders one more. At least one slot, since a
slot is written as a whole."""

REWRITE_PAUSE_NS: Final = 20 * NS_PER_MS
"""Pause between two batches of a rewrite: some times as long as it takes to make one, so that clients, and the start of
a node, lose little time to it."""

MENDING_PAUSE_NS: Final = 5 * NS_PER_MS
"""The same while something is missing from the journal, so that grants wait for the end of the rewrite."""

NEVER: Final = 1 << 62
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


class _Batch:
    """The content of one batch, made or in the making.

    Attributes:
        entries: in order.
        reached: how far it takes the streams of reigns.
        version: of the newest cluster state in it, 0 if there is none.
    """

    __slots__ = ("entries", "reached", "version")

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.reached: list[tuple[JournalStream, MutationIndex]] = []
        self.version = NO_VERSION


class NodeJournal:
    """The journal of one life of a node, without its files.

    Attributes:
        former: the lives before this one.
        news: the slots served here with something to write.
        number: of the last batch that was made.
        durable: number up to which all batches are as durable as was asked for.
        version: of the newest cluster state in these.
        number_of_state: of the batch that has the newest state.
        trouble: a sentence on why something is missing from it, "" if nothing is.
    """

    def __init__(
        self, me: Replica, slots: dict[SlotNumber, NodeSlot], former: FormerLives, *, now_ns: int
    ) -> None:
        """Begin this life's part of the journal with a rewrite of all that is here.

        Args:
            me: this life.
            slots: its slots; the same object that the node changes.
            former: the lives before it.
            now_ns: the time.
        """
        self._me = me
        self._slots = slots
        self.former = former
        self.news = PeerNews()
        self.number = 0
        self.durable = 0
        self.version = NO_VERSION
        self.number_of_state = 0
        self.trouble = ""
        self._next = _Batch()
        self._under_way: dict[int, _Batch] = {}
        self._rewrite = _Rewrite()
        self.begin_rewrite(ClusterState(), now_ns)

    # ------------------------------------------------------------------ recording

    def reign_began(self, slot: NodeSlot, now_ns: int) -> None:
        """Write a slot that this node serves from now on, beginning with this call."""
        reign = slot.reign
        assert reign is not None
        reign.journal = JournalStream(self.news)
        if self._lacks(slot.number):
            return
        if reign.inherits is not None:
            self._add([Resume(slot.number, reign.since, OWN_TENURE, *reign.inherits)], now_ns)
        else:
            self._add(slot.snapshot(now_ns), now_ns)
        reign.journal.sent = NO_INDEX
        self._next.reached.append((reign.journal, NO_INDEX))

    def reign_ends(self, slot: NodeSlot, now_ns: int) -> None:
        """Record the last mutations of a reign that is about to end, since its table may stay as a copy."""
        reign = slot.reign
        assert reign is not None
        journal = reign.journal
        if journal is not None and journal.sent is not None and journal.sent < reign.index:
            self._add([reign.take_for_journal()], now_ns)

    def part_came(self, part: StreamPart) -> None:
        """Record what a slot that is copied here has just taken from its primary."""
        if not self._lacks(part.slot):
            self._next.entries.append(part)
            self.news.urgent = True

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
            self.news.urgent = True

    def number_of_position(self, slot: SlotNumber) -> int:
        """Return the batch with which a copy's present position is durable."""
        if self._lacks(slot):
            return NEVER
        return self.number + 1 if self._next.entries else self.number

    def hurry(self) -> None:
        """Let what was recorded wait no longer, since an answer waits for it."""
        if self._next.entries:
            self.news.urgent = True

    @property
    def _is_away(self) -> bool:
        """Whether nothing can be written until a rewrite begins."""
        return bool(self.trouble) and not self._rewrite.is_active and self._rewrite.last == NEVER

    def _lacks(self, slot: SlotNumber) -> bool:
        """Return whether a slot is missing from the journal, so that only a rewrite can bring it back."""
        return bool(self.trouble) and (self._is_away or slot in self._rewrite.missing)

    def _add(self, entries: Sequence[JournalEntry], now_ns: int) -> None:
        """Record entries for which no answer waits, so that they may wait for more."""
        news = self.news
        if not (news.urgent or news.dirty or self._next.entries):
            news.send_by_ns = now_ns + REMOVALS_NS
        self._next.entries += entries

    def _note_state(self, seen: ClusterSeen) -> None:
        self._next.entries.append(seen)
        self._next.version = seen.version
        self.number_of_state = self.number + 1

    # ------------------------------------------------------------------ writing

    def due_before_ns(self, at_ns: int, now_ns: int) -> int:
        """Return when the next batch is due, or `at_ns` if that is earlier."""
        news, rewrite = self.news, self._rewrite
        if self.trouble and self._is_away:
            return at_ns
        if news.urgent:
            return min(at_ns, now_ns)
        if (news.dirty or self._next.entries) and news.send_by_ns < at_ns:
            at_ns = news.send_by_ns
        return min(at_ns, rewrite.at_ns) if rewrite.is_active else at_ns

    def take_batch(self, now_ns: int) -> JournalBatch | None:
        """Make the next batch, if one is due."""
        news, rewrite = self.news, self._rewrite
        rewrites = rewrite.is_active and now_ns >= rewrite.at_ns
        batch, is_urgent = self._next, news.urgent
        if not (is_urgent or rewrites) and (now_ns < news.send_by_ns or not (news.dirty or batch.entries)):
            return None
        if self.trouble and self._is_away:
            return None
        news.urgent = False
        for number in news.dirty:
            reign = self._slots[number].reign
            journal = None if reign is None else reign.journal
            if reign is None or journal is None or journal.sent is None or journal.sent == reign.index:
                continue
            batch.entries.append(reign.take_for_journal())
            batch.reached.append((journal, reign.index))
        news.dirty.clear()
        ends_rewrite = rewrites and self._rewrite_some(batch, now_ns)
        if not (batch.entries or ends_rewrite):
            return None
        self._next = _Batch()
        self.number += 1
        entries, batch.entries = batch.entries, []  # not kept here: nothing bounds how long a sync may take
        self._under_way[self.number] = batch
        if ends_rewrite:
            rewrite.last = self.number
        if rewrites and self.trouble:
            is_urgent = True  # grants wait for that
        return JournalBatch(self.number, entries, is_urgent, ends_rewrite)

    def journaled(self, number: int) -> None:
        """Note that all batches up to one are durable."""
        under_way = self._under_way
        for each in range(self.durable + 1, number + 1):
            batch = under_way.pop(each, None)
            if batch is None:
                continue  # it was lost, and what was said after it has said everything again
            for stream, index in batch.reached:
                if index > stream.acked:
                    stream.acked = index
            if batch.version > self.version:
                self.version = batch.version
        self.durable = max(self.durable, number)
        if number >= self._rewrite.last:
            self.trouble = ""

    @property
    def is_settled(self) -> bool:
        """Whether everything that was recorded is durable."""
        return not (self._next.entries or self.news.dirty or self.trouble) and self.durable == self.number

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
        self._next.entries += [LifeBegan(node, life) for life in lives]
        if state.cluster:
            self._note_state(ClusterSeen(state.cluster, state.version, state.backup_lease_ms))
        elif former.seen is not None:
            self._note_state(former.seen)
        self.news.urgent = True
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
        self._next = _Batch()
        self._under_way = {}
        self.number_of_state = NEVER
        self._rewrite.is_active = False
        self._rewrite.last = NEVER
        self.news.urgent = False
        self.news.dirty = {}
        for slot in self._slots.values():
            reign = slot.reign
            if reign is not None and reign.journal is not None:
                reign.journal.sent = None
                reign.trim()

    def _rewrite_some(self, batch: _Batch, now_ns: int) -> bool:
        """Add the next slots of the rewrite to a batch, and return whether these are the last."""
        rewrite = self._rewrite
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
                reign.journal.sent = reign.index
                reign.trim()
                batch.reached.append((reign.journal, reign.index))
        rewrite.is_active = bool(rewrite.queue)
        return not rewrite.is_active
