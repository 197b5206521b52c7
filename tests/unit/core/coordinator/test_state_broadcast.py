"""States on their way to nodes: a step to one that has the version before, all of it to any other."""

from __future__ import annotations

from typing import Any

from lockring.cluster_state import ClusterState, Member, decode_state
from lockring.core.coordinator.state_broadcast import RESEND_NS, StateBroadcast
from lockring.core.effects import Broadcast, Effect, Send
from lockring.ids import ConnectionId, NodeId, SequenceNumber, Version
from lockring.protocol import NO_DIFFERENCES, PROTOCOL, Heartbeat, Join, State, StateDifference, Welcome
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import World
from tests.unit.core.states import FIRST, first_state, member, moved

ONE, TWO = ConnectionId(1), ConnectionId(2)


def started(now_ns: int = 0) -> tuple[StateBroadcast, ClusterState]:
    """A broadcast that has published one step behind the state that it began with, and its newest state."""
    broadcast = StateBroadcast(now_ns=now_ns)
    broadcast.start_at(first_state("a", "b"))
    state = moved(first_state("a", "b"), "b", 1)
    broadcast.publish(state, [], now_ns=now_ns)
    return broadcast, state


def sent(effects: list[Effect]) -> list[Any]:
    """The messages of effects."""
    return [effect.message for effect in effects if isinstance(effect, (Send, Broadcast))]


def beat(version: int, *, is_astray: bool = False) -> Heartbeat:
    return Heartbeat(SequenceNumber(1), Version(version), is_astray=is_astray)


def test_nodes_get_a_step_and_those_that_know_none_all_of_the_state() -> None:
    broadcast, state = started()
    nodes = [(ONE, member("a")), (TWO, member("b", differences=False))]
    following, others = broadcast.publish(moved(state, "b", 2), nodes, now_ns=1)
    assert isinstance(following, Broadcast)
    assert isinstance(others, Broadcast)
    assert (following.to, type(following.message)) == ((ONE,), StateDifference)
    assert (others.to, type(others.message)) == ((TWO,), State)


def test_one_kind_of_node_gets_one_message() -> None:
    broadcast, state = started()
    assert len(broadcast.publish(moved(state, "b", 2), [(ONE, member("a"))], now_ns=1)) == 1
    old: Member = member("a", differences=False)
    assert len(broadcast.publish(moved(moved(state, "b", 2), "a", 2), [(ONE, old)], now_ns=1)) == 1
    assert broadcast.publish(moved(state, "a", 9), [], now_ns=1) == []


def test_a_node_that_comes_back_gets_the_differences_since_its_version() -> None:
    broadcast, _ = started()
    (step,) = sent(broadcast.greet(ONE, FIRST))
    assert (step.base, step.version) == (FIRST, FIRST + 1)
    assert broadcast.greet(ONE, Version(FIRST + 1)) == [], "it has the newest state"


def test_a_node_without_a_known_version_gets_all_of_the_state() -> None:
    broadcast, state = started()
    for version in (0, FIRST - 1, NO_DIFFERENCES):
        (whole,) = sent(broadcast.greet(ONE, Version(version)))
        assert decode_state(whole.state) == state


def test_a_node_astray_gets_all_of_the_state_at_once() -> None:
    broadcast, _ = started()
    assert [type(each) for each in sent(broadcast.catch_up(ONE, beat(FIRST, is_astray=True), now_ns=1))] == [
        State
    ]


def test_a_late_node_gets_all_of_the_state_after_a_while_and_again() -> None:
    broadcast, _ = started()
    assert broadcast.catch_up(ONE, beat(FIRST), now_ns=RESEND_NS - 1) == []
    assert [type(each) for each in sent(broadcast.catch_up(ONE, beat(FIRST), now_ns=RESEND_NS))] == [State]
    assert broadcast.catch_up(ONE, beat(FIRST), now_ns=2 * RESEND_NS - 1) == []
    broadcast.drop(ONE)
    assert len(broadcast.catch_up(ONE, beat(FIRST), now_ns=2 * RESEND_NS)) == 1
    assert broadcast.catch_up(ONE, beat(FIRST + 1, is_astray=True), now_ns=9 * RESEND_NS) == []


def join(name: str, has: int, version: int = 0) -> Join:
    return Join(PROTOCOL, "", name, 1, f"{name}:1", 1, Version(version), has=Version(has))  # type: ignore[arg-type]


def messages(world: World, connection: int) -> list[Any]:
    return [message for to, message in world.sent if to == connection]


def arrives(world: World, connection: int, message: Join) -> None:
    world.core.connected(ConnectionId(connection), now_ns=world.now_ns)
    world.core.receive(ConnectionId(connection), message, now_ns=world.now_ns)
    world.settle()


def test_a_coordinator_sends_differences_to_nodes_that_take_them_and_states_to_older_ones() -> None:
    world = World()
    arrives(world, 501, join("new", 0))
    arrives(world, 502, join("old", NO_DIFFERENCES))
    arrives(world, 503, join("third", 0))
    assert [type(each) for each in messages(world, 501)] == [Welcome, State] + [StateDifference] * 3
    assert [type(each) for each in messages(world, 502)] == [Welcome, State] + [State] * 2
    assert world.state.members[NodeId("new")].differences
    assert not world.state.members[NodeId("old")].differences


def test_a_node_that_reconnects_gets_what_it_has_missed_and_no_more() -> None:
    world = World()
    arrives(world, 501, join("new", 0))
    version = world.state.version
    world.core.disconnected(ConnectionId(501), now_ns=world.now_ns)
    arrives(world, 502, join("other", 0))
    arrives(world, 503, join("new", version, version))
    _, step = messages(world, 503)
    assert isinstance(step, StateDifference)
    assert (step.base, step.version) == (version, world.state.version)


def test_the_next_coordinator_knows_the_step_from_the_state_that_it_found() -> None:
    world = World()
    arrives(world, 501, join("new", 0))
    successor = World(stored=world.state, term="second", now_ns=5 * NS_PER_S)
    arrives(successor, 501, join("new", world.state.version, world.state.version))
    _, step = messages(successor, 501)
    assert isinstance(step, StateDifference)
    assert (step.base, step.version) == (world.state.version, successor.state.version)


def test_a_version_that_no_state_can_have_is_refused() -> None:
    for has in (-2, 8):
        world = World()
        arrives(world, 501, join("new", has, 7))
        assert messages(world, 501)[0].code == "invalid"
