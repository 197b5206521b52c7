"""The rules for the backup of each slot.

1. A backup stays while it can. (Where a newcomer takes a slot, the old primary becomes its backup, see primaries.py.)
2. The slots of one primary are backed up by all others in proportion to their weights, rounded up or down, so that
   they spread evenly if it goes. A slot without a backup gets the next distinct member clockwise that has room in
   this sense.
3. A member that is new, or whose weight was changed, takes its share of backups or gives up its surplus. So does a
   member that is far off its share, which happens if weights differ a lot.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from lockring.ring.assignment import FINE_BITS, NOBODY, ORDER, SLOT_FINE, Assignment
from lockring.ring.circle import Walk

_BOUND_PERCENT: Final = 10

_ROUNDS_MAX: Final = 3
"""Number of passes: the slots that one member gives up go to others, which may then be far off in turn."""


def settle_backups(now: Assignment, changed: Sequence[bool]) -> None:
    """Apply the rules. Leaves every slot with a backup.

    Args:
        now: the assignment to change, of two members or more, with a primary for each slot.
        changed: for each member, whether it is new or its weight has changed.
    """
    _settle(now, [member for member in now.members if changed[member]])
    for _ in range(_ROUNDS_MAX):
        far_off = [member for member in now.members if _is_far_off(now, member)]
        if not far_off:
            return
        _settle(now, far_off)


def _is_far_off(now: Assignment, member: int) -> bool:
    """Return whether a member backs up more than 10 % and two slots above or below its share."""
    excess = abs(now.backup_surplus(member)) - 2 * SLOT_FINE
    return excess * 100 > _BOUND_PERCENT * now.backup_shares[member]


def _settle(now: Assignment, members: Sequence[int]) -> None:
    """Find backups for all slots, and bring the given members to their shares."""
    for member in members:
        if now.backup_surplus(member) >= SLOT_FINE:
            _drop_surplus(now, member)
    alone = [slot for slot in ORDER if now.backups[slot] == NOBODY]
    if alone:
        _spread_whole_shares(now, alone)
        _spread_rest(now, [slot for slot in alone if now.backups[slot] == NOBODY])
    for member in members:
        if now.backup_surplus(member) <= -SLOT_FINE:
            _take_share(now, member)


def _drop_surplus(now: Assignment, member: int) -> None:
    """Remove a member's surplus, first where it backs up most above its share of a primary."""
    backing = [
        (-now.pair_surplus(primary, member, now.backed(primary, member)), primary)
        for primary in now.members
        if now.backed(primary, member)
    ]
    heapify(backing)
    for _ in range(now.backup_surplus(member) >> FINE_BITS):
        lack, primary = heappop(backing)
        now.set_backup(next(reversed(now.rows[primary][member])), NOBODY)
        if now.backed(primary, member):
            heappush(backing, (lack + SLOT_FINE, primary))


def _spread_whole_shares(now: Assignment, alone: Sequence[int]) -> None:
    """Assign backups until every member has the whole part of its share of each primary's slots."""
    waiting: list[list[int]] = [[] for _ in now.members]
    for slot in alone:
        waiting[now.primaries[slot]].append(slot)
    weight_max = max(now.weights)
    for primary, slots in enumerate(waiting):
        load, others = now.loads[primary], now.total - now.weights[primary]
        if not slots or load * weight_max < others:
            continue  # nothing to do, or no member's share of this primary reaches one slot
        needs = [
            load * weight // others - now.backed(primary, member) for member, weight in enumerate(now.weights)
        ]
        walk = Walk(now.circle)
        for member, need in enumerate(needs):
            if need <= 0 or member == primary:
                walk.close(member)
        for slot in slots:
            found = walk.next(slot)
            if found is None:
                break
            now.set_backup(slot, found)
            needs[found] -= 1
            if not needs[found]:
                walk.close(found)


def _spread_rest(now: Assignment, alone: Sequence[int]) -> None:
    """Assign each remaining slot to the next member clockwise that lacks backups, of this primary's slots too."""
    quotas = _quotas(now, len(alone))
    walk = Walk(now.circle)
    for member in now.members:
        if not quotas[member]:
            walk.close(member)
    for slot in alone:
        primary = now.primaries[slot]

        def excess(member: int, primary: int = primary) -> int:
            return now.pair_surplus(primary, member, now.backed(primary, member))

        # The primary itself is passed over: it must not back up its own slots.
        found = walk.next(slot, lambda m, p=primary, excess=excess: m != p and excess(m) < 0)  # type: ignore[misc]
        if found is None:
            # The members that lack backups have their share of this primary's already. The excess is one slot.
            others = [member for member in now.members if member != primary]
            scores = [excess(member) + now.backup_surplus(member) for member in others]
            found = others[scores.index(min(scores))]
        now.set_backup(slot, found)
        quotas[found] -= 1
        if quotas[found] <= 0:
            walk.close(found)


def _quotas(now: Assignment, count: int) -> list[int]:
    """Divide a number of backups among all members, each to the one that lacks most at that point."""
    quotas = [0] * len(now.members)
    lacking = [(now.backup_surplus(member), member) for member in now.members]
    heapify(lacking)
    for _ in range(count):
        surplus, member = lacking[0]
        quotas[member] += 1
        heapreplace(lacking, (surplus + SLOT_FINE, member))
    return quotas


def _take_share(now: Assignment, member: int) -> None:
    """Give a member its share, first where it backs up least, from the member with most above its own share."""
    lacking = [
        (now.pair_surplus(primary, member, now.backed(primary, member)), primary)
        for primary in now.members
        if primary != member
    ]
    heapify(lacking)
    wanted = -now.backup_surplus(member) >> FINE_BITS
    while wanted > 0 and lacking:
        surplus, primary = heappop(lacking)
        row = now.rows[primary]
        scores = {
            backup: now.pair_surplus(primary, backup, len(slots)) + now.backup_surplus(backup)
            for backup, slots in row.items()
            if slots and backup != member
        }
        if scores:
            burdened = max(scores, key=scores.__getitem__)
            now.set_backup(next(reversed(row[burdened])), member)
            wanted -= 1
            heappush(lacking, (surplus + SLOT_FINE, primary))
