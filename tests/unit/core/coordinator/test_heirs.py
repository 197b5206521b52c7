"""Nodes that start on their journals: when the coordinator gives them the slots of their former lives, and when not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.effects import StoreWrite
from lockring.core.timing import Timing, up
from lockring.ids import NodeId
from lockring.protocol import FORMER_LIVES_MAX, Heartbeat, Refusal, SlotRequest, SlotRequestKind, Welcome
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import Node, World

A, A2, A3, B, B2 = Replica("a", 1), Replica("a", 2), Replica("a", 3), Replica("b", 1), Replica("b", 2)
LEASE_WAIT_S = up(Timing().coordinator_lease_ns) / NS_PER_S


@pytest.fixture
def pair() -> World:
    """Two nodes, each the primary of half of the slots and the backup of the other half."""
    world = World()
    world.cluster("a", "b")
    return world


def slots_of(state: ClusterState, primary: Replica) -> dict[int, SlotState]:
    return {number: slot for number, slot in enumerate(state.slots) if slot.primary == primary}


def copies_of(state: ClusterState, replica: Replica) -> dict[int, SlotState]:
    return {
        number: slot
        for number, slot in enumerate(state.slots)
        if slot.backup is not None and slot.backup.replica == replica
    }


def back(world: World, name: str, incarnation: int = 2, former: tuple[int, ...] = (1,)) -> Node:
    """A node starts on its journal; the reconciler gets its turn."""
    node = world.join(name, incarnation, former=former)
    world.run(0.1)
    return node


def takeover(world: World, backup: Replica, primary: Replica) -> None:
    """The backup asks for everything of a primary."""
    items = [
        SlotRequest(number, slot.epoch, backup.node, backup.incarnation, slot.backup.joined)
        for number, slot in slots_of(world.state, primary).items()
        if slot.backup is not None and slot.backup.replica == backup
    ]
    assert items
    world.ask(world.nodes[backup.node], SlotRequestKind.TAKEOVER, *items)


def all_restart(world: World, *names: str) -> World:
    """Every process ends, and the coordinator starts again on the store; then these nodes join in this order."""
    again = World(stored=world.stored, term="second", now_ns=world.now_ns, new_cluster=False)
    for name in names:
        back(again, name)
    return again


# --------------------------------------------------------------------------- one node is killed


def test_a_node_that_is_back_before_a_takeover_has_its_slots_at_once(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    back(pair, "a")
    version = pair.state.version
    for number, old in slots_of(before, A).items():
        assert pair.state.slots[number] == SlotState(
            epoch=version,
            since=version,
            base=old.base,
            primary=A2,
            backup=Copy(B, version),
            generation_from=old.generation_from,
            generation_below=old.generation_below,
        )
    for number, old in copies_of(before, A).items():
        new = pair.state.slots[number]
        assert old.backup is not None
        assert (new.primary, new.since) == (B, old.since)
        assert new.epoch > old.epoch
        assert new.backup == Copy(A2, old.backup.joined), "the heir has the former life's tenure"
    assert pair.state.members[NodeId("a")].condition == "active"


def test_a_node_learns_of_the_state_before_it_is_the_heir_in_it(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    node = back(pair, "a")
    assert isinstance(node.inbox[0], Welcome)
    versions = [each.version for each in pair.published]
    assert node.inbox[0].version == before.version < versions[-1]
    assert node.seen.version == versions[-1]


def test_a_restart_without_a_journal_goes_on_as_before(pair: World) -> None:
    pair.kill("a")
    back(pair, "a", former=())
    assert set(pair.primaries()) == {"b"}
    assert not slots_of(pair.state, A2)


def test_what_was_taken_over_in_the_meantime_stays_there(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    takeover(pair, B, A)
    assert len(slots_of(pair.state, B)) == 4096
    back(pair, "a")
    for number in slots_of(before, A):
        assert pair.state.slots[number].primary == B
    # As a copy it is where the state still named the former life.
    assert copies_of(pair.state, A2).keys() == copies_of(before, A).keys()


def test_a_takeover_that_was_asked_for_before_the_heir_joined_wins(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    pair.holds_writes = True
    takeover(pair, B, A)
    back(pair, "a")
    pair.release()
    for number in slots_of(before, A):
        assert pair.state.slots[number].primary == B


def test_a_takeover_that_is_asked_for_later_is_void(pair: World) -> None:
    pair.kill("a")
    number, slot = pair.slot_with(primary="a")
    assert slot.backup is not None
    back(pair, "a")
    late = SlotRequest(number, slot.epoch, "b", 1, slot.backup.joined)
    pair.ask(pair.nodes["b"], SlotRequestKind.TAKEOVER, late)
    assert pair.state.slots[number].primary == A2


def test_an_async_heir_begins_above_every_token_that_may_have_been_granted() -> None:
    world = World(replication="async")
    world.cluster("a", "b")
    before = world.state
    world.kill("a")
    back(world, "a")
    for number, old in slots_of(before, A).items():
        assert world.state.slots[number].generation_from >= old.generation_below


def test_a_learner_leaves_nothing_to_its_next_life(pair: World) -> None:
    pair.kill("b")
    pair.join("b", 2)
    pair.nodes["a"].is_obedient = False
    pair.run(2)
    learning = [slot.learner.replica for slot in pair.state.slots if slot.learner is not None]
    assert set(learning) == {B2}
    pair.kill("b")
    back(pair, "b", 3, (2,))
    assert not copies_of(pair.state, Replica("b", 3))
    assert not copies_of(pair.state, B2)


def test_a_life_that_is_over_gets_no_place_by_a_request_that_comes_with_its_successor(pair: World) -> None:
    """Its requests, and those about it, came before it was known to be over."""
    pair.kill("b")
    pair.join("b", 2)
    pair.nodes["a"].is_obedient = False
    pair.run(2)
    number, slot = next((n, each) for n, each in enumerate(pair.state.slots) if each.learner is not None)
    assert slot.learner is not None
    pair.holds_writes = True
    pair.join("c")  # something is being written
    in_sync = SlotRequest(number, slot.epoch, "b", 2, slot.learner.joined)
    pair.ask(pair.nodes["a"], SlotRequestKind.IN_SYNC, in_sync)
    pair.kill("b")
    pair.join("b", 3)
    written = len(pair.written)
    pair.release()
    assert len(pair.written) > written + 1
    assert all(state.slots[number].backup is None for state in pair.written[written:])


# --------------------------------------------------------------------------- all at once


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_after_the_death_of_every_process_all_slots_are_back_with_their_nodes(
    pair: World, order: tuple[str, str]
) -> None:
    before = pair.state
    world = all_restart(pair, *order)
    for number, old in enumerate(before.slots):
        new = world.state.slots[number]
        assert old.primary is not None
        assert old.backup is not None
        assert new.primary == Replica(old.primary.node, 2)
        assert new.backup is not None
        assert new.backup.replica == Replica(old.backup.replica.node, 2)
        assert (new.base, new.generation_from, new.generation_below) == (
            old.base,
            old.generation_from,
            old.generation_below,
        )
        assert new.backup.joined == new.since, "the two tables may have ended at the same place"
    assert world.core.status().waiting == 0


def test_heirs_are_believed_before_any_member_has_settled(pair: World) -> None:
    world = all_restart(pair, "a", "b")
    assert set(world.primaries()) == {"a", "b"}
    assert world.core.status().settled == ()


def test_a_join_that_came_before_the_term_was_in_the_store_is_believed_then(pair: World) -> None:
    world = World(stored=pair.stored, term="second", now_ns=pair.now_ns, new_cluster=False, starts=False)
    world.core.start(now_ns=world.read_clocks())
    node = back(world, "a")
    assert isinstance(node.inbox[0], Welcome)
    assert slots_of(world.state, A2)


def test_a_backup_is_promoted_where_the_primary_does_not_return(pair: World) -> None:
    before = pair.state
    world = all_restart(pair, "b")
    assert copies_of(world.state, B2).keys() == slots_of(before, A).keys()
    world.run(7)  # a has failed
    assert len(slots_of(world.state, B2)) == 4096
    assert all(world.state.slots[number].base == before.slots[number].base for number in range(4096))


def test_an_heir_takes_over_from_a_primary_that_does_not_return_when_it_asks(pair: World) -> None:
    before = pair.state
    world = all_restart(pair, "b")
    takeover(world, B2, A)
    assert len(slots_of(world.state, B2)) == 4096
    node = back(world, "a")
    assert isinstance(node.inbox[0], Welcome)
    for number in slots_of(before, A):
        assert world.state.slots[number].primary == B2, "another copy was better"


def test_an_heir_has_no_wait_for_leases_while_others_wait(pair: World) -> None:
    world = World(stored=pair.stored, term="second", now_ns=pair.now_ns, new_cluster=False)
    back(world, "a")
    back(world, "b", former=())
    assert world.core.status().waiting == 0
    assert len(slots_of(world.state, A2)) == 4096, "b's former life was the primary of half, and a its copy"


# --------------------------------------------------------------------------- twice in a row


def test_a_second_restart_goes_on_for_both_lives(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    back(pair, "a")
    pair.kill("a")
    back(pair, "a", 3, (1, 2))
    assert slots_of(pair.state, A3).keys() == slots_of(before, A).keys()


def test_the_latest_of_two_heirs_has_it_though_the_first_is_not_in_the_state_yet(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    pair.holds_writes = True
    back(pair, "a")
    pair.kill("a")
    back(pair, "a", 3, (1, 2))
    assert len([each for each in pair.held_back if isinstance(each, StoreWrite)]) == 1
    pair.release()
    assert slots_of(pair.state, A3).keys() == slots_of(before, A).keys()
    assert not slots_of(pair.state, A2)


def test_an_heir_that_dies_before_the_state_names_it_gets_nothing(pair: World) -> None:
    pair.kill("b")
    pair.run(8)
    assert len(slots_of(pair.state, A)) == 4096
    pair.kill("a")
    pair.holds_writes = True
    pair.ask(pair.join("c"), SlotRequestKind.EXTEND)  # its own join is what is being written
    back(pair, "a")
    pair.kill("a")
    pair.release()
    assert len(slots_of(pair.state, A)) == 4096, "they wait for the next life, or for the leases to end"
    back(pair, "a", 3, (1, 2))
    assert len(slots_of(pair.state, A3)) == 4096


def test_an_heir_that_dies_right_after_leaves_its_slots_to_a_live_backup(pair: World) -> None:
    before = pair.state
    pair.kill("a")
    back(pair, "a")
    pair.silence("a")
    pair.kill("a")
    pair.run(8)
    for number in slots_of(before, A):
        assert pair.state.slots[number].primary == B
        assert pair.state.slots[number].base == before.slots[number].base


def test_an_heir_that_does_not_return_is_waited_for_as_long_as_any_primary() -> None:
    world = World()
    world.cluster("a")
    world.run(100)
    world.kill("a")
    node = back(world, "a")
    world.heartbeat(node)
    world.settle()
    assert node.acknowledged
    base = world.state.slots[0].base
    world.kill("a")
    world.join("c")
    world.run(LEASE_WAIT_S - 1)
    assert {slot.base for slot in world.state.slots} == {base}
    world.run(3)
    assert len(slots_of(world.state, Replica("c", 1))) == 4096
    assert base not in {slot.base for slot in world.state.slots}


def test_the_time_of_a_former_lifes_lease_is_waited_for_though_the_heir_never_had_one() -> None:
    world = World()
    world.cluster("a")
    world.run(100)
    world.heartbeat(world.nodes["a"])
    world.settle()
    world.kill("a")
    back(world, "a")
    world.kill("a")  # without one heartbeat
    world.join("c")
    base = world.state.slots[0].base
    world.run(LEASE_WAIT_S - 1)
    assert {slot.base for slot in world.state.slots} == {base}


# --------------------------------------------------------------------------- the testimony


def test_a_testimony_is_about_the_lives_that_it_names(pair: World) -> None:
    pair.kill("a")
    back(pair, "a", 5, (2, 3))
    assert not slots_of(pair.state, Replica("a", 5))


def test_it_is_given_again_on_every_connection(pair: World) -> None:
    world = World(stored=pair.stored, term="second", now_ns=pair.now_ns, new_cluster=False)
    world.holds_writes = True
    world.join("c")
    back(world, "a")
    world.kill("a")
    world.release()
    assert not slots_of(world.state, A2)
    back(world, "a")
    assert slots_of(world.state, A2)


def test_a_life_that_is_said_to_be_over_is_not_taken_for_a_second_process(pair: World) -> None:
    """After a loss of power its connection stands, and its last message is not long ago."""
    former = pair.nodes["a"]
    before = pair.state
    node = back(pair, "a")
    assert isinstance(node.inbox[0], Welcome)
    assert former.connection in pair.closed
    assert slots_of(pair.state, A2).keys() == slots_of(before, A).keys()


@pytest.mark.parametrize("former", [(), (1,)])
def test_a_second_process_is_refused_while_a_life_is_heard_for_which_it_does_not_vouch(
    pair: World, former: tuple[int, ...]
) -> None:
    pair.kill("a")
    pair.join("a", 2)
    node = back(pair, "a", 3, former)
    assert isinstance(node.inbox[0], Refusal)
    assert node.inbox[0].code == "duplicate-node"
    assert not slots_of(pair.state, A3)


def test_a_former_life_is_not_acknowledged_once_its_heir_has_joined(pair: World) -> None:
    former = pair.nodes["a"]
    pair.heartbeat(former)
    pair.holds_reads = pair.holds_writes = True
    back(pair, "a")
    acknowledged = len(former.acknowledged)
    pair.receive(former.connection, Heartbeat(99, pair.state.version))
    assert pair.core._term.deposed == {A}
    pair.release()
    pair.run(1)
    assert len(former.acknowledged) == acknowledged
    assert former.connection in pair.closed


def test_a_former_life_that_joins_late_is_refused_and_that_is_noted(pair: World) -> None:
    pair.kill("a")
    back(pair, "a")
    late = pair.join("a", 1)
    assert isinstance(late.inbox[0], Refusal)
    assert any("says is over (1)" in note for note in pair.notes)
    assert slots_of(pair.state, A2)


@pytest.mark.parametrize("former", [(0,), (-1,), (2,), (3,), (1, 2**70), tuple([1] * (FORMER_LIVES_MAX + 1))])
def test_a_testimony_about_what_cannot_be_a_former_life_is_refused(
    pair: World, former: tuple[int, ...]
) -> None:
    pair.kill("a")
    node = back(pair, "a", 2, former)
    assert isinstance(node.inbox[0], Refusal)
    assert node.inbox[0].code == "invalid"
    assert "former li" in node.inbox[0].text
    assert not slots_of(pair.state, A2)


def test_nothing_is_inherited_from_a_store_that_lost_its_state(pair: World) -> None:
    version = pair.state.version
    world = World(term="second", now_ns=pair.now_ns, new_cluster=False)
    world.join("a", 2, former=(1,), cluster=pair.state.cluster, version=version)
    world.join("b", 2, former=(1,), cluster=pair.state.cluster, version=version)
    assert world.state.cluster == pair.state.cluster
    assert world.state.version > version
    world.run(3)
    assert set(world.primaries()) == {"-"}
    assert world.core.status().waiting == 4096


# --------------------------------------------------------------------------- planned moves and drains


def test_a_restart_during_a_planned_move_goes_on_with_it(pair: World) -> None:
    pair.nodes["a"].is_obedient = pair.nodes["b"].is_obedient = False
    pair.join("c")
    pair.run(1.5)
    moving = {n for n, slot in enumerate(pair.state.slots) if slot.learner is not None}
    before = slots_of(pair.state, A)
    assert moving & before.keys()
    pair.kill("a")
    back(pair, "a")
    for number in before:
        assert pair.state.slots[number].primary == A2
        assert pair.state.slots[number].learner is None
    other = pair.nodes["b"]
    other.is_obedient, other.seen = True, ClusterState()
    pair.tell(other, pair.state)  # its moves to c have begun before, and go on
    pair.run_until_quiet()
    assert all(slot.backup is not None and slot.learner is None for slot in pair.state.slots)
    assert set(pair.primaries()) == {"a", "b", "c"}


def test_after_a_swap_the_former_primary_has_its_copy_again(pair: World) -> None:
    before = pair.state
    pair.drain("a")
    pair.run(1)
    moved = [n for n, slot in slots_of(before, A).items() if pair.state.slots[n].primary == B]
    kept = [n for n in moved if pair.state.slots[n].backup is not None]
    pair.kill("a")
    back(pair, "a")
    for number in kept:
        backup = pair.state.slots[number].backup
        assert backup is not None
        assert backup.replica == A2
        assert backup.joined >= pair.state.slots[number].since


def test_a_node_that_was_draining_is_back_in_the_ring_with_its_slots() -> None:
    world = World()
    world.cluster("a")
    world.leave("a", keeps=True)
    world.kill("a")
    world.run(2)
    back(world, "a")
    assert len(slots_of(world.state, A2)) == 4096
    assert world.state.members[NodeId("a")].condition == "active"


# --------------------------------------------------------------------------- leaving


def leave_all(world: World, *, keeps: Callable[[str], bool]) -> None:
    for name in list(world.nodes):
        world.leave(name, keeps=keeps(name))
    for name in list(world.nodes):
        world.kill(name)


def test_nodes_that_keep_their_slots_are_not_relieved_of_them_when_all_leave(pair: World) -> None:
    leave_all(pair, keeps=lambda name: True)
    pair.run(2)
    assert not [slot for slot in pair.state.slots if slot.primary is None]
    assert pair.state.farewell is None
    assert pair.core.note == (
        "the last node is leaving: a and b keep what they held in their journals, and bring it back when they"
        " start again"
    )
    assert pair.core.left_ms(pair.now_ns) == 0
    pair.run(100)
    assert not [slot for slot in pair.state.slots if slot.primary is None]
    back(pair, "b")
    back(pair, "a")
    assert len(slots_of(pair.state, A2)) + len(slots_of(pair.state, B2)) == 4096


def test_what_leaving_nodes_keep_waits_for_their_leases_before_another_node_gets_it(pair: World) -> None:
    leave_all(pair, keeps=lambda name: True)
    pair.join("c")
    pair.run(10)
    assert "c" not in pair.primaries()
    assert "bring it back when they start again" in pair.core.note
    assert pair.core.left_ms(pair.now_ns) > 0
    pair.run(LEASE_WAIT_S)
    assert pair.primaries() == {"c": 4096}
    node = back(pair, "a")
    assert isinstance(node.inbox[0], Welcome)
    assert pair.primaries() == {"c": 4096}, "too late: the state names its former life no more"


def test_slots_move_to_a_node_that_keeps_them_and_their_copies_go(pair: World) -> None:
    pair.leave("b", keeps=True)
    pair.leave("a", keeps=False)
    pair.run(1)
    assert pair.primaries() == {"b": 4096}
    assert pair.backups() == {"-": 4096}
    pair.kill("a")
    pair.kill("b")
    back(pair, "b")
    assert len(slots_of(pair.state, B2)) == 4096


def test_a_node_that_keeps_its_slots_hands_them_over_while_another_is_there(pair: World) -> None:
    pair.leave("a", keeps=True)
    pair.run_until_quiet()
    assert pair.primaries() == {"b": 4096}


def test_a_node_that_keeps_nothing_is_released_as_before(pair: World) -> None:
    leave_all(pair, keeps=lambda name: False)
    pair.run(1)
    assert pair.primaries() == {"-": 4096}
