"""The circle: the positions of members and slots, and the clockwise order.

The circle has 2^32 places. A member lies on it at many *points* (virtual nodes), 50 for each unit of weight, so that
it has many different neighbours. Point n of a member is the CRC32 of its id and n, mixed once more: CRC32 is linear,
so without the mixing, members named n1, n2, n3 … would keep the same distances to each other at every point. Slot k
lies at k · 2^20, the start of its 4096th part.

The number of points does not decide a member's share (primaries.py bounds the loads). So if the weights are large, all
members get fewer points in the same proportion, which keeps the circle small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from lockring.slots import SLOTS

POINTS_PER_WEIGHT: Final = 50
"""Points of a member per unit of weight, while the circle has room for them."""

POINTS_MAX: Final = 8192
"""Points on the whole circle, or one per member if there are more members."""

CIRCLE_BITS: Final = 32
_CIRCLE_MASK: Final = (1 << CIRCLE_BITS) - 1
_SLOT_SHIFT: Final = CIRCLE_BITS - (SLOTS - 1).bit_length()


class Circle:
    """The points of some members, immutable. Members are identified by their number in the sorted list of ids.

    Attributes:
        ids: the members' ids, sorted, distinct.
        weights: their weights, in the same order.
        points: number of the member at each point, in clockwise order.
        starts: for each slot, the index in `points` of the first point at or after its place; one past the last index
            if that is the first point of the circle.
    """

    __slots__ = ("ids", "points", "starts", "weights")

    def __init__(self, ids: Sequence[str], weights: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.weights = tuple(weights)
        total = sum(weights)
        placed: list[int] = []
        bits = max(1, len(self.ids).bit_length())
        for number, (member, weight) in enumerate(zip(self.ids, self.weights, strict=True)):
            # The number in the low bits orders points at the same place by id.
            placed += [place << bits | number for place in places_of(member, points_of_weight(weight, total))]
        placed.sort()
        mask = (1 << bits) - 1
        self.points = tuple([point & mask for point in placed])
        self.starts = tuple(_starts([point >> bits for point in placed]))

    def clockwise(self, slot: int) -> tuple[int, ...]:
        """Return the numbers of all members, each once, in clockwise order from a slot's place."""
        points, start, members = self.points, self.starts[slot], len(self.ids)
        # A few points per member nearly always suffice to meet every member; otherwise scan them all.
        found = dict.fromkeys(points[start : start + 6 * members])
        if len(found) < members:
            found = dict.fromkeys(points[start:] + points[:start])
        return tuple(found)

    def steps_to(self, number: int) -> list[int]:
        """Return, for each slot, how many points lie between its place and the member's next point clockwise."""
        points, size = self.points, len(self.points)
        own = [index for index, member in enumerate(points) if member == number]
        own.append(own[0] + size)
        steps: list[int] = []
        following = 0
        for start in self.starts:
            while own[following] < start:
                following += 1
            steps.append(own[following] - start)
        return steps


class Walk:
    """A clockwise search for members with room that skips members that are full for good.

    Their points are skipped by links that grow as they are used (a union-find), so that the last slots, for which
    nearly every member is full, cost no more than the first.
    """

    __slots__ = ("_circle", "_indices", "_links")

    def __init__(self, circle: Circle) -> None:
        self._circle = circle
        self._links = list(range(len(circle.points) + 1))  # a point that links to itself is open
        self._indices: list[list[int]] = [[] for _ in circle.ids]
        for index, number in enumerate(circle.points):
            self._indices[number].append(index)

    def close(self, number: int) -> None:
        """Skip a member from now on."""
        for index in self._indices[number]:
            self._links[index] = index + 1

    def next(self, slot: int, has_room: Callable[[int], bool] | None = None) -> int | None:
        """Return the first open member clockwise of a slot that satisfies `has_room`; None if there is none."""
        points, size = self._circle.points, len(self._circle.points)
        start = self._circle.starts[slot]
        for begin, end in ((start, size), (0, start)):
            index = self._open_from(begin)
            while index < end:
                if has_room is None or has_room(points[index]):
                    return points[index]
                index = self._open_from(index + 1)
        return None

    def _open_from(self, index: int) -> int:
        links = self._links
        while links[index] != index:
            links[index] = index = links[links[index]]
        return index


def points_of_weight(weight: int, total: int) -> int:
    """Return the number of points of a member, given its weight and the circle's total weight; at least 1."""
    return max(1, min(POINTS_PER_WEIGHT * weight, POINTS_MAX * weight // total))


def places_of(member: str, count: int) -> list[int]:
    """Return the places of a member's first `count` points on the circle, in no order."""
    seed = crc32(member.encode())
    places: list[int] = []
    for number in range(count):
        # The finalizer of MurmurHash3: bijective on 32 bits, and each bit of the CRC affects all others.
        place = crc32(number.to_bytes(4, "little"), seed)
        place = (place ^ place >> 16) * 0x85EBCA6B & _CIRCLE_MASK
        place = (place ^ place >> 13) * 0xC2B2AE35 & _CIRCLE_MASK
        places.append(place ^ place >> 16)
    return places


def _starts(places: Sequence[int]) -> list[int]:
    starts: list[int] = []
    index, size = 0, len(places)
    for slot in range(SLOTS):
        while index < size and places[index] < slot << _SLOT_SHIFT:
            index += 1
        starts.append(index)
    return starts
