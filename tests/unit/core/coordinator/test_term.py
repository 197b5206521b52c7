"""The term of a coordinator: versions, confirmation, rivals, and a store that fails."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.effects import Effect, StoreRead, StoreWrite
from lockring.core.timing import Timing, up
from lockring.protocol import (
    Drain,
    HeartbeatAck,
    Refusal,
    SlotRequest,
    SlotRequestKind,
    SlotRequests,
    Welcome,
)
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import WALL_NS, World, copies_in_sync, rejoin, successor


def usurp(world: World) -> ClusterState:
    """Another coordinator writes its term into the store."""
    assert world.stored is not None
    world.stored = msgspec.structs.replace(
        world.stored, version=world.stored.version + 1, term="usurper", coordinator="10.0.0.9:9500"
    )
    return world.stored


# --------------------------------------------------------------------------- starting


@pytest.mark.parametrize("clock", [WALL_NS + 60 * NS_PER_S, WALL_NS, WALL_NS - 10**6 * NS_PER_S, 0])
def test_a_restarted_coordinator_issues_higher_versions_also_with_its_clock_set_back(clock: int) -> None:
    first = World()
    first.cluster("a", "b")
    assert first.stored is not None
    before = first.stored.version
    second = successor(first, wall_ns=clock)
    assert second.written[0].version > before
    assert second.written[0].term == "second"
    rejoin(first, second, "a", "b")
    second.run_until_quiet()
    versions = [state.version for state in second.written]
    assert versions == sorted(set(versions))


def test_a_wall_clock_that_jumps_back_does_not_lower_versions() -> None:
    world = World()
    world.cluster("a")
    world.wall_offset_ns -= 10**6 * NS_PER_S
    world.join("b")
    world.run_until_quiet()
    versions = [state.version for state in world.written]
    assert versions == sorted(set(versions))
    assert world.primaries() == {"a": 2048, "b": 2048}


def test_a_wall_clock_far_in_the_future_is_not_believed() -> None:
    world = World(wall_ns=2**63 - 1)
    world.cluster("a", "b")
    assert world.state.version < 2**53 * 1000
    assert max(slot.generation_below for slot in world.state.slots) < 2**53


def test_a_restarted_coordinator_moves_nothing_and_blames_no_node_for_its_own_absence() -> None:
    first = World()
    first.cluster("a", "b", "c")
    second = successor(first)
    second.run(4)
    rejoin(first, second, "a", "b", "c")
    second.run(10)
    assert len(second.written) == 1
    assert second.state.slots == first.state.slots
    assert second.core.status().settled == ("a", "b", "c")


def test_a_restarted_coordinator_waits_a_whole_lease_of_its_own_before_it_assigns_empty() -> None:
    first = World()
    first.cluster("a", "b")
    first.kill("a")
    first.kill("b")
    first.run(20)
    second = successor(first)
    started_ns = second.now_ns
    second.join("c", cluster=first.state.cluster)
    second.run(31)
    assert second.primaries().get("c", 0) == 0
    second.run(2)
    assert second.primaries() == {"c": 4096}
    assert second.now_ns - started_ns >= up(Timing().coordinator_lease_ns)


def test_leases_of_a_cluster_are_chosen_once_and_waited_for_as_they_were_chosen() -> None:
    first = World()
    first.cluster("a")
    first.kill("a")
    second = successor(first, timing=Timing(backup_lease_ns=NS_PER_S, coordinator_lease_ns=10 * NS_PER_S))
    assert second.state.backup_lease_ms == 2_000
    assert second.state.coordinator_lease_ms == 30_000
    second.join("b")
    second.run(31)
    assert "b" not in second.primaries()
    second.run(2)
    assert second.primaries() == {"b": 4096}


def test_joins_that_come_before_the_term_is_written_wait_for_it() -> None:
    world = World(starts=False)
    world.holds_writes = True
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    node = world.join("a")
    gone = world.join("b")
    world.core.disconnected(gone.connection, now_ns=world.read_clocks())
    world.heartbeat(node)
    assert node.inbox == []
    answer = world.drain("a")
    assert isinstance(answer, Refusal)
    assert answer.code == "not-coordinator"
    world.release()
    assert isinstance(node.inbox[0], Welcome)
    assert set(world.state.members) == {"a"}


def test_the_replication_of_a_cluster_can_be_changed_without_repeating_a_generation() -> None:
    first = World(replication="async")
    first.cluster("a", "b")
    number, slot = first.slot_with(primary="a")
    second = successor(first, replication="sync")
    new = second.state.slots[number]
    assert second.state.replication == "sync"
    assert (new.epoch, new.generation_from) == (slot.epoch, slot.generation_below)
    assert World(replication="async").state.slots[0] == SlotState()


# --------------------------------------------------------------------------- acknowledging


def reads(world: World) -> list[StoreRead]:
    return [effect for effect in world.held_back if isinstance(effect, StoreRead)]


def test_no_heartbeat_is_acknowledged_without_a_read_begun_after_it() -> None:
    world = World()
    world.cluster("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    world.holds_reads = True
    a.acknowledged.clear()
    b.acknowledged.clear()
    world.heartbeat(a)
    world.settle()
    (first,) = reads(world)
    world.heartbeat(b)
    world.heartbeat(a)
    world.settle()
    assert reads(world) == [first], "one read at a time"
    assert not a.acknowledged
    world.held_back.clear()
    world.answer_read(first.operation)
    world.settle()
    assert [ack.sequence for ack in a.acknowledged] == [a.sequence - 1]
    assert not b.acknowledged, "its heartbeat came after the read began"
    (second,) = reads(world)
    world.held_back.clear()
    world.answer_read(second.operation)
    world.settle()
    assert [ack.sequence for ack in a.acknowledged] == [a.sequence - 1, a.sequence]
    assert b.acknowledged == [HeartbeatAck(b.sequence, world.state.version)]


def test_heartbeats_are_confirmed_together() -> None:
    world = World()
    world.cluster("a", "b", "c")
    world.holds_reads = True
    for node in world.nodes.values():
        node.acknowledged.clear()
        world.heartbeat(node)
    world.settle()
    assert len(reads(world)) == 1
    world.release()
    assert all(len(node.acknowledged) == 1 for node in world.nodes.values())


def test_a_read_that_fails_is_made_again_and_the_newest_heartbeats_are_acknowledged() -> None:
    world = World()
    world.cluster("a")
    node = world.nodes["a"]
    node.acknowledged.clear()
    world.fails_reads = True
    world.run(2)
    assert not node.acknowledged
    assert world.core.note == "the store cannot be read"
    world.fails_reads = False
    world.run(2.1)
    assert node.acknowledged
    assert world.core.note == ""
    assert world.core.is_active


def test_a_read_without_an_answer_is_given_up() -> None:
    world = World()
    world.cluster("a")
    node = world.nodes["a"]
    node.acknowledged.clear()
    world.holds_reads = True
    world.run(11)
    assert not node.acknowledged
    late = reads(world)[0]
    world.release()
    world.run(1)
    assert node.acknowledged
    acknowledged = len(node.acknowledged)
    world.answer_read(late.operation)
    world.settle()
    assert len(node.acknowledged) == acknowledged


def test_no_node_is_acknowledged_while_a_write_takes_slots_from_it() -> None:
    world = World()
    world.cluster("a", "b")
    for node in world.nodes.values():
        node.is_obedient = False
    a = world.nodes["a"]
    world.silence("a")
    world.run(4.9)
    a.acknowledged.clear()
    world.holds_writes = True
    world.run(0.3)
    (write,) = world.held_back
    assert isinstance(write, StoreWrite)
    assert Replica("a", 1) not in [slot.primary for slot in write.state.slots]
    a.is_silent = False
    world.heartbeat(a)
    world.heartbeat(world.nodes["b"])
    world.settle()
    assert not a.acknowledged
    assert world.nodes["b"].acknowledged[-1].sequence == world.nodes["b"].sequence
    world.release()
    world.heartbeat(a)
    world.settle()
    assert a.acknowledged == [HeartbeatAck(a.sequence, world.state.version)]


def test_a_heartbeat_of_a_node_that_the_state_does_not_know_yet_waits() -> None:
    world = World()
    world.holds_writes = True
    node = world.join("a")
    world.heartbeat(node)
    world.settle()
    assert not node.acknowledged
    world.release()
    assert node.acknowledged == [HeartbeatAck(1, world.state.version)]


# --------------------------------------------------------------------------- losing the term


def test_a_coordinator_that_lost_its_term_is_passive_for_good() -> None:
    world = World()
    world.cluster("a", "b")
    a, b = world.nodes["a"], world.nodes["b"]
    a.inbox.clear()
    a.acknowledged.clear()
    usurp(world)
    writes = len(world.written)
    world.heartbeat(a)
    world.settle()
    assert not world.core.is_active
    assert world.core.note == "another coordinator at 10.0.0.9:9500 has taken over"
    assert not a.acknowledged
    for node in (a, b):
        assert node.closed is not None
        assert isinstance(node.inbox[-1], Refusal)
        assert node.inbox[-1].code == "not-coordinator"
    late = world.join("c")
    assert isinstance(late.inbox[0], Refusal)
    assert late.inbox[0].code == "not-coordinator"
    answer = world.drain("a")
    assert isinstance(answer, Refusal)
    assert answer.code == "not-coordinator"
    stranger = world.connection()
    world.receive(stranger, SlotRequests(SlotRequestKind.DROP, []))
    world.settle()
    assert world.sent[-1][0] == stranger
    assert isinstance(world.sent[-1][1], Refusal)
    assert world.sent[-1][1].code == "not-coordinator"
    world.run(100)
    assert world.core.next_deadline_ns() is None
    assert len(world.written) == writes
    assert world.core.status().phase == "passive"
    assert world.notes[-1] == "another coordinator at 10.0.0.9:9500 has taken over"


def test_a_store_that_changes_under_every_write_is_reported_as_no_failure_of_the_store_is() -> None:
    world = World()
    world.cluster("a")
    carry_out = world.carry_out

    def racing(effect: Effect) -> None:
        if isinstance(effect, StoreWrite):
            assert world.stored is not None
            world.stored = msgspec.structs.replace(world.stored, version=world.stored.version + 1)
        carry_out(effect)

    world.carry_out = racing  # type: ignore[method-assign]
    world.join("b")
    world.run(3)
    assert world.core.note == "the store has another version than was expected"
    assert world.notes[-1] == world.core.note
    assert world.core.take_store_news() == []


def test_a_write_that_comes_too_late_makes_the_coordinator_passive() -> None:
    world = World()
    world.cluster("a", "b")
    usurp(world)
    writes = len(world.written)
    operator = world.client()
    world.receive(operator, Drain(3, "a"))
    world.settle()
    assert not world.core.is_active
    assert len(world.written) == writes
    assert [m.code for c, m in world.sent if c == operator and isinstance(m, Refusal)] == ["not-coordinator"]


def test_of_two_coordinators_that_start_together_one_is_passive() -> None:
    first, second = World(starts=False, term="one"), World(starts=False, term="two")
    for world in (first, second):
        world.holds_writes = True
        world.core.start(now_ns=world.read_clocks())
        world.settle()
    first.release()
    second.stored = first.stored
    second.release()
    assert first.core.is_active
    assert not second.core.is_active
    assert "another coordinator at" in second.core.note


def test_results_of_operations_given_up_are_ignored() -> None:
    world = World()
    world.cluster("a")
    version = world.state.version
    world.core.store_result(1, ok=True, state=None, now_ns=world.read_clocks())
    world.core.store_result(999, ok=False, state=None, now_ns=world.read_clocks())
    world.settle()
    assert world.core.is_active
    assert world.state.version == version


# --------------------------------------------------------------------------- a store that fails


def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    world = World(starts=False)
    world.fails_reads = True
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    world.run(3)
    assert not world.core.is_active
    assert world.core.note == "the store cannot be read"
    world.fails_reads = False
    world.run(2.1)
    assert world.core.is_active


def test_a_store_that_can_be_read_and_not_written_is_tried_seldom_and_reported_once_a_minute() -> None:
    world = World()
    world.cluster("a", "b")
    asked = 0
    carry_out = world.carry_out

    def counting(effect: Effect) -> None:
        nonlocal asked
        asked += isinstance(effect, StoreRead | StoreWrite)
        carry_out(effect)

    world.carry_out = counting  # type: ignore[method-assign]
    world.fails_writes = True
    world.join("c")
    world.run(130)
    assert not world.core.is_active
    assert world.core.note == "a write to the store failed"
    assert world.core.note not in world.notes, "the news of the store say it"
    assert asked < 2 * 130, "a read and a write, every two seconds"
    news = [each.text for each in world.core.take_store_news()]
    assert len(news) == 3
    assert not any("again" in text for text in news), "only reads have worked"
    world.fails_writes = False
    world.run(2.1)
    assert world.core.is_active
    (end,) = world.core.take_store_news()
    assert end.text.startswith("the store works again: a write has worked")
    world.run_until_quiet()
    assert world.core.note == ""


@pytest.mark.parametrize("was_made", [False, True])
def test_a_write_of_unknown_outcome_is_followed_by_a_new_claim(was_made: bool) -> None:
    world = World()
    world.cluster("a", "b")
    world.holds_writes = True
    world.join("c")
    (write,) = world.held_back
    assert isinstance(write, StoreWrite)
    world.held_back.clear()
    if was_made:
        assert world.apply_write(write)
    world.holds_writes = False
    world.core.store_result(write.operation, ok=False, state=None, now_ns=world.read_clocks())
    world.settle()
    assert not world.core.is_active
    world.run(0.2)
    assert world.core.is_active
    assert not world.apply_write(write), "it cannot arrive any more"
    world.run_until_quiet()
    assert world.primaries()["c"] > 1300
    assert world.core.note == ""


def test_a_store_that_does_not_answer_is_given_up_and_claimed_again() -> None:
    world = World()
    world.cluster("a", "b")
    world.holds_writes = world.holds_reads = True
    world.join("c")
    world.run(10.5)
    assert not world.core.is_active
    assert world.core.note == "the store has not answered for 10 s"
    late = [effect for effect in world.held_back if isinstance(effect, StoreWrite)]
    world.held_back.clear()
    world.holds_writes = world.holds_reads = False
    world.run(11)
    assert world.core.is_active
    assert not any(world.apply_write(write) for write in late)
    world.run_until_quiet()
    assert world.primaries()["c"] > 1300


def test_a_first_claim_of_unknown_outcome_still_counts_the_store_as_it_was() -> None:
    world = World(starts=False, new_cluster=False)
    world.holds_writes = True
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    (claim,) = world.held_back
    assert isinstance(claim, StoreWrite)
    world.held_back.clear()
    world.holds_writes = False
    world.apply_write(claim)
    world.core.store_result(claim.operation, ok=False, state=None, now_ns=world.read_clocks())
    world.run(0.2)
    assert world.core.is_active
    node = world.join("a", cluster="the-old-one", version=WALL_NS - 5)
    assert isinstance(node.inbox[0], Welcome)
    assert world.state.cluster == "the-old-one"


def test_a_cluster_that_has_assigned_slots_does_not_change_its_name() -> None:
    world = World()
    world.cluster("a")
    node = world.join("b", cluster="other", version=world.state.version + 5)
    assert isinstance(node.inbox[0], Refusal)
    assert node.inbox[0].code == "wrong-cluster"
    assert world.state.cluster == "cluster-of-first"


def test_nothing_is_published_that_the_store_has_not_taken() -> None:
    world = World()
    world.cluster("a", "b")
    world.holds_writes = True
    published = len(world.published)
    number, slot = world.slot_with(primary="a")
    world.ask(world.nodes["a"], SlotRequestKind.EXTEND, SlotRequest(number, 0, below=slot.generation_below))
    world.run(0.5)
    assert len(world.published) == published
    world.release()
    assert len(world.published) > published
    assert all(copies_in_sync(each) == 2 for each in world.state.slots)


def test_effects_are_handed_out_once() -> None:
    world = World(starts=False)
    world.core.start(now_ns=world.read_clocks())
    (effect,) = world.core.take_effects(now_ns=0)
    assert isinstance(effect, StoreRead)
    assert world.core.take_effects(now_ns=0) == []
