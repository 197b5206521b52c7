"""An assignment in the making: the owners of the slots so far, and how far each member is from its share.

Shares are compared in whole numbers only; no float, hash or set decides anything, so that every machine comes
to the same result. As primary, a member's share is SLOTS · weight / total: one slot counts as `total` units (the sum
of the weights), which makes shares whole. As backup, a member has a share of each other member's slots, in proportion
to the weights of those others; these have no common denominator and are counted in 2^-20 of a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from lockring.ring.circle import Circle
from lockring.slots import SLOTS

NOBODY: Final = -1
"""Stands for no member in place of a member's number."""

ORDER: Final = tuple([index * 2531 % SLOTS for index in range(SLOTS)])
"""All slots in the order in which they are assigned. It jumps around the circle (any odd step meets every slot once),
so that the slots assigned last, which find the least room near by, are not neighbours."""

FINE_BITS: Final = 20
SLOT_FINE: Final = 1 << FINE_BITS


class Assignment:
    """Primaries and backups of all slots, with the figures that the rules need.

    Attributes:
        circle: the members; below they are identified by their numbers.
        members: those numbers.
        weights: their weights.
        total: the sum of the weights.
        primaries: by slot; `NOBODY` where there is none (yet).
        backups: the same; never equal to the slot's primary.
        loads: how many slots each member is primary of.
        backup_loads: how many slots each member is backup of.
        rows: for each primary, its slots by their backup (`NOBODY` included); dictionaries as ordered sets.
        fine: for each primary, how many of its slots one unit of another member's weight should back up.
        backup_shares: for each member, how many slots it should back up in all.
    """

    def __init__(self, circle: Circle, primaries: list[int], backups: list[int]) -> None:
        self.circle = circle
        self.members = range(len(circle.ids))
        self.weights = circle.weights
        self.total = sum(circle.weights)
        self.primaries = primaries
        self.backups = backups
        self.loads = [0] * len(self.members)
        self.backup_loads = [0] * len(self.members)
        self.rows: list[dict[int, dict[int, None]]] = [{} for _ in self.members]
        for slot, primary in enumerate(primaries):
            if backups[slot] == primary:
                backups[slot] = NOBODY
            if backups[slot] != NOBODY:
                self.backup_loads[backups[slot]] += 1
            if primary != NOBODY:
                self.loads[primary] += 1
                self._ensure_row(slot)[slot] = None
        self.fine: list[int] = []
        self.backup_shares: list[int] = []
        self.aim()

    def aim(self) -> None:
        """Compute the shares of backups, after loads have changed."""
        self.fine = [
            (load << FINE_BITS) // (self.total - weight) if weight < self.total else 0
            for load, weight in zip(self.loads, self.weights, strict=True)
        ]
        all_fine = sum(self.fine)
        self.backup_shares = [
            weight * (all_fine - fine) for weight, fine in zip(self.weights, self.fine, strict=True)
        ]

    def surplus(self, member: int) -> int:
        """Return a member's primary load above its share, in units of 1/total slot."""
        return self.loads[member] * self.total - SLOTS * self.weights[member]

    def backup_surplus(self, member: int) -> int:
        """Return a member's backup load above its share, in 2^-20 slots."""
        return (self.backup_loads[member] << FINE_BITS) - self.backup_shares[member]

    def backed(self, primary: int, backup: int) -> int:
        """Return how many of a primary's slots a member backs up."""
        return len(self.rows[primary].get(backup, ()))

    def pair_surplus(self, primary: int, backup: int, count: int) -> int:
        """Return a member's excess over its share of a primary's slots if it backs up `count`, in 2^-20 slots."""
        return (count << FINE_BITS) - self.weights[backup] * self.fine[primary]

    def vacate(self, slot: int) -> None:
        """Take a slot from its primary."""
        del self._ensure_row(slot)[slot]
        self.loads[self.primaries[slot]] -= 1
        self.primaries[slot] = NOBODY

    def give(self, slot: int, member: int) -> None:
        """Make a member, whose load already counts the slot, primary of a slot without one."""
        if self.backups[slot] == member:
            self.backups[slot] = NOBODY
            self.backup_loads[member] -= 1
        self.primaries[slot] = member
        self._ensure_row(slot)[slot] = None

    def set_backup(self, slot: int, backup: int) -> None:
        """Make a member, or `NOBODY`, the backup of a slot that has a primary."""
        del self._ensure_row(slot)[slot]
        former, self.backups[slot] = self.backups[slot], backup
        self._ensure_row(slot)[slot] = None
        if former != NOBODY:
            self.backup_loads[former] -= 1
        if backup != NOBODY:
            self.backup_loads[backup] += 1

    def spared(self, primary: int, count: int, distance: Callable[[int], int] | None = None) -> Sequence[int]:
        """Return slots that a primary can best do without.

        Those are the ones whose backups have most above their share, of this primary's slots and in all; among
        slots with the same backup, the nearest by `distance` or, without it, the lowest numbers.
        """
        row = self.rows[primary]
        left = {backup: len(slots) for backup, slots in row.items() if slots}
        gone = dict.fromkeys(left, 0)

        def burden(backup: int) -> int:
            if backup == NOBODY:
                return SLOTS << FINE_BITS
            return self.pair_surplus(primary, backup, left[backup]) + (
                self.backup_surplus(backup) - (gone[backup] << FINE_BITS)
            )

        for _ in range(count):
            backup = max(left, key=burden)
            gone[backup] += 1
            left[backup] -= 1
            if not left[backup]:
                del left[backup]
        chosen: list[int] = []
        for backup, number in gone.items():
            if number:
                chosen += sorted(row[backup], key=distance)[:number]
        return chosen

    def _ensure_row(self, slot: int) -> dict[int, None]:
        """Keep a row for the primary and backup of a slot from now on, and return its slots."""
        return self.rows[self.primaries[slot]].setdefault(self.backups[slot], {})
