"""The slots with news for one peer, and when that news must leave.

A grant waits for its copies, so its mutation leaves at once. No client waits until the copies know of a release: it
repeats its latest releases should a crash undo them. So a removal travels with the next grant, or after `REMOVALS_NS`.

The peers with news are noted apart, so that a turn looks at no others: there may be a thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lockring.cluster_state import Replica
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import SlotNumber
from lockring.units import NS_PER_MS

REMOVALS_NS: Final = 20 * NS_PER_MS
"""How long removals may wait for a grant to travel with. The wait saves half of all messages between nodes."""


class PeersWithNews:
    """The peers of a node that have news.

    Attributes:
        urgent: those that something must be sent to at once.
        patient: those with removals that may wait; some of them may be in `urgent` too.
        wake: has the node called at a time (ns), if not before.
    """

    __slots__ = ("patient", "urgent", "wake")

    def __init__(self, wake: Callable[[int], None]) -> None:
        self.wake = wake
        self.urgent: dict[PeerNews, None] = {}
        self.patient: dict[PeerNews, None] = {}


class PeerNews:
    """The slots with news for one peer.

    Attributes:
        peer: the life of the peer.
        is_up: whether this node's connection to it stands.
        starting: slots whose stream must be started, or is being started.
        dirty: slots with mutations for the peer.
        send_by_ns: when removals must leave, if there are any.
    """

    __slots__ = ("_peers", "dirty", "is_up", "peer", "send_by_ns", "starting")

    def __init__(self, peer: Replica, peers: PeersWithNews) -> None:
        self.peer = peer
        self.is_up = False
        self.starting: dict[SlotNumber, None] = {}
        self.dirty: dict[SlotNumber, None] = {}
        self.send_by_ns = DISTANT_PAST_NS
        self._peers = peers

    def add(self, number: SlotNumber, urgent: bool, now_ns: int) -> None:
        """Add a slot. News that is not urgent may wait for urgent news."""
        dirty = self.dirty
        if urgent:
            self._peers.urgent[self] = None
        elif not dirty:
            self.send_by_ns = now_ns + REMOVALS_NS
            self._peers.patient[self] = None
            self._peers.wake(self.send_by_ns)
        dirty[number] = None

    def start(self, number: SlotNumber) -> None:
        """Start the stream of a slot, at once."""
        self.starting[number] = None
        self.hurry()

    def hurry(self) -> None:
        """Let everything leave at once."""
        self._peers.urgent[self] = None

    def taken(self) -> None:
        """Note that everything that could be sent was taken. What is left waits for room."""
        peers = self._peers
        peers.patient.pop(self, None)
        if self.is_up and (self.starting or self.dirty):
            peers.urgent[self] = None
        else:
            peers.urgent.pop(self, None)

    def is_known(self) -> bool:
        """Return whether its peer counts as one with news, if there is some that could leave."""
        has_news = self.is_up and (self.starting or self.dirty)
        return not has_news or self in self._peers.urgent or self in self._peers.patient

    def forget(self, number: SlotNumber) -> None:
        """Forget a slot whose stream has ended."""
        self.starting.pop(number, None)
        self.dirty.pop(number, None)
