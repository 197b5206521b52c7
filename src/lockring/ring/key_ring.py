"""The ring of a group: which member should own which keys.

It is the circle of circle.py, and the rule is the plainest there is: a key's slot belongs to the next member clockwise. So
the ring is a pure function of the members and their weights, without any history. Whoever knows the same members has the same
ring, and nothing moves but what it must: a member that leaves gives its slots to the others, one that joins
takes its slots from the others, and no slot ever changes hands between two members that stay.

The price, against the ring of the nodes (hash_ring.py), is balance: loads are not bounded, they are as even as many points
make them. That ring may look back on the one before it, since one coordinator alone works it out; members of a group work
theirs out each for itself, and have not all seen the same past. For the same reason the number of a member's points
depends on nothing but its own weight.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from lockring.errors import InvalidRequest
from lockring.ring.circle import CIRCLE_BITS, places_of
from lockring.slots import SLOTS, slot_of

POINTS_PER_WEIGHT: Final = 128
"""Points of a member for each unit of its weight: the shares of equal members differ by about 9 % (one standard deviation)."""

_SLOT_SHIFT: Final = CIRCLE_BITS - (SLOTS - 1).bit_length()


def slot_of_key(key: object) -> int:
    """The slot of a key: as of a lock's name, but of any text, "" too.

    Raises:
        InvalidRequest: it is no text, or none that UTF-8 knows.
    """
    if not isinstance(key, str):
        raise InvalidRequest(f"a key is text, not {type(key).__name__}")
    try:
        return slot_of(key)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the key {key!r} is not valid UTF-8 text: {error.reason}") from error


class KeySet:
    """Some of the slots that all keys fall into: `key in slots` says whether a key is among them. Immutable.

    Attributes:
        slots: their numbers, 0 to 4095.
    """

    __slots__ = ("slots",)

    def __init__(self, slots: frozenset[int] = frozenset()) -> None:
        self.slots = slots

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and slot_of_key(key) in self.slots

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.slots))

    def __len__(self) -> int:
        return len(self.slots)

    def __eq__(self, other: object) -> bool:
        return self.slots == other.slots if isinstance(other, KeySet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.slots)

    def __repr__(self) -> str:
        return f"<KeySet of {len(self.slots)} slots of {SLOTS}>"


class KeyRing:
    """Who should own each of the `SLOTS` slots, among members of some weights. Immutable, safe to share between threads.

    Args:
        members: weights by id. Ids are any text; weights are whole numbers from 1 on, of which only the
            proportion matters. Small ones make a smaller circle.

    Attributes:
        owners: for each slot the id of the member that should own it; None without members.
    """

    __slots__ = ("owners",)

    def __init__(self, members: Mapping[str, int]) -> None:
        ids = sorted(members)
        if len(ids) < 2:
            self.owners: tuple[str | None, ...] = ((ids[0] if ids else None),) * SLOTS
            return
        self.owners = _owners(tuple([(member, members[member]) for member in ids]))

    def owner(self, key: str) -> str | None:
        """The member that should own a key; None without members."""
        return self.owners[slot_of_key(key)]

    def slots_of(self, member: str) -> frozenset[int]:
        """The slots that a member should own; none if it is no member."""
        return frozenset([slot for slot, owner in enumerate(self.owners) if owner == member])

    def counts(self) -> dict[str, int]:
        """How many slots each member should own, by id; who gets none is left out."""
        counts: dict[str, int] = {}
        for owner in self.owners:
            if owner is not None:
                counts[owner] = counts.get(owner, 0) + 1
        return dict(sorted(counts.items()))


@lru_cache(maxsize=16)
def _owners(members: tuple[tuple[str, int], ...]) -> tuple[str | None, ...]:
    """The owner of each slot. Members of one group in one process all ask for the same one."""
    nearest: dict[int, int] = {}
    whose: dict[int, str] = {}
    for member, weight in members:
        for stretch, place in zip(*_nearest_places(member, weight), strict=True):
            there = nearest.get(stretch)
            # Of points that fall on one place the first id's counts.
            if there is None or place < there:
                nearest[stretch] = place
                whose[stretch] = member
    # What lies before a slot's place is of no use to it: so the stretches are gone through backwards.
    owners: list[str | None] = [None] * SLOTS
    owner = whose[min(whose)]
    for slot in range(SLOTS - 1, -1, -1):
        owner = whose.get(slot, owner)
        owners[slot] = owner
    return tuple(owners)


@lru_cache(maxsize=2048)
def _nearest_places(member: str, weight: int) -> tuple[array[int], array[int]]:
    """The stretches of the circle between two slots' places in which a member has points, each by the number of the slot at its beginning,
    and the first of its points in each. However great its weight, there are no more than `SLOTS`, of 6 bytes."""
    nearest: dict[int, int] = {}
    for place in places_of(member, POINTS_PER_WEIGHT * weight):
        stretch = place >> _SLOT_SHIFT
        if place < nearest.get(stretch, place + 1):
            nearest[stretch] = place
    stretches = sorted(nearest)
    return array("H", stretches), array("I", [nearest[stretch] for stretch in stretches])
