"""Which copies their primaries could not reach, so that the next member on the ring gets a turn.

A copy is dropped because its primary says that it does not answer, or because it never came into sync. The first
time it is tried again; the second time in a row the pair is *avoided* for a while. This is advice for
placement only: no safety rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockring.cluster_state import Copy, Member, Replica
from lockring.ids import NodeId, Version
from lockring.units import NS_PER_S

DROPS_MAX: Final = 2
"""Drops in a row after which a pair is avoided: the first may have been a hiccup."""

AVOIDED_NS: Final = 30 * NS_PER_S
"""How long a pair is avoided: long beside a drop (about two seconds), short beside a broken link."""


class _Record:
    """The drops of one pair."""

    __slots__ = ("avoided_until_ns", "drops", "version")

    def __init__(self) -> None:
        self.drops = 0
        self.version = 0
        self.avoided_until_ns: int | None = None


class Reachability:
    """The drops of pairs of a primary and a copy. Not safe for use by several tasks."""

    def __init__(self) -> None:
        self._records: dict[tuple[Replica, Replica], _Record] = {}

    def dropped(self, primary: Replica, copy: Copy, *, version: Version, now_ns: int) -> None:
        """Count a copy that the state of this version drops because its primary cannot reach it.

        The slots of one pair are dropped one by one, in several states: only the drop of a tenure that began
        after the last counted one counts.
        """
        record = self._records.setdefault((primary, copy.replica), _Record())
        if copy.joined <= record.version:
            return
        record.version = version
        record.drops += 1
        if record.drops >= DROPS_MAX:
            record.avoided_until_ns = now_ns + AVOIDED_NS

    def in_sync(self, primary: Replica, copy: Replica) -> None:
        """Forget the drops of a pair whose copy has come into sync: the two reach each other."""
        self._records.pop((primary, copy), None)

    def is_avoided(self, primary: Replica, copy: Replica, *, now_ns: int) -> bool:
        """Return whether another copy should be preferred for this primary at present."""
        record = self._records.get((primary, copy))
        if record is None or record.avoided_until_ns is None:
            return False
        return now_ns < record.avoided_until_ns

    def expire(self, *, now_ns: int) -> bool:
        """Give pairs whose time has passed one more try, and return whether there was one."""
        expired = False
        for record in self._records.values():
            if record.avoided_until_ns is not None and now_ns >= record.avoided_until_ns:
                record.avoided_until_ns = None
                record.drops = DROPS_MAX - 1
                expired = True
        return expired

    def next_deadline_ns(self) -> int | None:
        """Return when the next pair has been avoided for long enough, None if there is none."""
        return min(
            (r.avoided_until_ns for r in self._records.values() if r.avoided_until_ns is not None),
            default=None,
        )

    def forget_all_but(self, members: Mapping[NodeId, Member]) -> None:
        """Forget all pairs except those of two current members."""
        current = frozenset(member.replica for member in members.values())
        for pair in [each for each in self._records if not current.issuperset(each)]:
            del self._records[pair]
