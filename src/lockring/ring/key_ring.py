"""The ring of a group: the member that should own each key.

It is the circle of circle.py with the simplest rule: a key's slot belongs to the next member clockwise. So the ring is
a pure function of the members and their weights, without history. Every process that knows the same members has the
same ring, and only what must move does: a leaving member gives its slots to the others, a joining member takes its
slots from the others, and no slot ever moves between two members that stay.

The price, compared with the ring of the nodes (hash_ring.py), is balance: loads are not bounded, only as even as many
points make them. The nodes' ring may depend on the one before because one coordinator alone computes it; each member of
a group computes the ring itself, and the members have not all seen the same past. For the same reason the number of a
member's points depends only on its own weight.
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
"""Points of a member per unit of weight: the shares of equal members differ by about 9 % (one standard deviation)."""

_SLOT_SHIFT: Final = CIRCLE_BITS - (SLOTS - 1).bit_length()


def slot_of_key(key: object) -> int:
    """Return the slot of a key, computed as for a lock's name; a key may be any text, "" too.

    Raises:
        InvalidRequest: the key is not text, or not encodable in UTF-8.
    """
    if not isinstance(key, str):
        raise InvalidRequest(f"a key must be text, got {type(key).__name__}")
    try:
        return slot_of(key)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"key {key!r} is not valid UTF-8 text: {error.reason}") from error


class KeySet:
    """A set of slots, seen as the set of keys in them: `key in slots`. Immutable.

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
    """The planned owner of each of the `SLOTS` slots, among weighted members. Immutable, thread-safe.

    Args:
        members: weights by id. Ids are any text; weights are whole numbers from 1 on, and only their proportion
            matters. Small ones make a smaller circle.

    Attributes:
        owners: for each slot, the id of the member that should own it; None without members.
    """

    __slots__ = ("owners",)

    def __init__(self, members: Mapping[str, int]) -> None:
        ids = sorted(members)
        if len(ids) < 2:
            self.owners: tuple[str | None, ...] = ((ids[0] if ids else None),) * SLOTS
            return
        self.owners = _owners(tuple([(member, members[member]) for member in ids]))

    def owner(self, key: str) -> str | None:
        """Return the member that should own a key; None without members."""
        return self.owners[slot_of_key(key)]

    def slots_of(self, member: str) -> frozenset[int]:
        """Return the slots that a member should own; none if it is not a member."""
        return frozenset([slot for slot, owner in enumerate(self.owners) if owner == member])

    def counts(self) -> dict[str, int]:
        """Return how many slots each member should own, by id, without members that should own none."""
        counts: dict[str, int] = {}
        for owner in self.owners:
            if owner is not None:
                counts[owner] = counts.get(owner, 0) + 1
        return dict(sorted(counts.items()))


@lru_cache(maxsize=16)
def _owners(members: tuple[tuple[str, int], ...]) -> tuple[str | None, ...]:
    """Return the owner of each slot. Cached: members of one group in one process all ask for the same ring."""
    nearest: dict[int, int] = {}
    whose: dict[int, str] = {}
    for member, weight in members:
        for stretch, place in zip(*_nearest_places(member, weight), strict=True):
            there = nearest.get(stretch)
            # Of points at the same place, the first id's counts.
            if there is None or place < there:
                nearest[stretch] = place
                whose[stretch] = member
    # A point serves the slots before its place: so the stretches are processed backwards.
    owners: list[str | None] = [None] * SLOTS
    owner = whose[min(whose)]
    for slot in range(SLOTS - 1, -1, -1):
        owner = whose.get(slot, owner)
        owners[slot] = owner
    return tuple(owners)


@lru_cache(maxsize=2048)
def _nearest_places(member: str, weight: int) -> tuple[array[int], array[int]]:
    """Return the stretches between two slots' places in which a member has points, and its first point in each.

    A stretch is identified by the number of the slot at its beginning. However great the weight, there are at most
    `SLOTS` stretches, of 6 bytes each.
    """
    nearest: dict[int, int] = {}
    for place in places_of(member, POINTS_PER_WEIGHT * weight):
        stretch = place >> _SLOT_SHIFT
        if place < nearest.get(stretch, place + 1):
            nearest[stretch] = place
    stretches = sorted(nearest)
    return array("H", stretches), array("I", [nearest[stretch] for stretch in stretches])
