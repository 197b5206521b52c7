"""How a primary replicates a slot: its reign, and the streams to its copies.

Rules:

- In a reign the primary numbers a slot's mutations from 1. A copy's stream is named by (since, joined): the reign,
  and the copy's tenure in it. It starts with a snapshot, or, where both sides' tables ended at the same place, with
  `Resume`; then come the mutations without a gap.
- The journal is one more copy, whose link is the disk. It is always required, gives no lease, and is never sent
  anything twice: what is lost on the way is written as a snapshot.
- An acknowledgement that waited for a copy's journal may come after a lost connection, in a stream that was started
  again since, or is still to be. What it says of the former start counts for nothing.
- A copy is *required* once a grant must not be answered without its acknowledgement, nor the slot served without its
  lease: the backup, and a learner from before the coordinator is asked to make it the backup.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Copy, Replica
from lockring.core.journal import OWN_TENURE
from lockring.core.node.leases import Lease
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockHolder, OpenRequest
from lockring.core.node.next_batch import AT_ONCE_NS, JournalStream
from lockring.core.node.peer_news import REMOVALS_NS, PeerNews
from lockring.ids import NEEDS_SNAPSHOT, NO_INDEX, MutationIndex, Version
from lockring.protocol import HandOverSlot, Mutation, Resume, Snapshot, Tail

# Bound once, for each mutation that is recorded: compiled code looks an imported name up in a dictionary.
_tail: Final = Tail
_own_tenure: Final = OWN_TENURE

SNAPSHOT_PART_HOLDERS: Final = 500
"""Holders in one part of a snapshot: about 60 KiB, a few milliseconds of work for either side."""

STREAMS_PER_MESSAGE: Final = 1_024
"""Slots in one message, so that no message takes long to handle."""

TAIL_MUTATIONS_MAX: Final = 5_000
"""Mutations of one slot in one message."""

NEARLY_IN_SYNC: Final = 1_000
"""A learner this many mutations behind or less becomes required, and then catches up for certain."""


class CopyStream:
    """One slot's stream to one copy.

    Attributes:
        reign: the reign whose mutations it carries.
        copy: the copy's tenure.
        news: of the link that carries it, where slots with something to send are noted.
        lease: what the copy's acknowledgements grant.
        acked: index that the copy has acknowledged, None before it has any.
        sent: index up to which all was sent on the present connection, None before the stream was started on it.
        begins: index of the snapshot that started it; 0 for `Resume`.
        parts: parts of a snapshot that are still to be sent; `sent` is its index.
        resumable: whether to try `Resume` before a snapshot; False once the copy has said that it cannot resume.
        required: whether serving the slot, and answering grants, needs this copy's acknowledgement.
        required_from: index at which it became so; it is in sync once it has acknowledged that.
        started: number of the message that (last) started the stream; what acknowledges earlier ones is out of date.
    """

    __slots__ = (
        "acked",
        "begins",
        "copy",
        "lease",
        "news",
        "parts",
        "reign",
        "required",
        "required_from",
        "resumable",
        "sent",
        "started",
    )

    def __init__(
        self,
        reign: Reign,
        copy: Copy,
        news: PeerNews,
        lease: Lease,
        *,
        resumable: bool,
        required: bool,
    ) -> None:
        self.reign = reign
        self.copy = copy
        self.news = news
        self.lease = lease
        self.acked: MutationIndex | None = None
        self.sent: MutationIndex | None = None
        self.begins = NO_INDEX
        self.parts: list[Snapshot] = []
        self.resumable = resumable
        self.required = required
        self.required_from = 0
        self.started = 0

    def lost(self) -> None:
        """Go back to what is acknowledged: what was under way is lost with the connection."""
        self.parts = []
        self.sent = self.acked

    def kept_from(self, index: MutationIndex) -> MutationIndex:
        """Return the index up to which this stream needs no mutations any more, in a reign that is at `index`."""
        if self.acked is not None:
            return self.acked
        if self.sent is not None:
            return self.begins
        return NO_INDEX if self.resumable else index

    def must_start(self) -> bool:
        """Return whether a snapshot, or what stands for it, is still to be sent (to its end)."""
        return self.sent is None or bool(self.parts)

    def acknowledged(self, index: MutationIndex) -> None:
        """Note that the copy has everything up to `index`, maybe from a connection that is gone.

        It counts only if the stream goes on from there: of mutations before its start, nothing may be kept.
        """
        if self.sent is None or index < self.begins:
            return
        if self.acked is None or index > self.acked:
            self.acked = index
            if index > self.sent:
                self.sent = index

    def refused(self) -> None:
        """Send a snapshot: the copy has nothing to go on from."""
        self.resumable = False
        self.acked = self.sent = None
        self.parts = []


class Reign:
    """One slot while this node is its primary and active.

    Attributes:
        since: version that began it.
        base: of the table.
        started_ns: when this node became active.
        index: number of the last mutation.
        streams: by the copy's replica.
        journal: the stream to the node's own journal, None if it keeps none.
        unanswered: grants whose answer waits for copies or rights, in the order of their mutations.
        inherits: (since, index) at which the inherited table ended, None where there is none.
    """

    __slots__ = (
        "_log",
        "_log_start",
        "base",
        "index",
        "inherits",
        "journal",
        "since",
        "started_ns",
        "streams",
        "table",
        "unanswered",
    )

    def __init__(
        self,
        table: LockTable,
        since: Version,
        base: Version,
        started_ns: int,
        inherits: tuple[Version, MutationIndex] | None,
    ) -> None:
        self.table = table
        self.since = since
        self.base = base
        self.started_ns = started_ns
        self.index = NO_INDEX
        self.inherits = inherits
        self.streams: dict[Replica, CopyStream] = {}
        self.journal: JournalStream | None = None
        self.unanswered: dict[LockHolder, OpenRequest] = {}
        self._log: list[Mutation] = []
        self._log_start = 0

    def record(self, mutation: Mutation, now_ns: int, *, urgent: bool) -> None:
        """Append a mutation of the table to the log, for every copy, and to the journal's next batch.

        Args:
            mutation: any.
            now_ns: the time.
            urgent: whether an answer waits for it, as for all but removals.
        """
        after, table = self.index, self.table
        index: MutationIndex = after + 1  # type: ignore[assignment]  # born here
        self.index = index
        journal = self.journal
        if journal is not None and journal.is_begun:
            # In line, since each call is felt in the time of a lone grant.
            batch = journal.batch
            batch.entries.append(
                _tail(table.slot, self.since, _own_tenure, after, table.highest, mutations=[mutation])
            )
            if urgent:
                batch.due_ns = AT_ONCE_NS
                journal.reach(index)
            elif batch.due_ns > now_ns + REMOVALS_NS:
                batch.due_ns = now_ns + REMOVALS_NS
        if self.streams:
            self._log.append(mutation)
            for stream in self.streams.values():
                stream.news.add(table.slot, urgent, now_ns)
        else:
            self._log_start = index

    def count(self) -> None:
        """Count a mutation without keeping it, since there is no copy that would need it."""
        assert not self.streams
        assert self.journal is None
        self.index += 1  # type: ignore[assignment]  # born here
        self._log_start = self.index

    @property
    def has_all_mutations(self) -> bool:
        """Whether every mutation of this reign is still kept, so that a copy can go on from the inherited table."""
        return self._log_start == 0

    def acknowledged_index(self) -> MutationIndex:
        """Return the index that the journal and every required copy have; -1 while one has nothing."""
        least = self.index if self.journal is None else self.journal.acked
        for stream in self.streams.values():
            if stream.required:
                acked = stream.acked
                if acked is None:
                    return NEEDS_SNAPSHOT
                if acked < least:
                    least = acked
        return least

    def trim(self) -> None:
        """Forget mutations that no stream needs any more."""
        keep_from = index = self.index
        for stream in self.streams.values():
            kept_from = stream.kept_from(index)
            if kept_from < keep_from:
                keep_from = kept_from
        if keep_from == index:
            self._log.clear()
        elif keep_from > self._log_start:
            del self._log[: keep_from - self._log_start]
        else:
            return
        self._log_start = keep_from

    def end_for(self, replica: Replica) -> HandOverSlot | None:
        """Return what a successor needs to go on from where this reign ends; None if it is too far behind."""
        stream = self.streams.get(replica)
        if stream is None or stream.acked is None:
            return None
        return HandOverSlot(
            slot=self.table.slot,
            since=self.since,
            joined=stream.copy.joined,
            after=stream.acked,
            index=self.index,
            highest=self.table.highest,
            mutations=self._log[stream.acked - self._log_start :],
        )

    def take_start(self, stream: CopyStream, now_ns: int) -> Snapshot | Resume:
        """Count the start of a stream, or the next part of it, as sent, and return it."""
        if stream.parts:
            return stream.parts.pop(0)
        if stream.resumable and self.inherits is not None and self.has_all_mutations:
            stream.sent = stream.begins = NO_INDEX
            return Resume(self.table.slot, self.since, stream.copy.joined, *self.inherits)
        stream.resumable = False
        return self._start_snapshot(stream, now_ns)

    def take_tail(self, stream: CopyStream) -> Tail | None:
        """Count the next mutations of a started stream as sent, and return them; None if there are none."""
        after = stream.sent
        assert after is not None
        if after == self.index:
            return None
        at = after - self._log_start
        assert at >= 0
        mutations = self._log[at : at + TAIL_MUTATIONS_MAX]
        stream.sent = after + len(mutations)  # type: ignore[assignment]  # born here
        table = self.table
        return Tail(table.slot, self.since, stream.copy.joined, after, table.highest, mutations=mutations)

    def _start_snapshot(self, stream: CopyStream, now_ns: int) -> Snapshot:
        parts = snapshot_of(
            self.table, (self.since, stream.copy.joined), base=self.base, index=self.index, now_ns=now_ns
        )
        stream.sent = stream.begins = self.index
        stream.acked = None
        stream.parts = parts[1:]
        return parts[0]

    def check_invariants(self) -> None:
        """Assert that what may still be asked for is kept."""
        assert self._log_start + len(self._log) == self.index
        assert self.journal is None or self.journal.acked <= self.index
        for stream in self.streams.values():
            acked, sent = stream.acked, stream.sent
            assert acked is None or acked <= self.index
            assert sent is None or (acked or 0) <= sent <= self.index
            assert self._log_start <= stream.kept_from(self.index)
        for holder, request in self.unanswered.items():
            assert 0 <= request.index <= self.index
            assert self.table.find(holder.session.id, holder.acquisition) is holder


def snapshot_of(
    table: LockTable, tenure: tuple[Version, Version], *, base: Version, index: MutationIndex, now_ns: int
) -> list[Snapshot]:
    """Return all holders of a slot in the parts of a snapshot: at least one.

    Args:
        table: of the slot.
        tenure: (since, joined) of the stream.
        base: of the table.
        index: of the last mutation that it contains.
        now_ns: the time, from which the ages of grants count.
    """
    holders = table.snapshot(now_ns)
    cuts = range(0, max(1, len(holders)), SNAPSHOT_PART_HOLDERS)
    since, joined = tenure
    return [
        Snapshot(
            slot=table.slot,
            since=since,
            joined=joined,
            base=base,
            index=index,
            highest=table.highest,
            part=number,
            last=number == len(cuts) - 1,
            holders=holders[cut : cut + SNAPSHOT_PART_HOLDERS],
        )
        for number, cut in enumerate(cuts)
    ]
