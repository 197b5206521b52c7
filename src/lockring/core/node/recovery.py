"""A new life's reading of a journal: it replays the entries into slots, as a copy applies the parts of a stream.

A gap or a contradiction within a slot means that the journal is damaged in a way that its files did not show. Then
nothing of its content can be relied on; the cluster that it belongs to is known all the same.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.journal import ClusterSeen, EmptySlot, JournalFound, LifeBegan, ReignEnd
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.ids import Incarnation, SlotNumber
from lockring.protocol import Snapshot, StreamPart
from lockring.slots import SLOTS


class Recovery(NamedTuple):
    """The content of a journal.

    Attributes:
        slots: by number, those with content.
        lives: the former lives whose every answer is in the journal; none if it is not complete, or damaged.
        seen: the newest cluster state that they knew, None if none.
        damage: a sentence on a contradiction between its entries, "" if there is none.
    """

    slots: dict[SlotNumber, NodeSlot]
    lives: tuple[Incarnation, ...]
    seen: ClusterSeen | None
    damage: str


class _Damage(Exception):  # it never leaves this module
    """An entry that does not fit those before it."""


def recover(found: JournalFound, sessions: Sessions, now_ns: int) -> Recovery:
    """Read a journal. Takes some 5 µs for each holder and mutation in it.

    Args:
        found: the journal.
        sessions: of the new life; those of the content are opened in it.
        now_ns: the time.
    """
    replay = _Replay(sessions, now_ns)
    damage = ""
    for entry in found.entries:
        if isinstance(entry, LifeBegan):
            replay.lives[entry.incarnation] = None
        elif isinstance(entry, ClusterSeen):
            replay.seen = entry
        elif found.is_complete and not damage:
            try:
                replay.take(entry)
            except _Damage as found_damage:
                damage = str(found_damage)
    if found.is_complete and not damage and replay.skipped:
        damage = f"the content of slot {min(replay.skipped)} has no beginning"
    if damage or not found.is_complete:
        for slot in replay.slots.values():
            slot.clear()
        return Recovery({}, (), replay.seen, damage)
    slots = {number: slot for number, slot in replay.slots.items() if not slot.is_empty}
    return Recovery(slots, tuple(replay.lives), replay.seen, "")


class _Replay:
    """A replay so far.

    Attributes:
        slots: by number, all slots that were mentioned.
        skipped: slots with entries that make no sense yet, since the start of their content is still to come.
        lives: in order.
        seen: the newest state.
    """

    def __init__(self, sessions: Sessions, now_ns: int) -> None:
        self._sessions = sessions
        self._now_ns = now_ns
        self._started: dict[SlotNumber, None] = {}
        self.slots: dict[SlotNumber, NodeSlot] = {}
        self.skipped: dict[SlotNumber, None] = {}
        self.lives: dict[Incarnation, None] = {}
        self.seen: ClusterSeen | None = None

    def take(self, entry: StreamPart | EmptySlot | ReignEnd) -> None:
        """Apply an entry about a slot."""
        number = entry.end.slot if isinstance(entry, ReignEnd) else entry.slot
        if not 0 <= number < SLOTS:
            raise _Damage(f"there is no slot {number}")
        slot = self.slots.get(number)
        if slot is None:
            slot = self.slots[number] = NodeSlot(number, self._sessions)
        if isinstance(entry, EmptySlot):
            slot.clear(entry.base)
            self._start(number)
        elif isinstance(entry, ReignEnd):
            if not slot.take_over_from(entry.end, self._now_ns):
                self._skip(
                    number, f"the end of reign {entry.end.since} of slot {number} does not fit its content"
                )
        elif slot.takes(entry, slot.base):
            slot.apply(entry, slot.base, self._now_ns)
            if slot.content is not None and number not in self._started:
                self._start(number)
        elif not _is_known(slot, entry):
            self._skip(number, f"part of reign {entry.since} of slot {number} does not fit its content")

    def _start(self, number: SlotNumber) -> None:
        self._started[number] = None
        self.skipped.pop(number, None)

    def _skip(self, number: SlotNumber, damage: str) -> None:
        """Skip an entry of a slot whose content has not started yet; anywhere else it is damage."""
        if number in self._started:
            raise _Damage(damage)
        self.skipped[number] = None


def _is_known(slot: NodeSlot, part: StreamPart) -> bool:
    """Return whether a part says nothing that is not there: a rewrite repeats what older entries have said."""
    if slot.following != (part.since, part.joined) or slot.content is None:
        return False
    return isinstance(part, Snapshot) and part.index <= slot.content[1]
