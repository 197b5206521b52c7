"""Fail-over, planned moves, loss of both copies, asks and generations."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import Copy, Replica, SlotState
from lockring.core.coordinator.reconciler import LEARNERS_MAX, LEARNERS_PER_NODE_MAX
from lockring.core.effects import StoreWrite
from lockring.core.timing import Timing, up
from lockring.ids import NodeId
from lockring.protocol import SlotRequest, SlotRequestKind, SlotRequests
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import World, copies_in_sync

A, B, C = (Replica(name, 1) for name in "abc")


def cluster(*names: str, **settings) -> World:
    world = World(**settings)
    world.cluster(*names)
    return world


def item(number: int, slot: SlotState, copy: Copy | None = None, below: int = 0) -> SlotRequest:
    if copy is None:
        return SlotRequest(number, slot.epoch, below=below)
    return SlotRequest(number, slot.epoch, copy.replica.node, copy.replica.incarnation, copy.joined, below)


def transitions(world: World, number: int) -> list[SlotState]:
    """The different values of a slot, in their order."""
    seen: list[SlotState] = []
    for state in world.written:
        if not seen or state.slots[number] != seen[-1]:
            seen.append(state.slots[number])
    return seen


# --------------------------------------------------------------------------- planned moves


def test_a_planned_move_is_learner_in_sync_swap_and_keeps_the_old_primary_as_backup() -> None:
    world = cluster("a", "b")
    before = world.state.version
    world.join("c")
    world.run_until_quiet()
    number, _ = world.slot_with(primary="c")
    moved = [slot for slot in transitions(world, number) if slot.epoch > before]
    learning, swapped = moved[0], next(slot for slot in moved if slot.primary == C)
    assert learning.learner == Copy(C, learning.epoch)
    assert learning.primary in (A, B)
    assert swapped.backup == Copy(learning.primary, swapped.epoch)
    assert swapped.learner is None
    assert int(swapped.since) == int(swapped.epoch)
    assert (swapped.generation_from, swapped.generation_below) == (
        learning.generation_from,
        learning.generation_below,
    )
    assert swapped.base == learning.base


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b", "c", "d", "e")])
def test_a_drain_empties_a_node_and_no_slot_ever_has_fewer_copies(names: tuple[str, ...]) -> None:
    world = cluster(*names)
    first = len(world.written)
    world.drain("b")
    world.run_until_quiet()
    assert "b" not in world.primaries()
    assert "b" not in world.backups()
    assert "-" not in world.backups()
    for before, after in zip(world.written[first - 1 :], world.written[first:], strict=False):
        for old, new in zip(before.slots, after.slots, strict=True):
            assert copies_in_sync(new) >= copies_in_sync(old)
            assert new.base == old.base


def test_a_drain_of_one_of_two_nodes_leaves_the_other_alone_with_every_slot() -> None:
    world = cluster("a", "b")
    world.drain("b")
    world.run_until_quiet()
    assert set(world.primaries()) == {"a"}
    assert set(world.backups()) == {"-"}
    assert all(slot.base == world.state.slots[0].base for slot in world.state.slots)


def test_a_drain_moves_only_what_the_node_had() -> None:
    world = cluster("a", "b", "c", "d")
    before = world.state.slots
    world.drain("b")
    world.run_until_quiet()
    for old, new in zip(before, world.state.slots, strict=True):
        assert old.primary is not None
        if old.primary.node != "b":
            assert new.primary == old.primary


def test_a_rebalance_is_paced() -> None:
    world = cluster("a", "b")
    first = len(world.written)
    for name in "cdefgh":
        world.join(name)
    world.run_until_quiet()
    learners = 0
    for state in world.written[first:]:
        copies = [slot.learner.replica for slot in state.slots if slot.learner is not None]
        assert len(copies) <= LEARNERS_MAX
        assert all(copies.count(each) <= LEARNERS_PER_NODE_MAX for each in set(copies))
        learners = max(learners, len(copies))
    assert learners == LEARNERS_MAX
    assert set(world.primaries().values()) == {512}


def test_slots_without_backup_get_their_learners_first() -> None:
    world = cluster("a", "b", "c")
    world.drain("c")
    world.run(1.05)  # the drain is settled, and its moves are about to start
    world.kill("b")
    for node in world.nodes.values():
        node.is_obedient = False
    world.run(5.3)
    alone = [slot for slot in world.state.slots if slot.backup is None]
    learning = [slot for slot in world.state.slots if slot.learner is not None]
    assert alone
    assert len([slot for slot in alone if slot.learner is not None]) >= min(len(alone), len(learning))


def test_a_learner_that_does_not_come_into_sync_makes_room_for_the_next_member() -> None:
    world = cluster("a", "b")
    for node in world.nodes.values():
        node.is_obedient = False
    world.join("c").is_obedient = False
    world.kill("b")
    world.run(8)
    learners = {slot.learner.replica for slot in world.state.slots if slot.learner is not None}
    assert learners == {C}
    joined = {slot.learner.joined for slot in world.state.slots if slot.learner is not None}
    world.run(16)
    again = {slot.learner.joined for slot in world.state.slots if slot.learner is not None}
    assert again
    assert not joined & again, "given up, and tried again since there is no other"


# --------------------------------------------------------------------------- failure


def test_a_failed_primary_is_replaced_by_its_backup_alone() -> None:
    world = cluster("a", "b", "c")
    before = world.state.slots
    for node in world.nodes.values():
        node.is_obedient = False
    world.silence("a")
    world.run(4.9)
    assert world.primaries()["a"] > 0, "failed only after a member lease"
    world.run(0.2)
    assert "a" not in world.primaries()
    for old, new in zip(before, world.state.slots, strict=True):
        if old.primary == A:
            assert old.backup is not None
            assert new.primary == old.backup.replica
            assert new.backup is None
            assert new.since > old.epoch
            assert (new.generation_from, new.generation_below, new.base) == (
                old.generation_from,
                old.generation_below,
                old.base,
            )
        else:
            assert new.backup is None or new.backup.replica != A


def test_a_failed_node_is_replaced_everywhere_and_then_removed() -> None:
    world = cluster("a", "b", "c")
    world.silence("a")
    world.run(5)
    world.run_until_quiet()
    assert set(world.primaries()) == {"b", "c"}
    assert set(world.backups()) == {"b", "c"}
    assert set(world.state.members) == {"b", "c"}


def test_a_restarted_node_gets_nothing_back_for_its_name() -> None:
    world = cluster("a", "b", "c")
    bases = [slot.base for slot in world.state.slots]
    world.kill("a")
    world.join("a", 2)
    world.run(0.1)
    assert "a" not in world.primaries()
    world.run_until_quiet()
    assert world.state.members[NodeId("a")].replica == Replica("a", 2)
    assert world.primaries()["a"] > 1300
    assert [slot.base for slot in world.state.slots] == bases, "nothing was lost"


def test_when_both_copies_are_gone_the_slot_is_empty_only_after_a_lease_and_above_all_generations() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    world.run(0.5)
    gone_ns = world.now_ns
    for name in "ab":
        world.kill(name)
        world.join(name, 2)
    while world.state.slots[number].base == slot.base:
        world.run(0.5)
        assert world.now_ns < gone_ns + 40 * NS_PER_S
    new = world.state.slots[number]
    assert world.now_ns - gone_ns >= up(Timing().coordinator_lease_ns) - 2 * NS_PER_S
    last_ack_ns = gone_ns - NS_PER_S  # a heartbeat each second
    assert world.now_ns >= last_ack_ns + up(Timing().coordinator_lease_ns)
    assert new.base == new.since > slot.epoch
    assert new.generation_from >= slot.generation_below
    assert new.generation_from >= new.base // 1000
    assert new.primary in (Replica("a", 2), Replica("b", 2), C)


def test_a_silent_pair_that_is_heard_again_in_time_keeps_its_slots() -> None:
    world = cluster("a", "b", "c")
    before = world.state.slots
    for name in "ab":
        world.silence(name)
    world.run(25)
    for name in "ab":
        world.nodes[name].is_silent = False
    world.run(0.3)
    for old, new in zip(before, world.state.slots, strict=True):
        assert new.primary is not None
        assert new.base == old.base, "nothing was assigned empty"


def test_a_coordinator_that_heard_no_node_for_a_while_blames_none() -> None:
    world = cluster("a", "b", "c")
    writes = len(world.written)
    for node in world.nodes.values():
        node.is_silent = True
    world.run(4.5)
    for node in world.nodes.values():
        node.is_silent = False
        node.next_heartbeat_ns = world.now_ns + 900_000_000
    world.nodes["a"].next_heartbeat_ns = 0
    world.run(10)
    assert len(world.written) == writes


def test_a_coordinator_that_was_suspended_blames_no_node() -> None:
    world = cluster("a", "b", "c")
    writes = len(world.written)
    world.now_ns += 60 * NS_PER_S
    world.core.on_timer(now_ns=world.read_clocks())
    world.settle()
    assert len(world.written) == writes
    world.run(10)
    assert len(world.written) == writes


# --------------------------------------------------------------------------- asks


def test_a_takeover_promotes_the_backup_at_once() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    version = world.state.version
    world.ask(world.nodes["b"], SlotRequestKind.TAKEOVER, item(number, slot, slot.backup))
    new = world.state.slots[number]
    assert (new.primary, new.backup) == (B, None)
    assert new.since > version


def test_a_drop_leaves_the_primary_alone_and_in_its_reign() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    world.ask(world.nodes["a"], SlotRequestKind.DROP, item(number, slot, slot.backup))
    new = world.state.slots[number]
    assert (new.primary, new.backup, new.since) == (A, None, slot.since)
    assert new.epoch > slot.epoch
    world.run(0.1)
    learning = world.state.slots[number]
    assert learning.learner is not None
    world.ask(world.nodes["a"], SlotRequestKind.DROP, item(number, learning, learning.learner))
    assert world.state.slots[number].learner != learning.learner


def test_the_first_of_two_contrary_asks_wins_and_the_other_is_void() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    takeover = SlotRequests(SlotRequestKind.TAKEOVER, [item(number, slot, slot.backup)])
    drop = SlotRequests(SlotRequestKind.DROP, [item(number, slot, slot.backup)])
    world.receive(world.nodes["a"].connection, drop)
    world.receive(world.nodes["b"].connection, takeover)
    world.settle()
    assert world.state.slots[number].primary == A
    other, slot = world.slot_with(primary="b", backup="a")
    world.receive(
        world.nodes["a"].connection, SlotRequests(SlotRequestKind.TAKEOVER, [item(other, slot, slot.backup)])
    )
    world.receive(
        world.nodes["b"].connection, SlotRequests(SlotRequestKind.DROP, [item(other, slot, slot.backup)])
    )
    world.settle()
    assert (world.state.slots[other].primary, world.state.slots[other].backup) == (A, None)


def test_stale_reordered_and_foreign_asks_are_refused() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    assert slot.backup is not None
    writes = len(world.written)
    old = msgspec.structs.replace(slot, epoch=slot.epoch - 1)
    other_tenure = Copy(B, slot.backup.joined - 1)
    nodes = world.nodes
    world.ask(nodes["b"], SlotRequestKind.TAKEOVER, item(number, old, slot.backup))
    world.ask(nodes["b"], SlotRequestKind.TAKEOVER, item(number, slot, other_tenure))
    world.ask(nodes["c"], SlotRequestKind.TAKEOVER, item(number, slot, slot.backup))
    world.ask(nodes["a"], SlotRequestKind.DROP, item(number, old, slot.backup))
    world.ask(nodes["a"], SlotRequestKind.DROP, item(number, slot, Copy(C, slot.epoch)))
    world.ask(nodes["c"], SlotRequestKind.DROP, item(number, slot, slot.backup))
    world.ask(nodes["a"], SlotRequestKind.IN_SYNC, item(number, slot, slot.backup))
    world.ask(nodes["b"], SlotRequestKind.EXTEND, item(number, slot, below=slot.generation_below))
    world.ask(nodes["a"], SlotRequestKind.EXTEND, item(number, slot, below=slot.generation_below - 1))
    assert len(world.written) == writes


def test_a_learner_of_a_former_life_does_not_replace_a_good_backup() -> None:
    world = cluster("a", "b")
    world.nodes["a"].is_obedient = world.nodes["b"].is_obedient = False
    world.join("c").is_obedient = False
    world.run(1.2)
    number, slot = next(
        (n, s)
        for n, s in enumerate(world.state.slots)
        if s.learner and s.learner.replica == C and s.primary == A
    )
    world.holds_writes = True
    world.kill("c")
    world.join("c", 2)  # on its way to the store
    world.receive(
        world.nodes["a"].connection, SlotRequests(SlotRequestKind.IN_SYNC, [item(number, slot, slot.learner)])
    )
    world.release()
    assert world.state.slots[number].backup == slot.backup


def test_asks_for_thousands_of_slots_are_one_write() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    items = [
        item(number, slot, slot.backup)
        for number, slot in enumerate(world.state.slots)
        if slot.backup is not None and slot.backup.replica == B
    ]
    assert len(items) > 1000
    world.receive(world.nodes["b"].connection, SlotRequests(SlotRequestKind.TAKEOVER, items))
    world.holds_writes = True
    world.settle()
    (write,) = world.held_back
    assert isinstance(write, StoreWrite)
    assert all(write.state.slots[each.slot].primary == B for each in items)


def test_asks_that_come_during_a_write_are_one_write_after_it() -> None:
    world = cluster("a", "b", "c")
    for node in world.nodes.values():
        node.is_obedient = False
    numbers = [
        n for n, s in enumerate(world.state.slots) if s.primary == A and s.backup and s.backup.replica == B
    ]
    writes = len(world.written)
    world.holds_writes = True
    for number in numbers[:20]:
        slot = world.state.slots[number]
        world.ask(world.nodes["b"], SlotRequestKind.TAKEOVER, item(number, slot, slot.backup))
    assert len(world.held_back) == 1
    assert len(world.written) == writes
    world.release()
    assert len({world.state.slots[number].since for number in numbers[:20]}) == 2
    assert all(world.state.slots[number].primary == B for number in numbers[:20])


def test_extend_moves_the_end_of_the_range_and_nothing_else() -> None:
    world = cluster("a", "b")
    number, slot = world.slot_with(primary="a")
    # The epoch is not looked at: other changes to the slot do not make the range longer.
    world.ask(world.nodes["a"], SlotRequestKind.EXTEND, SlotRequest(number, 1, below=slot.generation_below))
    new = world.state.slots[number]
    assert new == msgspec.structs.replace(slot, generation_below=slot.generation_below + 1_000_000)
    world.ask(world.nodes["a"], SlotRequestKind.EXTEND, SlotRequest(number, 1, below=slot.generation_below))
    assert world.state.slots[number] == new, "a repeated ask reserves no more"


def test_an_async_reign_starts_above_everything_reserved() -> None:
    world = cluster("a", "b", "c", replication="async")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    world.ask(world.nodes["b"], SlotRequestKind.TAKEOVER, item(number, slot, slot.backup))
    new = world.state.slots[number]
    assert new.generation_from >= slot.generation_below
    assert new.generation_below == new.generation_from + 1_000_000
    world.silence("a")
    other, old = world.slot_with(primary="a", backup="c")
    world.run(5.1)
    assert world.state.slots[other].generation_from >= old.generation_below


def test_a_copy_dropped_twice_in_a_row_is_passed_over_for_the_next_member() -> None:
    world = cluster("a", "b", "c", "d")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a", backup="b")
    world.ask(world.nodes["a"], SlotRequestKind.DROP, item(number, slot, slot.backup))
    world.run(0.1)
    second = world.state.slots[number]
    assert second.learner is not None
    assert second.learner.replica == B, "the first time may have been a hiccup"
    world.ask(world.nodes["a"], SlotRequestKind.DROP, item(number, second, second.learner))
    world.run(0.1)
    third = world.state.slots[number]
    assert third.learner is not None
    assert third.learner.replica not in (A, B)
    other, slot = world.slot_with(primary="a", backup="b")
    world.ask(world.nodes["a"], SlotRequestKind.DROP, item(other, slot, slot.backup))
    world.run(0.1)
    learner = world.state.slots[other].learner
    assert learner is not None
    assert learner.replica not in (A, B), "it is the pair that is avoided, not the slot"
    world.ask(
        world.nodes["a"], SlotRequestKind.IN_SYNC, item(number, world.state.slots[number], third.learner)
    )
    world.run(1)
    assert world.state.slots[number].learner is None, "while the pair is avoided the substitute stays"
    world.run(31)
    learner = world.state.slots[number].learner
    assert learner is not None
    assert learner.replica == B, "after a while the ring's choice gets another try"


def test_where_there_is_no_other_an_unreachable_copy_is_tried_again() -> None:
    world = cluster("a", "b")
    for node in world.nodes.values():
        node.is_obedient = False
    number, slot = world.slot_with(primary="a")
    for _ in range(4):
        slot = world.state.slots[number]
        copy = slot.backup or slot.learner
        world.ask(world.nodes["a"], SlotRequestKind.DROP, item(number, slot, copy))
        world.run(0.1)
        assert world.state.slots[number].learner is not None
