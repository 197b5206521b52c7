"""Going on from a ring: what moves, what stays, and that it stays balanced however long it goes on."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lockring.ids import NodeId
from lockring.ring.hash_ring import HashRing
from lockring.slots import SLOTS
from tests.unit.ring.moves import Move, Moves, moves
from tests.unit.ring.rings import backup_shares, check_balance, check_step, check_whole, equal, shares

pytestmark = pytest.mark.slow

SIZES = [3, 4, 10, 30, 64, 99]


def without(ring: HashRing, *members: str) -> dict[NodeId, int]:
    return {member: weight for member, weight in ring.members.items() if member not in members}


def resumed(ring: HashRing) -> HashRing:
    return HashRing.resume(ring.members, ring.primaries, ring.backups)


# ------------------------------------------------------------------- one step


@pytest.mark.parametrize("members", SIZES)
def test_a_leaving_member_moves_only_its_own_slots_and_each_goes_to_its_backup(members):
    before = HashRing(equal(members))
    after = HashRing(without(before, "n2"), before)
    moved = moves(before, after)
    assert {move.slot for move in moved.primaries} == set(before.slots_of("n2"))
    assert all(move.after == before.backup(move.slot) for move in moved.primaries)
    check_whole(after)
    check_balance(after)


@pytest.mark.parametrize("members", SIZES)
def test_backups_change_only_where_the_leaving_member_was_primary_or_backup(members):
    before = HashRing(equal(members))
    after = HashRing(without(before, "n2"), before)
    for move in moves(before, after).backups:
        assert "n2" in (before.primary(move.slot), before.backup(move.slot))


@pytest.mark.parametrize("members", SIZES)
def test_a_joining_member_takes_its_share_and_nothing_else_moves(members):
    before = HashRing(equal(members))
    after = HashRing({**before.members, NodeId("new"): 1}, before)
    moved = moves(before, after)
    assert all(move.after == "new" for move in moved.primaries)
    assert shares(after)["new"] - 1 < len(moved.primaries) <= shares(after)["new"] * 105 / 100
    check_whole(after)
    check_balance(after)


@pytest.mark.parametrize("members", SIZES)
def test_the_old_primary_backs_up_what_a_joining_member_takes(members):
    before = HashRing(equal(members))
    after = HashRing({**before.members, NodeId("new"): 1}, before)
    for slot in after.slots_of("new"):
        assert after.backup(slot) == before.primary(slot)
    others = [move for move in moves(before, after).backups if after.primary(move.slot) != "new"]
    assert all(move.after == "new" for move in others)
    assert len(others) <= backup_shares(after)["new"] * 110 / 100 + 2


@pytest.mark.parametrize("members", SIZES)
def test_a_joiner_in_place_of_a_leaver_takes_its_slots_and_moves_no_others(members):
    before = HashRing(equal(members))
    after = HashRing({**without(before, "n1"), NodeId("new"): 1}, before)
    for move in moves(before, after).primaries:
        assert move.before == "n1"
    assert len(after.slots_of("new")) >= shares(after)["new"] - 1
    check_balance(after)


def test_from_one_member_to_two_and_back():
    one = HashRing({"a": 1})
    two = HashRing({"a": 1, "b": 1}, one)
    check_balance(two)
    check_step(one, two)
    assert len(two.slots_of("b")) == SLOTS // 2
    assert HashRing({"a": 1}, two) == one
    assert HashRing({}, two) == HashRing.empty()
    assert HashRing({"a": 1}, HashRing.empty()) == one


def test_nothing_moves_if_nothing_changed():
    ring = HashRing(equal(9), HashRing(equal(8)))
    assert HashRing(ring.members, ring) == ring
    assert HashRing(dict.fromkeys(ring.members, 7), ring).primaries == ring.primaries


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (1, 100), (100, 1), (10, 11)])
def test_a_change_of_weight_moves_slots_only_towards_or_away_from_that_member(old, new):
    before = HashRing({**equal(9), NodeId("x"): old})
    after = HashRing({**equal(9), NodeId("x"): new}, before)
    for move in moves(before, after).primaries:
        assert (move.after if new > old else move.before) == "x"
    assert abs(len(after.slots_of("x")) - shares(after)["x"]) <= 1
    check_whole(after)
    check_balance(after)


def test_weight_passed_on_from_one_to_another_moves_slots_between_those_two():
    before = HashRing({**equal(8), NodeId("x"): 1, NodeId("y"): 5})
    after = HashRing({**equal(8), NodeId("x"): 5, NodeId("y"): 1}, before)
    assert all((move.before, move.after) == ("y", "x") for move in moves(before, after).primaries)
    check_balance(after)


def test_half_of_the_members_may_leave_at_once():
    before = HashRing(equal(40))
    after = HashRing(equal(20, start=11), before)
    check_step(before, after)
    check_whole(after)
    check_balance(after)
    # The rest had both copies on leaving members, or a backup that has its share already.
    moved = moves(before, after).primaries
    inherited = sum(move.after == before.backup(move.slot) for move in moved)
    assert inherited > 0.4 * len(moved)


def test_unrelated_members_get_a_ring_of_their_own():
    after = HashRing(equal(5, start=100), HashRing(equal(5)))
    check_whole(after)
    check_balance(after)


# ------------------------------------------------------------------- going on from an assignment


@pytest.mark.parametrize("members", [1, 2, 3, 20, 100])
def test_resuming_from_a_ring_gives_that_ring(members):
    ring = HashRing(equal(members))
    assert resumed(ring) == ring
    assert HashRing.resume(equal(members), [None] * SLOTS, [None] * SLOTS) == ring


def test_resuming_without_a_member_is_like_its_leaving():
    ring = HashRing(equal(12))
    left = without(ring, "n5")
    assert HashRing.resume(left, ring.primaries, ring.backups) == HashRing(left, ring)


def test_resuming_with_a_new_member_is_like_its_joining():
    ring = HashRing(equal(12))
    joined = {**ring.members, NodeId("new"): 1}
    assert HashRing.resume(joined, ring.primaries, ring.backups) == HashRing(joined, ring)


def test_resuming_in_the_middle_of_a_join_goes_on_with_it():
    before = HashRing(equal(12))
    joined = {**before.members, NodeId("new"): 1}
    target = HashRing(joined, before)
    half = [target.primary(slot) if slot % 2 else before.primary(slot) for slot in range(SLOTS)]
    resumed = HashRing.resume(joined, half, before.backups)
    check_whole(resumed)
    check_balance(resumed)
    for slot in range(SLOTS):
        assert resumed.primary(slot) in (half[slot], "new")


def test_resuming_after_a_failover_leaves_every_promoted_backup_in_place():
    before = HashRing(equal(12))
    primaries = [b if p == "n3" else p for p, b in zip(before.primaries, before.backups, strict=True)]
    backups = [
        None if "n3" in pair else pair[1] for pair in zip(before.primaries, before.backups, strict=True)
    ]
    after = HashRing.resume(without(before, "n3"), primaries, backups)
    assert list(after.primaries) == primaries
    assert all(kept in (None, backup) for kept, backup in zip(backups, after.backups, strict=True))
    check_whole(after)
    check_balance(after)


def test_resuming_repairs_what_no_ring_would_have():
    """All on one member, backed up by itself: the first has everything to give, the others take their share."""
    ring = HashRing.resume(equal(4), [NodeId("n1")] * SLOTS, [NodeId("n1")] * SLOTS)
    check_whole(ring)
    check_balance(ring)
    assert len(ring.slots_of("n1")) == 1024


def test_resuming_repairs_backups_that_are_all_on_one_member():
    primaries = HashRing(equal(5)).primaries
    ring = HashRing.resume(
        equal(5), primaries, [NodeId("n2" if each == "n1" else "n1") for each in primaries]
    )
    assert ring.primaries == primaries
    check_whole(ring)
    check_balance(ring)


@pytest.mark.parametrize("seed", range(25))
def test_resuming_from_anything_gives_a_whole_and_balanced_ring(seed):
    rng = Random(seed)
    members = {f"n{number}": rng.choice((1, 1, 2, 50)) for number in range(rng.randint(2, 40))}
    found = [*members, None, "gone"]
    likely = [rng.random() ** 2 for _ in found]
    ring = HashRing.resume(members, rng.choices(found, likely, k=SLOTS), rng.choices(found, likely, k=SLOTS))
    check_whole(ring)
    check_balance(ring)
    assert resumed(ring) == ring


def test_resuming_takes_slots_only_from_members_above_their_bound():
    primaries = ["n1"] * 1078 + ["n2"] * 1034 + ["n3"] * 1000 + ["n4"] * 984
    after = HashRing.resume(equal(4), primaries, [None] * SLOTS)
    assert {old for old, new in zip(primaries, after.primaries, strict=True) if old != new} == {"n1"}
    check_whole(after)
    check_balance(after)


# ------------------------------------------------------------------- long histories


@pytest.mark.parametrize("seed", range(2))
def test_from_a_hundred_members_to_three_one_leaves_after_the_other(seed):
    rng, ring = Random(seed), HashRing(equal(100))
    moved = inherited = 0
    while len(ring.members) > 3:
        gone = rng.choice(list(ring.members))
        after = HashRing(without(ring, gone), ring)
        check_balance(after)
        step = moves(ring, after).primaries
        assert all(move.before == gone for move in step)
        moved += len(step)
        inherited += sum(move.after == ring.backup(move.slot) for move in step)
        ring = after
    check_whole(ring)
    assert inherited >= 0.98 * moved, "nearly every slot goes to its backup, which has the data"


def test_from_three_members_to_a_hundred_one_joins_after_the_other():
    ring = HashRing(equal(3))
    for number in range(4, 101):
        after = HashRing(equal(number), ring)
        check_balance(after)
        assert all(move.after == f"n{number}" for move in moves(ring, after).primaries)
        assert len(after.slots_of(f"n{number}")) <= shares(after)[f"n{number}"]
        ring = after
    check_whole(ring)


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (1, 7, 50, 100)])
@pytest.mark.parametrize("most", [6, 25, 100])
def test_a_long_random_history_keeps_balance_and_moves_the_least(weights, most):
    rng = Random(f"{weights}{most}")
    members = {f"m{number}": rng.choice(weights) for number in range(rng.randint(3, most))}
    ring, joined = HashRing(members), len(members)
    for _ in range(60):
        members = dict(members)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            what = rng.random()
            if what < 0.45 and len(members) > 3:
                del members[rng.choice(sorted(members))]
            elif what < 0.85 and len(members) < most:
                members[f"m{joined}"] = rng.choice(weights)
                joined += 1
            else:
                members[rng.choice(sorted(members))] = rng.choice(weights)
        after = HashRing(members, ring)
        check_whole(after)
        check_balance(after)
        check_step(ring, after)
        assert resumed(after) == after
        ring = after


@pytest.mark.parametrize("seed", range(10, 13))
def test_light_members_do_not_bear_what_is_little_for_heavy_ones(seed):
    """Heavy members that come and go leave each other 3 % apart: several times all that a light one should have."""
    rng, ring = Random(seed), HashRing({f"heavy{number}": 100 for number in range(30)})
    keep = rng.randint(3, 6)
    while len(ring.members) > keep:
        ring = HashRing(without(ring, rng.choice(list(ring.members))), ring)
    ring = HashRing({**ring.members, NodeId("light1"): 1, NodeId("light2"): rng.choice((1, 2))}, ring)
    check_balance(ring)
    for joining in range(3):
        more = {NodeId(f"more{joining}-{number}"): 100 for number in range(rng.randint(1, 6))}
        ring = HashRing({**ring.members, **more}, ring)
        check_balance(ring)
        heavy = [member for member, weight in ring.members.items() if weight == 100]
        ring = HashRing(without(ring, *rng.sample(heavy, rng.randint(0, 3))), ring)
        check_balance(ring)


def test_backups_of_each_primary_stay_spread_after_a_long_history():
    """Else a leaving member's load would fall on a few."""
    rng, ring, number = Random(5), HashRing(equal(12)), 12
    for _ in range(60):
        members = without(ring, rng.choice(list(ring.members)))
        if len(members) < 12:
            number += 1
            members[NodeId(f"n{number}")] = 1
        ring = HashRing(members, ring)
    pairs = Counter(zip(ring.primaries, ring.backups, strict=True))
    mean = SLOTS / 12 / 11
    for primary in ring.members:
        for backup in without(ring, primary):
            assert abs(pairs[primary, NodeId(backup)] - mean) <= mean / 2


class History(RuleBasedStateMachine):
    """Members come, go, change their weight and are replaced, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = HashRing.empty()
        self.number = 0

    @initialize(count=st.integers(1, 30), weight=st.integers(1, 100))
    def start(self, count: int, weight: int) -> None:
        self.number = count
        self.go_on({NodeId(f"n{number}"): weight for number in range(count)})

    def go_on(self, members: dict[NodeId, int]) -> None:
        after = HashRing(members, self.ring)
        if self.ring.members:
            check_step(self.ring, after)
        self.ring = after

    @rule(weight=st.integers(1, 100))
    def join(self, weight: int) -> None:
        self.number += 1
        self.go_on({**self.ring.members, NodeId(f"n{self.number}"): weight})

    @precondition(lambda self: self.ring.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.go_on(without(self.ring, data.draw(st.sampled_from(list(self.ring.members)))))

    @precondition(lambda self: self.ring.members)
    @rule(data=st.data(), weight=st.integers(1, 100))
    def replace(self, data: st.DataObject, weight: int) -> None:
        self.number += 1
        left = without(self.ring, data.draw(st.sampled_from(list(self.ring.members))))
        self.go_on({**left, NodeId(f"n{self.number}"): weight})

    @precondition(lambda self: self.ring.members)
    @rule(data=st.data(), weight=st.integers(1, 100))
    def reweigh(self, data: st.DataObject, weight: int) -> None:
        self.go_on({**self.ring.members, data.draw(st.sampled_from(list(self.ring.members))): weight})

    @invariant()
    def is_whole_and_balanced(self) -> None:
        check_whole(self.ring)
        check_balance(self.ring)


TestAnyHistory = History.TestCase
TestAnyHistory.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


@settings(max_examples=40)
@given(st.integers(3, 100), st.integers(1, 8), st.integers(0, 8), st.randoms(use_true_random=False))
def test_any_batch_of_leaves_and_joins_of_equal_members(count: int, leaving: int, joining: int, rng: Random):
    before = HashRing(equal(count))
    left = rng.sample(sorted(before.members), min(leaving, count - 1))
    after = HashRing({**without(before, *left), **equal(joining, start=1_000)}, before)
    check_step(before, after)
    check_whole(after)
    check_balance(after)


# ------------------------------------------------------------------- telling the difference


def test_moves_tell_which_slots_change_hands():
    one, two = HashRing({"a": 1}), HashRing({"a": 1, "b": 1}, HashRing({"a": 1}))
    told = moves(one, two)
    assert told.primaries == tuple(Move(slot, "a", "b") for slot in two.slots_of("b"))
    assert len(told.backups) == SLOTS and told.backups[0].before is None
    assert str(told) == "2048 primaries and 4096 backups move"
    assert moves(two, two) == Moves((), ())
