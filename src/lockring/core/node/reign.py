"""How a primary tells its copies: reigns, streams and links.

Rules:

- In a reign the primary numbers a slot's mutations from 1. A copy's stream is named by (since, joined): the reign, and the
  copy's tenure in it. It starts with a snapshot, or, where both sides' tables ended at the same place, with `Resume`; then
  come the mutations without a gap.
- A link is the one ordered connection to a peer; it carries the news of all slots, many in a message. What was lost
  with a connection is sent again from what is known to be acknowledged.
- A copy is *required* once a grant must not be answered without its acknowledgement, nor the slot served without its
  lease: the backup, and a learner from before the coordinator is asked to make it the backup.
- A grant waits for its copies, so that its mutation leaves at once; nobody waits for the end of one (a client repeats its latest
  releases should a crash undo them), so that a removal goes along with the next grant, or after `REMOVALS_NS`.
- Snapshots are paced: what is under way on a link has a bound, so that a node that joins does not stall the rest.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Copy, Replica
from lockring.core.node.leases import Lease, SentTimes
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockHolder, OpenRequest
from lockring.core.timing import DISTANT_PAST_NS
from lockring.protocol import HandOverSlot, Mutation, Remove, Resume, Snapshot, Tail
from lockring.units import NS_PER_MS

SNAPSHOT_PART_HOLDERS: Final = 500
"""Holders in one part of a snapshot: about 60 KiB, a few milliseconds of work for either side."""

LINK_COST_MAX: Final = 2_000
"""Snapshot holders, and snapshots, that may be under way on a link."""

REMOVALS_NS: Final = 20 * NS_PER_MS
"""How long removals may wait for a grant to go along with: half of all messages between nodes, for as long as it takes to
notice that nothing else is going on."""

STREAMS_PER_MESSAGE: Final = 1_024
"""Slots in one message, so that no message takes long to handle."""

TAIL_MUTATIONS_MAX: Final = 5_000
"""Mutations of one slot in one message."""

NEARLY_IN_SYNC: Final = 1_000
"""A learner this many mutations behind or less becomes required, and then catches up for certain."""


class CopyStream:
    """One slot's stream to one copy.

    Attributes:
        copy: the copy's tenure.
        link: the connection that carries it.
        acked: index that the copy has acknowledged, None before it has any.
        sent: index up to which all was sent on the present connection, None before the stream was started on it.
        begins: index of the snapshot that started it; 0 for `Resume`.
        parts: parts of a snapshot that are still to be sent; `sent` is its index.
        resumable: whether `Resume` is to be tried before a snapshot: until the copy has said that it cannot.
        required: whether the slot is served, and grants answered, only with this copy's word.
        required_from: index at which it became so; it is in sync once it has acknowledged that.
        started: number of the message that (last) started the stream; what acknowledges earlier ones is out of date.
    """

    __slots__ = (
        "acked",
        "begins",
        "copy",
        "link",
        "parts",
        "required",
        "required_from",
        "resumable",
        "sent",
        "started",
    )

    def __init__(self, copy: Copy, link: PeerLink, *, resumable: bool, required: bool) -> None:
        self.copy = copy
        self.link = link
        self.acked: int | None = None
        self.sent: int | None = None
        self.begins = 0
        self.parts: list[Snapshot] = []
        self.resumable = resumable
        self.required = required
        self.required_from = 0
        self.started = 0

    def lost(self) -> None:
        """The connection is gone, and what was under way with it."""
        self.parts = []
        self.sent = self.acked

    def kept_from(self, index: int) -> int:
        """Mutations up to here are not needed for this stream any more, in a reign that is at `index`."""
        if self.acked is not None:
            return self.acked
        if self.sent is not None:
            return self.begins
        return 0 if self.resumable else index

    def must_start(self) -> bool:
        """Whether a snapshot, or what stands for it, is still to be sent (to its end)."""
        return self.sent is None or bool(self.parts)

    def acknowledged(self, index: int) -> None:
        """The copy has everything up to `index`; it may have it from a connection that is gone."""
        self.acked = index if self.acked is None else max(index, self.acked)
        if self.sent is not None:
            self.sent = max(self.sent, self.acked)

    def refused(self) -> None:
        """The copy has nothing to go on from: it needs a snapshot."""
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
        unanswered: grants whose answer waits for copies or rights, in the order of their mutations.
        inherits: (since, index) at which the inherited table ended, None where there is none.
    """

    __slots__ = (
        "_log",
        "_log_start",
        "base",
        "index",
        "inherits",
        "since",
        "started_ns",
        "streams",
        "table",
        "unanswered",
    )

    def __init__(
        self, table: LockTable, since: int, base: int, started_ns: int, inherits: tuple[int, int] | None
    ) -> None:
        self.table = table
        self.since = since
        self.base = base
        self.started_ns = started_ns
        self.index = 0
        self.inherits = inherits
        self.streams: dict[Replica, CopyStream] = {}
        self.unanswered: dict[LockHolder, OpenRequest] = {}
        self._log: list[Mutation] = []
        self._log_start = 0

    def record(self, mutation: Mutation, now_ns: int) -> None:
        """Number a mutation that the table has just seen, and let every copy hear of it."""
        self.index += 1
        self._log.append(mutation)
        slot = self.table.slot
        urgent = type(mutation) is not Remove  # an answer waits for all others
        for stream in self.streams.values():
            stream.link.note(slot, urgent, now_ns)

    def count(self) -> None:
        """Number a mutation that no copy needs to hear of, since there is none."""
        assert not self.streams
        self.index += 1
        self._log_start = self.index

    def acknowledged(self) -> int:
        """The index that every required copy has acknowledged; -1 while one has nothing."""
        least = self.index
        for stream in self.streams.values():
            if stream.required:
                if stream.acked is None:
                    return -1
                least = min(least, stream.acked)
        return least

    def trim(self) -> None:
        """Forget mutations that no stream needs any more."""
        keep_from = self.index
        for stream in self.streams.values():
            kept_from = stream.kept_from(self.index)
            if kept_from < keep_from:
                keep_from = kept_from
        if keep_from > self._log_start:
            del self._log[: keep_from - self._log_start]
            self._log_start = keep_from

    def hand_over(self, replica: Replica) -> HandOverSlot | None:
        """What a successor needs to go on from where this reign ends; None if it is too far behind."""
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

    def start_of(self, stream: CopyStream, now_ns: int) -> Snapshot | Resume:
        """What starts a stream, or the next part of it."""
        if stream.parts:
            return stream.parts.pop(0)
        if stream.resumable and self.inherits is not None and self._log_start == 0:
            stream.sent = stream.begins = 0
            return Resume(self.table.slot, self.since, stream.copy.joined, *self.inherits)
        stream.resumable = False
        return self._start_snapshot(stream, now_ns)

    def tail_of(self, stream: CopyStream) -> Tail | None:
        """The mutations that a started stream has not been sent yet (a bounded number), None if there are none."""
        assert stream.sent is not None
        after = stream.sent
        if after == self.index:
            return None
        at = after - self._log_start
        assert at >= 0
        mutations = self._log[at : at + TAIL_MUTATIONS_MAX]
        stream.sent = after + len(mutations)
        return Tail(self.table.slot, self.since, stream.copy.joined, after, self.table.highest, mutations)

    def _start_snapshot(self, stream: CopyStream, now_ns: int) -> Snapshot:
        holders = self.table.snapshot(now_ns)
        cuts = range(0, max(1, len(holders)), SNAPSHOT_PART_HOLDERS)
        parts = [
            Snapshot(
                slot=self.table.slot,
                since=self.since,
                joined=stream.copy.joined,
                base=self.base,
                index=self.index,
                highest=self.table.highest,
                part=number,
                last=number == len(cuts) - 1,
                holders=holders[cut : cut + SNAPSHOT_PART_HOLDERS],
            )
            for number, cut in enumerate(cuts)
        ]
        stream.sent = stream.begins = self.index
        stream.acked = None
        stream.parts = parts[1:]
        return parts[0]

    def check_invariants(self) -> None:
        """Assert that what may still be asked for is kept."""
        assert self._log_start + len(self._log) == self.index
        for stream in self.streams.values():
            acked, sent = stream.acked, stream.sent
            assert acked is None or acked <= self.index
            assert sent is None or (acked or 0) <= sent <= self.index
            assert self._log_start <= stream.kept_from(self.index)
        for holder, request in self.unanswered.items():
            assert 0 <= request.index <= self.index
            assert self.table.find(holder.session.id, holder.acquisition) is holder


class PeerLink:
    """What this node, as a primary, knows of one life of a peer.

    Attributes:
        peer: that life.
        up: whether our connection to it stands.
        down_since_ns: since when it does not.
        lease: the peer's acknowledgements.
        streams: by slot, all that this peer is a copy of under this node.
        starting: slots whose stream is to be started, or is being started.
        dirty: slots with news for the peer.
        urgent: whether some of it must leave at once.
        send_by_ns: when the rest must leave, if there is any.
        sent: when its messages were sent.
        heartbeat_at_ns: when to send something at the latest.
        hand_overs: ends of reigns that this peer is to hear of, by slot, until its own reign is heard of.
        hand_overs_due: those not sent on this connection yet.
        state_sent: version of the last state passed on to it on this connection.
        state_sent_after: number of the last message that was sent before that.
        asked_at_ns: when the coordinator was last asked to do without it.
    """

    __slots__ = (
        "_cost",
        "_cost_by_sequence",
        "asked_at_ns",
        "dirty",
        "down_since_ns",
        "hand_overs",
        "hand_overs_due",
        "heartbeat_at_ns",
        "lease",
        "peer",
        "send_by_ns",
        "sent",
        "starting",
        "state_sent",
        "state_sent_after",
        "streams",
        "up",
        "urgent",
    )

    def __init__(self, peer: Replica, now_ns: int) -> None:
        self.peer = peer
        self.up = False
        self.down_since_ns = now_ns
        self.lease = Lease()
        self.streams: dict[int, CopyStream] = {}
        self.starting: dict[int, None] = {}
        self.dirty: dict[int, None] = {}
        self.urgent = False
        self.send_by_ns = DISTANT_PAST_NS
        self.sent = SentTimes()
        self.heartbeat_at_ns = DISTANT_PAST_NS
        self.hand_overs: dict[int, HandOverSlot] = {}
        self.hand_overs_due: dict[int, None] = {}
        self.state_sent = 0
        self.state_sent_after = 0
        self.asked_at_ns = DISTANT_PAST_NS
        self._cost = 0
        self._cost_by_sequence: dict[int, int] = {}

    def connected(self) -> None:
        """Our connection stands (again): start every stream from what is acknowledged."""
        self.up = True
        self._restart()

    def disconnected(self, now_ns: int) -> None:
        """Our connection is gone."""
        if self.up:
            self.up = False
            self.down_since_ns = now_ns
        self._restart()

    def open(self, slot: int, stream: CopyStream) -> None:
        """Carry one more stream."""
        self.streams[slot] = stream
        self.starting[slot] = None

    def close(self, slot: int) -> None:
        """Carry this stream no more."""
        self.streams.pop(slot, None)
        self.starting.pop(slot, None)
        self.dirty.pop(slot, None)

    def restart_unknown(self, sequence: int) -> None:
        """The peer handled everything up to `sequence` without knowing the state that makes it a copy: start again
        the streams that it said nothing of."""
        for slot, stream in self.streams.items():
            if stream.acked is None and not stream.must_start() and stream.started <= sequence:
                stream.sent = None
                self.starting[slot] = None

    def note(self, slot: int, urgent: bool, now_ns: int) -> None:
        """A slot has news; what is not urgent may wait for something that is."""
        if urgent:
            self.urgent = True
        elif not self.dirty:
            self.send_by_ns = now_ns + REMOVALS_NS
        self.dirty[slot] = None

    def is_due(self, now_ns: int) -> bool:
        """Whether there is something to send, and it can wait no longer."""
        return self.urgent or bool(self.starting) or (bool(self.dirty) and now_ns >= self.send_by_ns)

    def has_room(self, more: int) -> bool:
        """Whether a snapshot may be sent now, beside `more` that is about to be."""
        return self._cost + more < LINK_COST_MAX

    def spend(self, sequence: int, cost: int) -> None:
        """A message with this much of snapshots is under way."""
        if cost:
            self._cost += cost
            self._cost_by_sequence[sequence] = cost

    def acknowledged(self, sequence: int) -> None:
        """What was under way up to this message has arrived."""
        for each in list(self._cost_by_sequence):
            if each > sequence:
                break
            self._cost -= self._cost_by_sequence.pop(each)

    def _restart(self) -> None:
        self._cost = 0
        self._cost_by_sequence = {}
        self.state_sent = 0
        for slot, stream in self.streams.items():
            stream.lost()
            if stream.must_start():
                self.starting[slot] = None
            else:
                self.dirty[slot] = None
                self.urgent = True
        self.hand_overs_due = dict.fromkeys(self.hand_overs)
        self.heartbeat_at_ns = DISTANT_PAST_NS
