"""The ring of groups: who should own which keys."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_left
from typing import Any

import pytest

from lockring.errors import InvalidRequest
from lockring.protocol import WEIGHT_MAX
from lockring.ring.circle import CIRCLE_BITS, places_of
from lockring.ring.key_ring import POINTS_PER_WEIGHT, KeyRing, KeySet
from lockring.slots import SLOTS, slot_of

TEN = {f"worker-{number}": 1 for number in range(10)}


def moves(before: KeyRing, after: KeyRing) -> set[tuple[str | None, str | None]]:
    return {pair for pair in zip(before.owners, after.owners, strict=True) if pair[0] != pair[1]}


def test_each_slot_belongs_to_the_next_point_clockwise() -> None:
    members = {"a": 1, "b": 3, "ä, of any text": 2}
    points = sorted(
        (place, member)
        for member, weight in members.items()
        for place in places_of(member, POINTS_PER_WEIGHT * weight)
    )
    ring = KeyRing(members)
    for slot in range(SLOTS):
        at = bisect_left(points, (slot * 2**CIRCLE_BITS // SLOTS, ""))
        assert ring.owners[slot] == points[at % len(points)][1]


def test_members_may_have_points_at_one_place_and_stretches_none() -> None:
    """Few points and great weights: whatever way the ring is worked out, the rule is the plain one."""
    for seed in range(8):
        members = {f"{seed}/{number}": 1 + 7 * ((seed + number) % 3) for number in range(2 + seed)}
        points = sorted(
            (place, member)
            for member, weight in members.items()
            for place in places_of(member, POINTS_PER_WEIGHT * weight)
        )
        owners = []
        for slot in range(SLOTS):
            at = bisect_left(points, (slot * 2**CIRCLE_BITS // SLOTS, ""))
            owners.append(points[at % len(points)][1])
        assert list(KeyRing(members).owners) == owners


def test_a_heavy_member_takes_little_memory() -> None:
    """2,048 of them are kept: they are to take some 50 MB, and not a gigabyte."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        rings = [KeyRing({"light": 1, f"heavy/{number}": WEIGHT_MAX}) for number in range(4)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (kept - before) / len(
        rings
    ) < 8 * SLOTS + 6 * SLOTS + 20_000  # a ring's owners, and the member's places


@pytest.mark.parametrize("key", [None, 5, b"x", "\ud800"])
def test_a_key_must_be_a_string(key: Any) -> None:
    with pytest.raises(InvalidRequest, match="key"):
        KeyRing(TEN).owner(key)
    if not isinstance(key, str):
        assert key not in KeySet(frozenset(range(SLOTS)))


def test_only_the_slots_of_a_leaving_or_joining_member_move() -> None:
    ring = KeyRing(TEN)
    joined = KeyRing({**TEN, "new": 2})
    assert {to for _, to in moves(ring, joined)} == {"new"}
    assert {what for what, _ in moves(joined, ring)} == {"new"}
    heavier = KeyRing({**TEN, "worker-3": 4})
    assert {to for _, to in moves(ring, heavier)} == {"worker-3"}


def test_shares_go_by_weight_roughly() -> None:
    counts = KeyRing({**TEN, "heavy": 10}).counts()
    assert sum(counts.values()) == SLOTS
    assert counts["heavy"] == pytest.approx(SLOTS / 2, rel=0.2)
    for member in TEN:
        assert counts[member] == pytest.approx(SLOTS / 20, rel=0.4)


def test_order_of_the_members_does_not_matter() -> None:
    assert KeyRing(TEN).owners == KeyRing(dict(reversed(TEN.items()))).owners


def test_one_member_owns_everything_and_an_empty_ring_nothing() -> None:
    assert KeyRing({"only": 1}).slots_of("only") == frozenset(range(SLOTS))
    assert KeyRing({"only": 1}).slots_of("other") == frozenset()
    assert KeyRing({}).owner("x") is None
    assert KeyRing({}).counts() == {}


def test_set_of_keys_answers_for_keys() -> None:
    keys = KeySet(frozenset({slot_of("x"), slot_of("y")}))
    assert "x" in keys
    assert "y" in keys
    assert "another" not in keys
    assert slot_of("x") not in keys  # a slot is not a key
    assert list(keys) == sorted({slot_of("x"), slot_of("y")})
    assert len(keys) == 2
    assert keys == KeySet(keys.slots)
    assert hash(keys) == hash(KeySet(keys.slots))
    assert keys != KeySet()
    assert keys != "x"
    assert repr(keys) == f"<KeySet of 2 slots of {SLOTS}>"
