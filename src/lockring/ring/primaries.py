"""The rules for the primary of each slot.

1. A slot whose primary is gone goes to its backup, which has the data, unless that would load the backup more than 3 %
   and a slot above its share. Slots that no backup can inherit this way go to the members that lack most; among those,
   each to the next one clockwise that still lacks a slot. If members have joined at the same time, they come before
   the backups, so that they need not take slots from any other member.
2. A member that is new, or whose weight was raised, takes slots, one by one from the member with most above its share,
   until it has its own share. A member whose weight was lowered gives its surplus away by rule 1.
3. Nothing else moves: never a slot between two members that stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Final

from lockring.ring.assignment import NOBODY, ORDER, Assignment
from lockring.ring.circle import Walk
from lockring.slots import SLOTS

_BOUND_PERCENT: Final = 5

_TAKEOVER_PERCENT: Final = 3
"""How far above its share a takeover may load a backup: less than the bound, to leave room for rounding."""

_LENIENCE_PERCENT: Final = 2
"""How far from its share, apart from one slot, a load may be before its correction takes precedence over rounding."""

_STRAIN_SCALE: Final = 1 << 10


def settle_primaries(now: Assignment, changed: Sequence[bool]) -> None:
    """Apply the rules. Leaves every slot with a primary.

    Args:
        now: the assignment to change, of one member or more.
        changed: for each member, whether it is new or its weight has changed.
    """
    for member in now.members:
        if changed[member] and now.surplus(member) >= now.total:
            for slot in now.spared(member, now.surplus(member) // now.total):
                now.vacate(slot)
    takers = [member for member in now.members if changed[member] and now.surplus(member) <= -now.total]
    pool = [slot for slot in ORDER if now.primaries[slot] == NOBODY]
    if pool:
        # Takers need not take from members that stay what they find in the pool.
        needed = sum(-now.surplus(taker) // now.total for taker in takers)
        _hand_out(now, pool, inheritable=len(pool) - needed)
    _take_shares(now, takers)
    now.aim()


def resume_primaries(now: Assignment) -> list[bool]:
    """Apply the rules without knowing which members have changed: infer it from the loads.

    Returns:
        For each member, whether it was considered new or changed in weight, for `settle_backups`.
    """
    far_off = _far_off(now)
    # Just after a member has gone, all others are equally below their share; that alone does not make them takers.
    changed = [is_off and is_odd for is_off, is_odd in zip(far_off, _unlike_the_rest(now), strict=True)]
    settle_primaries(now, changed)
    far_off = _far_off(now)
    if any(far_off):
        # As after failovers, which have no bounds: nothing else will correct this.
        settle_primaries(now, far_off)
    return [was or is_off for was, is_off in zip(changed, far_off, strict=True)]


def _far_off(now: Assignment) -> list[bool]:
    """Return, for each member, whether its load is further from its share than 5 % and a slot."""
    return [
        abs(now.surplus(member)) > _percent_and_a_slot(now, member, _BOUND_PERCENT) for member in now.members
    ]


def _unlike_the_rest(now: Assignment) -> list[bool]:
    """Return, for each member, whether its load, for its weight, is further from the usual than 5 % and a slot.

    The usual load is the median, by weight, of the members that have any.
    """
    loaded = sorted(
        [member for member in now.members if now.loads[member]],
        key=lambda member: (now.loads[member] * _STRAIN_SCALE // now.weights[member], member),
    )
    if not loaded:
        return [True] * len(now.members)
    before = accumulate(now.weights[member] for member in loaded)
    half = sum(now.weights[member] for member in loaded) // 2
    usual = next(member for member, weight in zip(loaded, before, strict=True) if weight > half)
    load, weight = now.loads[usual], now.weights[usual]
    return [
        abs(now.loads[member] * weight - now.weights[member] * load) * 100
        > now.weights[member] * load * _BOUND_PERCENT + 100 * weight
        for member in now.members
    ]


def _percent_and_a_slot(now: Assignment, member: int, percent: int) -> int:
    """Return this percentage of a member's share plus one slot for rounding, in units of 1/total slot."""
    return SLOTS * now.weights[member] * percent // 100 + now.total


def _strain(now: Assignment, member: int) -> int:
    """Return how much a member deserves to give slots (positive) or to get some, for comparison with others.

    It is the surplus in slots, so that rounding evens out. But members whose surplus is large for their share come
    before all those for which it is small, in proportion to their weight: three slots more are nothing to a member
    with a thousand, and a quarter to a member with twelve.
    """
    surplus = now.surplus(member)
    excess = abs(surplus) - _percent_and_a_slot(now, member, _LENIENCE_PERCENT)
    if excess <= 0:
        return surplus
    # The first term exceeds any surplus, so that all of these come before all others.
    strain = SLOTS * now.total + excess * _STRAIN_SCALE // now.weights[member]
    return strain if surplus > 0 else -strain


def _hand_out(now: Assignment, pool: Sequence[int], *, inheritable: int) -> None:
    """Assign primaries to the slots of the pool (rule 1), at most `inheritable` of them to their backups."""
    # The same number of slots for all members: 3 % of a heavy member's share would be many times a light one's share,
    # and would fall to it later.
    lenience = SLOTS * min(now.weights) * _TAKEOVER_PERCENT // 100
    inherited: list[list[int]] = [[] for _ in now.members]
    rest: list[int] = []
    for slot in pool:
        backup = now.backups[slot]
        if backup != NOBODY and inheritable > 0 and now.surplus(backup) <= lenience:
            inheritable -= 1
            now.loads[backup] += 1
            inherited[backup].append(slot)
        else:
            rest.append(slot)
    quotas = _quotas(now, len(rest))
    if len(rest) < len(pool):
        _even_out(now, lenience, inherited, rest, quotas)
    for heir, slots in enumerate(inherited):
        for slot in slots:
            now.give(slot, heir)
    walk = Walk(now.circle)
    for member in now.members:
        if not quotas[member]:
            walk.close(member)
    for slot in rest:
        found = walk.next(slot)
        assert found is not None, "the quotas add up to the slots"
        quotas[found] -= 1
        if not quotas[found]:
            walk.close(found)
        now.give(slot, found)


def _quotas(now: Assignment, count: int) -> list[int]:
    """Divide slots among all members, each to the one that lacks most at that point; counts them in the loads."""
    quotas = [0] * len(now.members)
    lacking = [(_strain(now, member), member) for member in now.members]
    heapify(lacking)
    for _ in range(count):
        member = lacking[0][1]
        quotas[member] += 1
        now.loads[member] += 1
        heapreplace(lacking, (_strain(now, member), member))
    return quotas


def _even_out(
    now: Assignment, lenience: int, inherited: list[list[int]], rest: list[int], quotas: list[int]
) -> None:
    """Give members that would lack more than `lenience` and a slot some slots that others would have inherited."""
    while True:
        poor = min(now.members, key=lambda member: _strain(now, member))
        heirs = [member for member in now.members if inherited[member]]
        rich = max(heirs, key=lambda member: _strain(now, member), default=poor)
        gap = now.surplus(rich) - now.surplus(poor)
        if now.surplus(poor) >= -lenience - now.total or gap <= now.total:
            return
        rest.append(inherited[rich].pop())
        quotas[poor] += 1
        now.loads[poor] += 1
        now.loads[rich] -= 1


def _take_shares(now: Assignment, takers: Sequence[int]) -> None:
    """Give each taker its share from the members with most above their own (rule 2)."""
    agreed: list[tuple[int, dict[int, int]]] = []
    for taker in takers:
        wanted = -now.surplus(taker) // now.total
        if wanted <= 0:
            continue  # the pool had enough
        taken = dict.fromkeys(now.members, 0)
        donors = [(-_strain(now, member), member) for member in now.members if member != taker]
        heapify(donors)
        for _ in range(wanted):
            donor = donors[0][1]
            taken[donor] += 1
            now.loads[donor] -= 1
            heapreplace(donors, (-_strain(now, donor), donor))
        now.loads[taker] += wanted
        agreed.append((taker, taken))
    now.aim()
    for taker, taken in agreed:
        steps = now.circle.steps_to(taker)
        for donor, count in taken.items():
            for slot in now.spared(donor, count, steps.__getitem__):
                _hand_over(now, slot, taker)


def _hand_over(now: Assignment, slot: int, taker: int) -> None:
    """Move a slot that the loads already count as moved. The old primary has the data, so it becomes the backup."""
    donor = now.primaries[slot]
    now.vacate(slot)
    now.loads[donor] += 1
    now.give(slot, taker)
    now.set_backup(slot, donor)
