"""The circle: where members lie, and the search clockwise."""

from __future__ import annotations

from random import Random

import pytest

from lockring.ring.circle import POINTS_MAX, Circle, Walk, points_of_weight
from lockring.slots import SLOTS

IDS = tuple(f"n{number}" for number in range(8))
circle = Circle(IDS, (1, 1, 1, 1, 2, 2, 3, 3))


def test_a_member_has_fifty_points_for_each_unit_of_weight():
    assert [circle.points.count(number) for number in range(8)] == [50, 50, 50, 50, 100, 100, 150, 150]


@pytest.mark.parametrize(
    ("weight", "total", "points"),
    [(1, 1, 50), (100, 100, 5_000), (1, 100, 50), (100, 1_000, 819), (1, POINTS_MAX + 1, 1), (1, 100_000, 1)],
)
def test_points_are_fewer_in_proportion_where_the_circle_would_be_too_large(weight, total, points):
    assert points_of_weight(weight, total) == points


def test_points_of_a_member_do_not_depend_on_the_other_members():
    """Clockwise order among the old members stays as it is when one joins."""
    more = Circle((*IDS, "new"), (*circle.weights, 1))
    for slot in range(0, SLOTS, 7):
        assert tuple(number for number in more.clockwise(slot) if number != 8) == circle.clockwise(slot)


def test_members_with_similar_names_do_not_keep_their_distances():
    """CRC32 alone would: then each member would have the same neighbour at all of its points."""
    after = [
        following for number, following in zip(circle.points, circle.points[1:], strict=False) if number == 0
    ]
    assert len(set(after)) >= 6


def dumb_clockwise(slot: int) -> list[int]:
    start = circle.starts[slot]
    found: list[int] = []
    for number in circle.points[start:] + circle.points[:start]:
        if number not in found:
            found.append(number)
    return found


def test_clockwise_meets_members_in_the_order_of_their_next_points():
    for slot in (*range(0, SLOTS, 101), SLOTS - 1):
        assert list(circle.clockwise(slot)) == dumb_clockwise(slot)
        steps = [circle.steps_to(number)[slot] for number in circle.clockwise(slot)]
        assert steps == sorted(steps) and steps[0] == 0


def test_clockwise_goes_on_past_the_end_of_the_circle_and_through_crowds():
    """The last slot wraps around at once; with few points each, six steps per member do not meet all members."""
    for count in (1, 2, 200):
        many = Circle([f"m{number:03}" for number in range(count)], [1] * count)
        assert sorted(many.clockwise(SLOTS - 1)) == list(range(count))
        assert all(len(many.clockwise(slot)) == count for slot in range(0, SLOTS, 64))
    assert Circle((), ()).clockwise(0) == ()


def test_a_walk_finds_the_next_member_that_is_open_and_has_room():
    rng = Random(1)
    walk, closed = Walk(circle), [False] * 8
    for closing in rng.sample(range(8), 8):
        for slot in rng.sample(range(SLOTS), 40):
            roomy = rng.sample(range(8), 4)
            open_ones = [number for number in dumb_clockwise(slot) if not closed[number]]
            assert walk.next(slot) == open_ones[0]
            expected = next((number for number in open_ones if number in roomy), None)
            assert walk.next(slot, roomy.__contains__) == expected
        walk.close(closing)
        closed[closing] = True
    assert walk.next(0) is None
