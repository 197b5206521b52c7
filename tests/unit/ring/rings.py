"""Helpers of the ring's tests: members by number, and the bounds in whole numbers."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from lockring.ids import NodeId
from lockring.ring.hash_ring import HashRing
from lockring.slots import SLOTS
from tests.unit.ring.moves import moves


def equal(count: int, start: int = 1) -> dict[NodeId, int]:
    """So many members of weight 1, from number `start` on."""
    return {NodeId(f"n{number}"): 1 for number in range(start, start + count)}


def shares(ring: HashRing) -> dict[str, Fraction]:
    """How many slots each member should be primary of."""
    total = sum(ring.members.values())
    return {member: Fraction(SLOTS * weight, total) for member, weight in ring.members.items()}


def backup_shares(ring: HashRing) -> dict[str, float]:
    """How many slots each should back up: its part, by weight, of each other member's slots."""
    total, counts = sum(ring.members.values()), ring.counts()
    per_weight = {
        member: counts[member].primary / (total - weight) for member, weight in ring.members.items()
    }
    everybody = sum(per_weight.values())
    return {member: weight * (everybody - per_weight[member]) for member, weight in ring.members.items()}


def check_whole(ring: HashRing) -> None:
    """Every slot has a primary, and a distinct backup if there are two members."""
    assert len(ring.primaries) == len(ring.backups) == SLOTS
    if not ring.members:
        assert not any(ring.primaries)
    else:
        assert set(ring.primaries) <= set(ring.members)
    if len(ring.members) < 2:
        assert not any(ring.backups)
    else:
        assert set(ring.backups) <= set(ring.members)
        assert all(primary != backup for primary, backup in zip(ring.primaries, ring.backups, strict=True))


def check_balance(ring: HashRing) -> None:
    """Check that each member is within 5 % and one slot of its share, as backup within 10 % and two slots."""
    counts, total = ring.counts(), sum(ring.members.values())
    for member, weight in ring.members.items():
        excess = abs(counts[member].primary * total - SLOTS * weight) - total
        assert excess * 100 <= SLOTS * weight * 5, member
    if len(ring.members) > 1:
        for each, share in backup_shares(ring).items():
            assert abs(counts[NodeId(each)].backup - share) <= share * 1.1 - share + 2 + 1e-6, each


def check_step(before: HashRing, after: HashRing) -> None:
    """Check that slots moved only from leavers, to joiners, or towards or away from members with a changed weight."""
    left = before.members.keys() - after.members.keys()
    joined = after.members.keys() - before.members.keys()
    reweighed = {
        member for member, weight in after.members.items() if before.members.get(member, weight) != weight
    }
    moved = moves(before, after)
    for move in moved.primaries:
        assert move.before in left | reweighed or move.after in joined | reweighed, move
    taken = Counter(move.after for move in moved.primaries)
    share = shares(after)
    assert all(taken[member] <= share[member] * 105 / 100 + 1 for member in joined)
    assert not any(move.before is not None and move.before == move.after for move in moved.backups)
