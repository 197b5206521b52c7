"""A new life's reading of a journal: it replays the entries into slots, as a copy applies the parts of a stream.

A gap or a contradiction within a slot means that the journal is damaged in a way that its files did not show. Then
nothing of its content can be relied on; the cluster that it belongs to is known all the same.

Slots do not depend on each other, so they are replayed one after the other. Entries of one slot are together then, and
tails that follow one another are applied as one.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from lockring.core.journal import ClusterSeen, EmptySlot, JournalFound, LifeBegan, ReignEnd
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.ids import Incarnation, SlotNumber
from lockring.protocol import Resume, Snapshot, Tail
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
    """Read a journal. Takes some 3 µs for each holder and mutation in it.

    Args:
        found: the journal.
        sessions: of the new life; those of the content are opened in it.
        now_ns: the time.
    """
    lives: dict[Incarnation, None] = {}
    seen: ClusterSeen | None = None
    by_slot: dict[SlotNumber, list[_SlotEntry]] = {}
    for entry in found.entries:
        if isinstance(entry, Tail):  # by far the most: this is written out for them
            of_slot = by_slot.get(entry.slot)
            if of_slot is None:
                by_slot[entry.slot] = [_Tails(entry)]
                continue
            last = of_slot[-1]
            mutations = entry.mutations
            # An empty one is left to be judged by itself.
            if (
                type(last) is not _Tails
                or entry.after != last.end
                or entry.since != last.since
                or entry.joined != last.joined
                or not mutations
            ):
                of_slot.append(_Tails(entry))
                continue
            last.mutations += mutations
            last.end += len(mutations)
            if entry.highest > last.highest:
                last.highest = entry.highest
        elif isinstance(entry, LifeBegan):
            lives[entry.incarnation] = None
        elif isinstance(entry, ClusterSeen):
            seen = entry
        elif isinstance(entry, ReignEnd):
            by_slot.setdefault(entry.end.slot, []).append(entry)
        else:
            by_slot.setdefault(entry.slot, []).append(entry)
    if not found.is_complete:
        return Recovery({}, (), seen, "")
    slots: dict[SlotNumber, NodeSlot] = {}
    try:
        for number, of_slot in by_slot.items():
            if not 0 <= number < SLOTS:
                raise _Damage(f"there is no slot {number}")
            slot = slots[number] = NodeSlot(number, sessions)
            _replay(slot, of_slot, now_ns)
    except _Damage as damage:
        for slot in slots.values():
            slot.clear()
        return Recovery({}, (), seen, str(damage))
    return Recovery(
        {number: slot for number, slot in slots.items() if not slot.is_empty}, tuple(lives), seen, ""
    )


class _Tails:
    """A tail, and the tails of its slot that go on from it, each from where the one before it ends.

    Most of a journal is tails of one mutation each. Applied as one, they take a fraction of the time. They are joined
    in the order of the journal, which is their order in memory: by slot, each look at one would miss the caches.

    Attributes:
        first: the first of them. Whether a slot takes all of them is judged by it alone.
        since, joined: as in each of them.
        end: index of the last mutation.
        highest: the highest generation of all.
        mutations: of all.
    """

    __slots__ = ("end", "first", "highest", "joined", "mutations", "since")

    def __init__(self, first: Tail) -> None:
        self.first = first
        self.since = first.since
        self.joined = first.joined
        self.end = first.after + len(first.mutations)
        self.highest = first.highest
        self.mutations = first.mutations.copy()

    def all(self) -> Tail:
        """Return a tail that says what all of them say."""
        first = self.first
        return Tail(
            first.slot,
            self.since,
            self.joined,
            after=first.after,
            highest=self.highest,
            mutations=self.mutations,
        )


_SlotEntry: TypeAlias = Snapshot | Resume | EmptySlot | ReignEnd | _Tails


def _replay(slot: NodeSlot, entries: list[_SlotEntry], now_ns: int) -> None:
    """Apply all entries about a slot, which is new.

    Raises:
        _Damage: one does not fit those before it, or the content has no beginning.
    """
    number = slot.number
    is_started = False
    skipped = ""
    for entry in entries:
        misfit = ""
        if isinstance(entry, EmptySlot):
            slot.clear(entry.base)
            is_started = True
        elif isinstance(entry, ReignEnd):
            if not slot.take_over_from(entry.end, now_ns):
                misfit = f"the end of reign {entry.end.since} of slot {number} does not fit its content"
        else:
            part = entry.first if isinstance(entry, _Tails) else entry
            if slot.takes(part, slot.base):
                slot.apply(entry.all() if isinstance(entry, _Tails) else entry, slot.base, now_ns)
                is_started = is_started or slot.content is not None
            elif isinstance(part, Snapshot) and _is_known(slot, part):
                # The node may have known of more tokens than the primary whose snapshot came before the rewrite's.
                slot.table.touch(part.highest)
            else:
                misfit = f"part of reign {part.since} of slot {number} does not fit its content"
        if misfit and is_started:
            raise _Damage(misfit)
        skipped = skipped or misfit  # of content that had begun before the first of these entries
    if skipped and not is_started:
        raise _Damage(f"the content of slot {number} has no beginning")


def _is_known(slot: NodeSlot, part: Snapshot) -> bool:
    """Return whether a part has no news of holders: a rewrite repeats what older entries have said."""
    if slot.following != (part.since, part.joined) or slot.content is None:
        return False
    return part.index <= slot.content[1]
