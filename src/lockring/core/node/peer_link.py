"""A primary's link to one life of a peer: the one ordered connection that carries all streams to it.

Rules:

- After a lost connection, streams start again from the last acknowledged index.
- Snapshots are paced: a bound on the snapshots under way keeps a joining node from stalling the other streams.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import Replica
from lockring.core.node.leases import Lease, SentTimes
from lockring.core.node.peer_news import PeerNews, PeersWithNews
from lockring.core.node.reign import CopyStream
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import NO_SEQUENCE, NO_VERSION, SequenceNumber, SlotNumber, Version
from lockring.protocol import HandOverSlot

LINK_COST_MAX: Final = 2_000
"""Bound of the snapshots under way on a link: each snapshot counts one, and each of its holders one more."""


class SnapshotBudget:
    """The snapshots under way on a link, in the unit of `LINK_COST_MAX`."""

    __slots__ = ("_by_sequence", "_under_way")

    def __init__(self) -> None:
        self._under_way = 0
        self._by_sequence: dict[SequenceNumber, int] = {}

    def has_room(self, more: int) -> bool:
        """Return whether a snapshot may be sent now, beside `more` that is about to be."""
        return self._under_way + more < LINK_COST_MAX

    def spend(self, sequence: SequenceNumber, cost: int) -> None:
        """Count the snapshots in a message as under way."""
        self._under_way += cost
        self._by_sequence[sequence] = cost

    def acknowledged(self, sequence: SequenceNumber) -> None:
        """Count all snapshots up to a message as arrived."""
        for each in list(self._by_sequence):
            if each > sequence:
                break
            self._under_way -= self._by_sequence.pop(each)

    def reset(self) -> None:
        """Count nothing as under way: it was lost with the connection."""
        self._under_way = 0
        self._by_sequence = {}


class HandOvers:
    """Ends of reigns that a peer has to hear of, until its own reign in the slot is heard of.

    Attributes:
        by_slot: all of them.
        due: slots of those that were not sent on this connection yet.
    """

    __slots__ = ("by_slot", "due")

    def __init__(self) -> None:
        self.by_slot: dict[SlotNumber, HandOverSlot] = {}
        self.due: dict[SlotNumber, None] = {}

    def add(self, end: HandOverSlot) -> None:
        """Send an end with the next messages, and on every new connection."""
        self.by_slot[end.slot] = end
        self.due[end.slot] = None

    def drop(self, number: SlotNumber) -> None:
        """Send the end of this slot's reign no more."""
        self.by_slot.pop(number, None)
        self.due.pop(number, None)

    def take_due(self) -> list[HandOverSlot]:
        """Take those that were not sent on this connection yet."""
        due, self.due = self.due, {}
        return [self.by_slot[number] for number in due]

    def restart(self) -> None:
        """Send all of them on the next connection."""
        self.due = dict.fromkeys(self.by_slot)


class StateSent(NamedTuple):
    """The last cluster state that was passed on to a peer on the present connection.

    Attributes:
        version: of that state, 0 if there was none.
        after: number of the last message that was sent before it.
        is_whole: whether it went as a whole, rather than in differences from the version that the peer had.
    """

    version: Version
    after: SequenceNumber
    is_whole: bool = True


class PeerLink:
    """One life of a peer, as a primary deals with it.

    Attributes:
        peer: that life of the peer.
        down_since_ns: since when it does not stand.
        lease: the lease that the peer's acknowledgements grant.
        streams: by slot, the streams of all slots that this peer copies from this node.
        news: the slots with something to send.
        sent: when the messages to it were sent.
        heartbeat_at_ns: when to send something at the latest.
        hand_overs: ends of reigns in which the peer succeeds this node.
        state_sent: the version of the last state passed on to it.
        asked_at_ns: when this node last asked the coordinator to drop the peer's copies.
        budget: the snapshots under way.
    """

    __slots__ = (
        "asked_at_ns",
        "budget",
        "down_since_ns",
        "hand_overs",
        "heartbeat_at_ns",
        "lease",
        "news",
        "peer",
        "sent",
        "state_sent",
        "streams",
    )

    def __init__(self, peer: Replica, peers: PeersWithNews, now_ns: int) -> None:
        self.peer = peer
        self.down_since_ns = now_ns
        self.lease = Lease()
        self.streams: dict[SlotNumber, CopyStream] = {}
        self.news = PeerNews(peer, peers)
        self.sent = SentTimes()
        self.heartbeat_at_ns = DISTANT_PAST_NS
        self.hand_overs = HandOvers()
        self.state_sent = StateSent(NO_VERSION, NO_SEQUENCE)
        self.asked_at_ns = DISTANT_PAST_NS
        self.budget = SnapshotBudget()

    @property
    def is_up(self) -> bool:
        """Whether this node's connection to the peer stands."""
        return self.news.is_up

    def connected(self) -> None:
        """Start every stream from what is acknowledged: our connection stands (again)."""
        self.news.is_up = True
        self._restart()

    def disconnected(self, now_ns: int) -> None:
        """Note that our connection is gone, and all that was under way with it."""
        if self.news.is_up:
            self.news.is_up = False
            self.down_since_ns = now_ns
        self._restart()

    def open(self, number: SlotNumber, stream: CopyStream) -> None:
        """Carry one more stream."""
        self.streams[number] = stream
        self.news.start(number)

    def close(self, number: SlotNumber) -> None:
        """Carry this stream no more."""
        self.streams.pop(number, None)
        self.news.forget(number)

    def restart_unknown(self, sequence: SequenceNumber) -> None:
        """Start the streams again that the peer said nothing of.

        Everything up to `sequence` came to the peer before the state that makes it a copy, so that it understood
        none of these streams.
        """
        for number, stream in self.streams.items():
            if stream.acked is None and not stream.must_start() and stream.started <= sequence:
                stream.sent = None
                self.news.start(number)

    def _restart(self) -> None:
        self.budget.reset()
        self.state_sent = StateSent(NO_VERSION, self.state_sent.after)
        for number, stream in self.streams.items():
            stream.lost()
            if stream.must_start():
                self.news.starting[number] = None
            else:
                self.news.dirty[number] = None
        self.news.hurry()
        self.hand_overs.restart()
        self.heartbeat_at_ns = DISTANT_PAST_NS
