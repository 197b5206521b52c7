"""Farewells: the word of stopping nodes on when their last promise ends, so that the next start waits no longer.

A node that gives slots up because the whole cluster stops reports, with the state in which they are free, until when
clients may rely on their grants there. The coordinator stores that, and the one that assigns the slots next waits until
then rather than for a whole coordinator lease. The rules:

- *A word is about slots that were served.* It counts only slots whose reign the node itself had begun, and names them,
  with their reigns, by a digest. The coordinator compares that with the slots it has taken from the node: one slot that
  the node does not know of makes the word worthless.
- *A word comes after the last promise.* It is part of a heartbeat with the state in which the slots are free, so its
  digest covers them.
- *All or nothing.* The state bears one word, for when every slot is free, and this coordinator saw each one freed.
- *An instant belongs to one boot of one machine.* In another boot the whole lease is waited for.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, Farewell, Replica, SlotState
from lockring.core.digest import mix
from lockring.core.timing import up
from lockring.ids import SlotNumber
from lockring.protocol import Heartbeat
from lockring.units import NS_PER_MS, NS_PER_S

CLOCKS_APART_NS: Final = 2 * NS_PER_S
"""How far wall clock and monotonic clock may have drifted apart since a word was written. More means another clock."""


def is_release(before: SlotState, after: SlotState) -> bool:
    """Return whether a slot was given up by its primary without a successor, rather than forgotten with the store."""
    return before.primary is not None and after.primary is None and before.base == after.base


def mark_of(number: SlotNumber, slot: SlotState) -> int:
    """Return the number that stands for one slot in one reign in a digest."""
    return mix(mix(number) ^ slot.since)


def is_trusted(word: Farewell | None, boot: str, *, now_ns: int, wall_ns: int) -> bool:
    """Return whether the instants of a stored word mean something to this process."""
    if word is None or not boot or word.boot != boot:
        return False
    return abs((wall_ns - word.at_wall_ns) - (now_ns - word.at_ns)) <= CLOCKS_APART_NS


class Farewells:
    """A coordinator's record of the slots that nodes gave up, with their words. Not safe for use by several tasks.

    Args:
        boot: id of this boot of the machine; "" if that is unknown, and then no word is written.
    """

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._state: ClusterState | None = None
        self._released_by: dict[SlotNumber, Replica] = {}
        self._digests: dict[Replica, int] = {}
        self._words: dict[Replica, tuple[int, int]] = {}

    def learn(self, state: ClusterState) -> None:
        """Note the state in force, and the slots that it releases."""
        before, self._state = self._state, state
        if before is None or before.slots is state.slots:
            return
        for place, (old, new) in enumerate(zip(before.slots, state.slots, strict=True)):
            if old is new:
                continue
            number = SlotNumber(place)
            if is_release(old, new):
                assert old.primary is not None
                self._digests[old.primary] = self._digests.get(old.primary, 0) ^ mark_of(number, old)
                self._released_by[number] = old.primary
            elif old != new:
                self._released_by.pop(number, None)

    def record_promise(self, replica: Replica, heartbeat: Heartbeat, now_ns: int) -> None:
        """Record when the last promise of a node ends, if its heartbeat reports that."""
        if heartbeat.promised_ms >= 0:
            self._words[replica] = (heartbeat.released, now_ns + up(heartbeat.promised_ms * NS_PER_MS))

    @property
    def is_open(self) -> bool:
        """Whether slots were given up here and the state in force has no word on them yet: nodes may still send one."""
        return bool(self._boot and self._released_by) and self._state is not None and not _covers(self._state)

    def word(self, state: ClusterState, *, now_ns: int, wall_ns: int) -> Farewell | None:
        """Return the word for the next state: a new one once every node has sent its own, else the present one."""
        if not self._boot or not self._released_by or state is not self._state:
            return state.farewell
        if _covers(state) or any(slot.primary is not None for slot in state.slots):
            return state.farewell
        if any(s.base > 0 and number not in self._released_by for number, s in enumerate(state.slots)):
            return state.farewell
        until_ns = now_ns
        for replica in dict.fromkeys(self._released_by.values()):
            digest, end_ns = self._words.get(replica, (0, 0))
            if not self._is_of_all(replica, digest):
                return state.farewell
            until_ns = max(until_ns, end_ns)
        return Farewell(self._boot, until_ns, now_ns, wall_ns, state.version)

    def _is_of_all(self, replica: Replica, digest: int) -> bool:
        """Return whether a node's word covers all slots that were taken from it."""
        return digest == self._digests[replica]


def _covers(state: ClusterState) -> bool:
    word = state.farewell
    return word is not None and all(slot.since <= word.version for slot in state.slots)
