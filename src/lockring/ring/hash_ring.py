"""The hash ring: the member that should be primary, and the one that should be backup, of every slot.

A ring is a value. The same members and the same history give the same ring on every machine and under every Python;
the order in which members are named does not matter. The rules are in primaries.py and backups.py, the geometry in
circle.py; docs/ring.md explains it with figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, Self

from lockring.errors import InvalidRequest
from lockring.ids import NodeId
from lockring.protocol import WEIGHT_MAX
from lockring.ring.assignment import NOBODY, Assignment
from lockring.ring.backups import settle_backups
from lockring.ring.circle import Circle
from lockring.ring.primaries import resume_primaries, settle_primaries
from lockring.slots import SLOTS, slot_of

WEIGHT_MIN: Final = 1

_NONE: Final[tuple[NodeId | None, ...]] = (None,) * SLOTS
_CACHED_MEMBERS_MAX: Final = 256


class Counts(NamedTuple):
    """The numbers of slots that a member is primary of and backup of."""

    primary: int
    backup: int


class HashRing:
    """The planned owners of the `SLOTS` slots. Immutable, safe to share between threads.

    With one member no slot has a backup; without members no slot has a primary either.

    Args:
        members: weights by id, or pairs of both. An id is any text that is not empty; a weight is a whole number
            from 1 to 100, and only its proportion to the others matters.
        previous: the ring to start from. Then as little as possible moves: a leaving member's slots go to their
            backups, a joining member takes its share, and no slot moves between two members that stay.
            None: from scratch.

    Raises:
        InvalidRequest: an id is empty, named twice or not encodable, or a weight is outside 1 to 100.
    """

    __slots__ = ("_backups", "_circle", "_clockwise", "_ids", "_members", "_primaries")

    _backups: tuple[NodeId | None, ...]
    _circle: Circle
    _clockwise: dict[int, tuple[NodeId, ...]]
    _ids: tuple[NodeId, ...]
    _members: Mapping[NodeId, int]
    _primaries: tuple[NodeId | None, ...]

    def __init__(
        self, members: Mapping[NodeId, int] | Iterable[tuple[NodeId, int]], previous: HashRing | None = None
    ) -> None:
        weights = _checked(members)
        if previous is None:
            self._settle(weights, _NONE, _NONE, [True] * len(weights))
        else:
            before = previous.members
            changed = [before.get(member) != weight for member, weight in weights.items()]
            self._settle(weights, previous.primaries, previous.backups, changed)

    @classmethod
    def empty(cls) -> Self:
        """Return the ring without members."""
        return cls({})

    @classmethod
    def resume(
        cls,
        members: Mapping[NodeId, int] | Iterable[tuple[NodeId, int]],
        primaries: Sequence[NodeId | None],
        backups: Sequence[NodeId | None],
    ) -> Self:
        """Start from an existing assignment, of any origin.

        Like `previous`, but without the knowledge which members are new or have a new weight. So members whose load is
        unlike the others' (for its weight, by more than 5 % and a slot) count as such, and whatever is out of bounds
        after that is corrected as well. If the previous ring is known, pass it to the constructor instead: then it is
        certain that nothing moves between two members that stay.

        An assignment within the bounds (5 % and a slot from the share as primary, 10 % and two slots as backup),
        with a primary and another backup for every slot, comes back unchanged.

        Args:
            members: as for the constructor.
            primaries: each slot's present primary; None, or an id that is not a member, counts as gone.
            backups: the same for backups.

        Raises:
            InvalidRequest: as for the constructor, or there are not `SLOTS` primaries and backups.
        """
        if len(primaries) != SLOTS or len(backups) != SLOTS:
            raise InvalidRequest(
                f"a ring has {SLOTS} slots, got {len(primaries)} primaries and {len(backups)} backups"
            )
        ring = cls.__new__(cls)
        ring._settle(_checked(members), primaries, backups, None)
        return ring

    def _settle(
        self,
        weights: dict[NodeId, int],
        primaries: Sequence[NodeId | None],
        backups: Sequence[NodeId | None],
        changed: Sequence[bool] | None,
    ) -> None:
        self._members = MappingProxyType(weights)
        self._ids = tuple(weights)
        self._circle = Circle(self._ids, tuple(weights.values()))
        self._clockwise = {}
        if not weights:
            self._primaries = self._backups = _NONE
            return
        numbers: dict[NodeId | None, int] = {member: number for number, member in enumerate(self._ids)}
        now = Assignment(
            self._circle,
            [numbers.get(member, NOBODY) for member in primaries],
            [numbers.get(member, NOBODY) for member in backups],
        )
        if changed is None:
            changed = resume_primaries(now)
        else:
            settle_primaries(now, changed)
        if len(weights) > 1:
            settle_backups(now, changed)
        names: list[NodeId | None] = [*self._ids, None]  # -1, for no member, indexes the last one
        self._primaries = tuple([names[number] for number in now.primaries])
        self._backups = tuple([names[number] for number in now.backups])

    @property
    def members(self) -> Mapping[NodeId, int]:
        """Weights by id, in the order of the ids; read-only."""
        return self._members

    @property
    def primaries(self) -> tuple[NodeId | None, ...]:
        """The primary of every slot, by number."""
        return self._primaries

    @property
    def backups(self) -> tuple[NodeId | None, ...]:
        """The backup of every slot, by number."""
        return self._backups

    def primary(self, slot: int) -> NodeId | None:
        """Return the member that should serve a slot; None without members."""
        return self._primaries[_checked_slot(slot)]

    def backup(self, slot: int) -> NodeId | None:
        """Return the member that should have a slot's copy, and so inherit it; None with fewer than two members."""
        return self._backups[_checked_slot(slot)]

    def owner(self, key: str) -> str | None:
        """Return the primary of a key's slot."""
        return self._primaries[slot_of(key)]

    def successors(self, slot: int) -> tuple[NodeId, ...]:
        """Return all members in clockwise order from a slot's place: candidates if primary and backup are out.

        The order ignores loads and history, so the first two are not necessarily the primary and the backup.
        """
        start = self._circle.starts[_checked_slot(slot)]
        found = self._clockwise.get(start)
        if found is None:
            found = tuple([self._ids[number] for number in self._circle.clockwise(slot)])
            # Two threads may both compute it; they store the same value. For large groups it is not kept: all orders of
            # 2,000 members would take 65 MB.
            if len(self._ids) <= _CACHED_MEMBERS_MAX:
                self._clockwise[start] = found
        return found

    def slots_of(self, member: NodeId) -> tuple[int, ...]:
        """Return the slots that a member is primary of, ascending; none if it is not a member."""
        return tuple([slot for slot, primary in enumerate(self._primaries) if primary == member])

    def counts(self) -> dict[NodeId, Counts]:
        """Return, for each member in the order of the ids, how many slots it is primary and backup of."""
        primaries, backups = dict.fromkeys(self._ids, 0), dict.fromkeys(self._ids, 0)
        for primary, backup in zip(self._primaries, self._backups, strict=True):
            if primary is not None:
                primaries[primary] += 1
            if backup is not None:
                backups[backup] += 1
        return {member: Counts(primaries[member], backups[member]) for member in self._ids}

    def __eq__(self, other: object) -> bool:
        """Return whether members, weights and the whole assignment are equal."""
        if not isinstance(other, HashRing):
            return NotImplemented
        return (
            self._members == other._members
            and self._primaries == other._primaries
            and self._backups == other._backups
        )

    def __hash__(self) -> int:
        return hash((self._ids, self._primaries, self._backups))

    def __repr__(self) -> str:
        shown = ", ".join(f"{member}×{weight}" for member, weight in list(self._members.items())[:10])
        more = f", … {len(self._members)} in all" if len(self._members) > 10 else ""
        return f"HashRing({shown}{more})"


def _checked(members: Mapping[NodeId, int] | Iterable[tuple[NodeId, int]]) -> dict[NodeId, int]:
    """Return the members in the order of their ids."""
    weights: dict[NodeId, int] = {}
    for member, weight in members.items() if isinstance(members, Mapping) else members:
        if not isinstance(member, str) or not member:
            _refuse(f"a ring member's id must be text and not empty, got {member!r}")
        if member in weights:
            _refuse(f"member {member!r} is named twice")
        try:
            member.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"member {member!r} is not valid UTF-8 text: {error.reason}") from error
        if isinstance(weight, bool) or not isinstance(weight, int) or not WEIGHT_MIN <= weight <= WEIGHT_MAX:
            _refuse(
                f"the weight of {member!r} must be a whole number from {WEIGHT_MIN} to {WEIGHT_MAX}, got {weight!r}"
            )
        weights[NodeId(member)] = weight
    return dict(sorted(weights.items()))


def _checked_slot(slot: int) -> int:
    if not 0 <= slot < SLOTS:
        _refuse(f"a slot is a number from 0 to {SLOTS - 1}, got {slot!r}")
    return slot


def _refuse(text: str) -> NoReturn:
    raise InvalidRequest(text)
