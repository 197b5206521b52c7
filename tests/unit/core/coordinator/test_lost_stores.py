"""A store that lost something, or may have: what a coordinator believes of it, and how long it waits."""

from __future__ import annotations

import pytest

from lockring.core.coordinator.store_past import OWN_VERSIONS_MAX, OwnVersions
from lockring.core.effects import StoreWrite
from lockring.protocol import (
    HeartbeatAck,
    Refusal,
    Welcome,
)
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import WALL_NS, World, rejoin, successor


def test_an_empty_store_that_may_be_a_lost_one_assigns_only_after_a_lease() -> None:
    world = World(new_cluster=False)
    node = world.join("a")
    world.run(21)
    assert 9_000 < world.core.left_ms(world.now_ns) < 11_000
    told = [each for each in node.inbox if isinstance(each, HeartbeatAck)][-1]
    assert "unknown what was held" in told.why
    assert 9_000 < told.left_ms < 12_000
    world.run(10)
    assert world.primaries() == {"-": 4096}
    assert "unknown what was held before this start" in world.core.note
    assert "--new-cluster" in world.core.note
    world.run(2)
    assert world.primaries() == {"a": 4096}
    assert world.core.left_ms(world.now_ns) == 0
    world.run(1.5)
    told = [each for each in node.inbox if isinstance(each, HeartbeatAck)][-1]
    assert (told.why, told.left_ms) == ("", 0)


def test_a_restart_during_that_wait_does_not_shorten_it() -> None:
    first = World(new_cluster=False)
    first.join("a")
    first.run(20)
    second = World(stored=first.stored, new_cluster=True, term="second")
    second.join("a", cluster=first.state.cluster, version=first.state.version)
    second.run(31)
    assert second.primaries() == {"-": 4096}


def test_a_restart_of_a_new_cluster_before_its_first_assignment_does_not_wait() -> None:
    first = World()
    second = successor(first)
    second.join("a")
    second.run(1.2)
    assert second.primaries() == {"a": 4096}


def test_two_terms_that_begin_after_the_same_state_take_different_versions_unless_the_clock_gives_one() -> (
    None
):
    first = World()
    first.cluster("a", "b")

    def version(term: str, clock_ns: int, *, is_lost: bool) -> int:
        world = World(
            stored=None if is_lost else first.stored, new_cluster=False, term=term, wall_ns=clock_ns
        )
        if is_lost:
            rejoin(first, world, "a", "b")
        return world.state.version - first.state.version

    for is_lost, least_ns in ((True, NS_PER_S), (False, 1)):
        steps_ns = [version(term, 0, is_lost=is_lost) for term in ("second", "third", "second")]
        assert steps_ns[0] == steps_ns[2] != steps_ns[1]
        assert all(least_ns < each < least_ns + 2**30 + NS_PER_S for each in steps_ns)
    later_ns = WALL_NS + 60 * NS_PER_S
    assert version("second", later_ns, is_lost=False) == version("third", later_ns, is_lost=False)


def test_a_version_between_those_that_a_term_has_written_is_a_lost_one() -> None:
    own = OwnVersions()
    assert not own.lack(1)
    for version in range(10, 10 + 2 * OWN_VERSIONS_MAX, 2):
        own.add(version)
    assert not own.lack(9)
    assert (own.lack(10), own.lack(11), own.lack(12)) == (False, True, False)
    assert not own.lack(11 + 2 * OWN_VERSIONS_MAX)
    own.add(1_000_000)
    assert not own.lack(11), "it has forgotten the first one, and judges nothing below the next"
    assert own.lack(13)


def test_a_term_that_another_one_followed_takes_its_versions_for_no_lost_ones() -> None:
    first = World()
    first.cluster("a", "b")
    world = World(stored=first.stored, term="second", starts=False, wall_ns=WALL_NS + 60 * NS_PER_S)
    world.holds_writes = True
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    (claim,) = world.held_back
    assert isinstance(claim, StoreWrite)
    world.held_back = []
    assert world.apply_write(claim), "it is in the store, and its answer is lost"
    world.run(10.2)
    (again,) = world.held_back
    assert isinstance(again, StoreWrite)
    assert again.expected_version == claim.state.version, "it has found that, and the next answer is lost too"
    world.held_back = []
    other = World(stored=world.stored, term="third", wall_ns=world.wall_ns + NS_PER_S)
    rejoin(first, other, "a", "b")
    other.kill("b")
    other.run(15)
    world.stored, world.holds_writes = other.stored, False
    world.now_ns += 16 * NS_PER_S
    world.run(20)
    assert world.core._term.is_active
    assert world.core._term.state is not None
    between = other.written[-2].version
    assert claim.state.version < between < world.core._term.state.version
    assert not world.core._term.is_behind(between)


@pytest.mark.parametrize("new_cluster", [True, False])
@pytest.mark.parametrize("clock", [WALL_NS + 60 * NS_PER_S, 0])
def test_a_wiped_store_takes_the_nodes_cluster_and_a_version_above_theirs(
    new_cluster: bool, clock: int
) -> None:
    first = World()
    first.cluster("a", "b")
    second = World(new_cluster=new_cluster, term="second", wall_ns=clock)
    fresh = second.join("z")  # knows of no cluster, and is faster
    rejoin(first, second, "a", "b")
    assert second.state.cluster == first.state.cluster
    assert second.state.version > first.state.version
    assert second.nodes["a"].seen.version == second.state.version
    assert isinstance(second.nodes["a"].inbox[0], Welcome)
    assert second.primaries() == {"-": 4096}
    second.run(31)
    assert second.primaries() == {"-": 4096}
    second.run(2)
    assert "-" not in second.primaries()
    lowest = min(slot.generation_from for slot in second.state.slots)
    assert lowest >= first.state.version // 1000
    again = second.join("z", cluster="cluster-of-second", version=0, address=fresh.address)
    # It got that id from this very coordinator, and takes no state of another cluster: it has to begin a new life.
    refusal = again.inbox[0]
    assert isinstance(refusal, Refusal)
    assert refusal.code == "stale"
    assert refusal.hint > 1


def test_a_restored_store_forgets_who_had_what() -> None:
    first = World()
    first.cluster("a", "b", "c")
    backup = first.stored
    first.drain("c")
    first.run_until_quiet()
    second = World(stored=backup, new_cluster=False, term="second", wall_ns=WALL_NS + 1000 * NS_PER_S)
    below = max(slot.generation_below for slot in second.state.slots)
    rejoin(first, second, "a")
    assert second.primaries() == {"-": 4096}
    version = second.state.version
    rejoin(first, second, "b")
    second.run(0.1)
    assert second.primaries() == {"-": 4096}
    second.run(34)
    assert set(second.primaries()) == {"a", "b"}
    assert min(slot.generation_from for slot in second.state.slots) >= below
    assert min(slot.base for slot in second.state.slots) > version


def test_a_restored_store_is_found_out_even_if_a_coordinator_without_nodes_has_written_to_it() -> None:
    first = World()
    first.cluster("a", "b", "c")
    backup = first.stored
    first.drain("c")
    first.run_until_quiet()
    between = World(stored=backup, term="between", wall_ns=WALL_NS + 1000 * NS_PER_S)
    between.run(1)
    second = World(stored=between.stored, term="second", wall_ns=WALL_NS + 2000 * NS_PER_S)
    rejoin(first, second, "a")
    assert second.primaries() == {"-": 4096}
    assert second.state.skipped == (), "all slots are forgotten: nothing more can be lost"


def test_nodes_that_saw_nothing_but_what_the_store_has_are_not_taken_for_proof_of_a_loss() -> None:
    first = World()
    first.cluster("a", "b")
    second = World(stored=first.stored, term="second", wall_ns=WALL_NS + 1000 * NS_PER_S)
    second.run(1)
    third = World(stored=second.stored, term="third", wall_ns=WALL_NS + 2000 * NS_PER_S)
    rejoin(first, third, "a")
    rejoin(first, third, "b")
    assert set(third.primaries()) == {"a", "b"}
    assert len(third.state.skipped) >= 2


def test_what_a_late_node_has_seen_of_a_lost_store_only_raises_the_version_after_the_wait() -> None:
    world = World(new_cluster=False, wall_ns=1000 * NS_PER_S)
    world.join("a", version=0)
    world.run(34)
    before = world.state.slots
    late = world.join("b", version=5000 * NS_PER_S, cluster=world.state.cluster)
    assert isinstance(late.inbox[0], Welcome)
    assert world.state.version > 5000 * NS_PER_S
    assert [slot.base for slot in world.state.slots] == [slot.base for slot in before]


def test_the_first_version_after_a_loss_is_above_all_that_can_have_been_reserved_with_it() -> None:
    first = World(replication="async")
    first.cluster("a", "b")
    first.wall_offset_ns -= 10**6 * NS_PER_S
    earlier = max(slot.generation_below for slot in first.state.slots)
    for name in ("a", "b"):
        first.kill(name)
        first.run(10)
        first.join(name)
        first.run(10)
    first.kill("a")
    first.run(10)
    below = max(slot.generation_below for slot in first.state.slots)
    assert below >= earlier + 3_000_000
    second = World(new_cluster=False, term="second", wall_ns=WALL_NS - 1000 * NS_PER_S)
    rejoin(first, second, "b")
    second.run(34)
    assert min(slot.generation_from for slot in second.state.slots) >= below


def test_a_heartbeat_from_beyond_the_store_shows_the_loss_too() -> None:
    world = World()
    world.cluster("a", "b")
    seen = world.wall_ns + 5 * NS_PER_S
    world.heartbeat(world.nodes["a"], version=seen)
    world.settle()
    assert world.core.is_active
    assert world.state.version > seen
    assert world.primaries() == {"-": 4096}
    assert any(f"but a node has seen version {seen}" in each for each in world.notes)
    world.run(34)
    assert "-" not in world.primaries()


def test_a_store_set_back_under_a_running_coordinator_is_not_relied_on() -> None:
    world = World()
    world.cluster("a", "b")
    snapshot = world.stored
    version = world.state.version
    world.join("c")
    world.run_until_quiet()
    newest = world.state.version
    world.stored = snapshot
    assert newest > version
    world.run(1.1)
    assert world.core.is_active
    assert world.state.version > newest
    assert world.primaries() == {"-": 4096}
    (warning,) = (each for each in world.notes if "no lock is granted" in each)
    assert f"it has version {version}, but this coordinator has read or written version {newest}" in warning
    assert "for up to 31.5 s" in warning
    note = world.core.note
    assert (
        "4096 slots are not served: it is unknown what is held, since the coordinator's store cannot be"
        in note
    )
    assert f"this coordinator has read or written version {newest}" in note
    assert "--new-cluster" not in note
    world.stored = None
    world.run(1.1)
    assert world.core.is_active
    assert any(
        "it is empty, but this coordinator has read or written version" in each for each in world.notes
    )
    assert world.state.cluster == "cluster-of-first"
    world.run(34)
    assert "-" not in world.primaries()
