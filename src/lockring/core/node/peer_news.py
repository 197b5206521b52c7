"""The slots with news for one peer, and when that news must leave.

A grant waits for its copies, so its mutation leaves at once. No client waits until the copies know of a release: it
repeats its latest releases should a crash undo them. So a removal travels with the next grant, or after `REMOVALS_NS`.
"""

from __future__ import annotations

from typing import Final

from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import SlotNumber
from lockring.units import NS_PER_MS

REMOVALS_NS: Final = 20 * NS_PER_MS
"""How long removals may wait for a grant to travel with. The wait saves half of all messages between nodes."""


class PeerNews:
    """The slots with news for one peer.

    Attributes:
        starting: slots whose stream must be started, or is being started.
        dirty: slots with mutations for the peer.
        urgent: whether some of it must leave at once.
        send_by_ns: when the rest must leave, if there is any.
    """

    __slots__ = ("dirty", "send_by_ns", "starting", "urgent")

    def __init__(self) -> None:
        self.starting: dict[SlotNumber, None] = {}
        self.dirty: dict[SlotNumber, None] = {}
        self.urgent = False
        self.send_by_ns = DISTANT_PAST_NS

    def add(self, number: SlotNumber, urgent: bool, now_ns: int) -> None:
        """Add a slot. News that is not urgent may wait for urgent news."""
        if urgent:
            self.urgent = True
        elif not self.dirty:
            self.send_by_ns = now_ns + REMOVALS_NS
        self.dirty[number] = None

    def is_due(self, now_ns: int) -> bool:
        """Return whether there is something to send that can wait no longer."""
        return self.urgent or bool(self.starting) or (bool(self.dirty) and now_ns >= self.send_by_ns)

    def forget(self, number: SlotNumber) -> None:
        """Forget a slot whose stream has ended."""
        self.starting.pop(number, None)
        self.dirty.pop(number, None)
