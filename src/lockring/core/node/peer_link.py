"""What a node, as a primary, knows of one life of a peer: the one ordered connection that carries all its streams.

Rules:

- What was lost with a connection is sent again from what is known to be acknowledged.
- Snapshots are paced: what is under way on a link has a bound, so that a node that joins does not stall the rest.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import Replica
from lockring.core.node.leases import Lease, SentTimes
from lockring.core.node.peer_news import PeerNews
from lockring.core.node.reign import CopyStream
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import NO_VERSION, SlotNumber, Version
from lockring.protocol import HandOverSlot

LINK_COST_MAX: Final = 2_000
"""Snapshot holders, and snapshots, that may be under way on a link."""


class SnapshotBudget:
    """How much of snapshots is under way on a link."""

    __slots__ = ("_by_sequence", "_under_way")

    def __init__(self) -> None:
        self._under_way = 0
        self._by_sequence: dict[int, int] = {}

    def has_room(self, more: int) -> bool:
        """Return whether a snapshot may be sent now, beside `more` that is about to be."""
        return self._under_way + more < LINK_COST_MAX

    def spend(self, sequence: int, cost: int) -> None:
        """Count what a message carries of snapshots."""
        self._under_way += cost
        self._by_sequence[sequence] = cost

    def acknowledged(self, sequence: int) -> None:
        """Count what was under way up to a message as arrived."""
        for each in list(self._by_sequence):
            if each > sequence:
                break
            self._under_way -= self._by_sequence.pop(each)

    def reset(self) -> None:
        """Count nothing: what was under way is lost with its connection."""
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
    """

    version: Version
    after: int


class PeerLink:
    """One life of a peer, as a primary deals with it.

    Attributes:
        peer: that life.
        up: whether our connection to it stands.
        down_since_ns: since when it does not.
        lease: what the peer's acknowledgements grant.
        streams: by slot, all that this peer is a copy of under this node.
        news: what is to be sent on them.
        sent: when its messages were sent.
        heartbeat_at_ns: when to send something at the latest.
        hand_overs: ends of reigns in which the peer succeeds this node.
        state_sent: the last state passed on to it.
        asked_at_ns: when the coordinator was last asked to do without it.
        budget: what is under way of snapshots.
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
        "up",
    )

    def __init__(self, peer: Replica, now_ns: int) -> None:
        self.peer = peer
        self.up = False
        self.down_since_ns = now_ns
        self.lease = Lease()
        self.streams: dict[SlotNumber, CopyStream] = {}
        self.news = PeerNews()
        self.sent = SentTimes()
        self.heartbeat_at_ns = DISTANT_PAST_NS
        self.hand_overs = HandOvers()
        self.state_sent = StateSent(NO_VERSION, 0)
        self.asked_at_ns = DISTANT_PAST_NS
        self.budget = SnapshotBudget()

    def connected(self) -> None:
        """Start every stream from what is acknowledged: our connection stands (again)."""
        self.up = True
        self._restart()

    def disconnected(self, now_ns: int) -> None:
        """Note that our connection is gone, and all that was under way with it."""
        if self.up:
            self.up = False
            self.down_since_ns = now_ns
        self._restart()

    def open(self, number: SlotNumber, stream: CopyStream) -> None:
        """Carry one more stream."""
        self.streams[number] = stream
        self.news.starting[number] = None

    def close(self, number: SlotNumber) -> None:
        """Carry this stream no more."""
        self.streams.pop(number, None)
        self.news.forget(number)

    def restart_unknown(self, sequence: int) -> None:
        """Start the streams again that the peer said nothing of.

        Everything up to `sequence` came to the peer before the state that makes it a copy, so that it understood
        none of these streams.
        """
        for number, stream in self.streams.items():
            if stream.acked is None and not stream.must_start() and stream.started <= sequence:
                stream.sent = None
                self.news.starting[number] = None

    def _restart(self) -> None:
        self.budget.reset()
        self.state_sent = StateSent(NO_VERSION, self.state_sent.after)
        for number, stream in self.streams.items():
            stream.lost()
            if stream.must_start():
                self.news.starting[number] = None
            else:
                self.news.dirty[number] = None
                self.news.urgent = True
        self.hand_overs.restart()
        self.heartbeat_at_ns = DISTANT_PAST_NS
