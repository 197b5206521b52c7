"""A node takes steps of the cluster state that fit, asks for all of it where one does not, and passes steps on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Copy, Member, encode_state
from lockring.core.effects import COORDINATOR, Broadcast, Effect, Reply, Send
from lockring.core.node import NodeCore
from lockring.core.node.copies import BEHIND_NS
from lockring.core.state_history import StateHistory
from lockring.ids import ClientId, ClusterId, ConnectionId, GreetingNumber, SequenceNumber, Version
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    GetRoutes,
    Heartbeat,
    Replicate,
    ReplicateAck,
    Routes,
    RoutesDifference,
    State,
    StateDifference,
)
from tests.unit.core.states import first_state, member, moved, replica

S = 1_000_000_000
NOW = 1_000 * S
ME = replica("a")


class Coordinator:
    """A node with a coordinator and peers that are played by the test."""

    def __init__(self, *members: Member) -> None:
        self.history = StateHistory()
        known = members or (member("a"), member("b"))
        state = first_state(*[each.replica.node for each in known])
        copy = Copy(replica("b"), state.version)
        slots = tuple([msgspec.structs.replace(slot, backup=copy) for slot in state.slots])
        members_by_id = {each.replica.node: each for each in known}
        self.history.start_at(msgspec.structs.replace(state, slots=slots, members=members_by_id))
        self.now_ns = NOW
        self.core = NodeCore(ME, now_ns=NOW)
        self.core.connected(COORDINATOR, now_ns=NOW)
        self.core.receive(COORDINATOR, State(encode_state(self.history.state)), now_ns=NOW)
        self.take()

    def take(self) -> list[Effect]:
        return self.core.take_effects(now_ns=self.now_ns)

    def step(self, *, extra: int = 0) -> StateDifference:
        """Make the next step."""
        before = self.history.state
        slots = list(before.slots)
        version = Version(before.version + 1)
        slots[extra] = msgspec.structs.replace(slots[extra], generation_below=version * 1_000_000)
        self.history.advance_to(msgspec.structs.replace(before, version=version, slots=tuple(slots)))
        (made,) = self.history.differences_since(before.version) or []
        return made

    def tell(self, *steps: StateDifference) -> list[Effect]:
        for step in steps:
            self.core.receive(COORDINATOR, step, now_ns=self.now_ns)
        return self.take()


def heartbeats(effects: list[Effect]) -> list[Heartbeat]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Heartbeat)
    ]


def states(effects: list[Effect]) -> list[Any]:
    """The states and steps that were sent to peers."""
    sent = [effect.message for effect in effects if isinstance(effect, (Send, Reply))]
    return [message for message in sent if isinstance(message, (State, StateDifference))]


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


def test_a_step_leads_to_the_coordinator_s_state(coordinator: Coordinator) -> None:
    for _ in range(3):
        coordinator.tell(coordinator.step())
        assert coordinator.core.state == coordinator.history.state
    assert coordinator.core.join_facts().has == coordinator.history.state.version


def test_a_step_that_is_missing_makes_the_node_ask_for_all_of_the_state_at_once(
    coordinator: Coordinator,
) -> None:
    before = coordinator.core.state
    coordinator.step()
    (beat,) = heartbeats(coordinator.tell(coordinator.step(), coordinator.step()))
    assert (beat.version, beat.is_astray) == (before.version, True)
    assert coordinator.core.state is before
    coordinator.core.receive(COORDINATOR, coordinator.history.whole(), now_ns=NOW)
    assert coordinator.core.state == coordinator.history.state
    coordinator.tell(coordinator.step())
    coordinator.now_ns += S
    coordinator.core.on_timer(now_ns=coordinator.now_ns)
    (beat,) = heartbeats(coordinator.take())
    assert not beat.is_astray


def test_a_damaged_step_makes_the_node_ask_for_all_of_the_state(coordinator: Coordinator) -> None:
    damaged = msgspec.structs.replace(coordinator.step(), digest=5)
    (beat,) = heartbeats(coordinator.tell(damaged))
    assert beat.is_astray


def test_a_step_to_what_the_node_has_already_is_no_news(coordinator: Coordinator) -> None:
    step = coordinator.step()
    coordinator.tell(step)
    assert coordinator.tell(step) == []


def test_a_step_to_a_state_that_has_skipped_the_known_one_is_not_taken(coordinator: Coordinator) -> None:
    before = coordinator.history.state
    later = msgspec.structs.replace(
        before, version=Version(before.version + 9), skipped=((before.version - 1, before.version + 9),)
    )
    coordinator.history.advance_to(later)
    (step,) = coordinator.history.differences_since(before.version) or []
    coordinator.tell(step)
    assert coordinator.core.state.version == before.version


def linked(coordinator: Coordinator) -> None:
    """Connect the node and its backup, b, each to the other."""
    core = coordinator.core
    core.connected(replica("b"), now_ns=NOW)
    coordinator.now_ns += S // 2
    core.on_timer(now_ns=coordinator.now_ns)
    sent = [each.message for each in coordinator.take() if isinstance(each, Send)]
    assert [message for message in sent if isinstance(message, Replicate)]


def acknowledged(coordinator: Coordinator, sequence: int, version: int) -> list[Any]:
    """Return the states that the node passes to its backup, which acknowledges under some version of the state."""
    ack = ReplicateAck(SequenceNumber(sequence), Version(version), [])
    coordinator.core.receive(replica("b"), ack, now_ns=coordinator.now_ns)
    return states(coordinator.take())


def beat_again(coordinator: Coordinator) -> int:
    """Let the node send its next heartbeat to b, and return its number."""
    coordinator.now_ns += S // 2
    coordinator.core.on_timer(now_ns=coordinator.now_ns)
    sent = [each.message for each in coordinator.take() if isinstance(each, Send)]
    return max(message.sequence for message in sent if isinstance(message, Replicate))


def test_a_peer_that_is_behind_gets_the_differences_since_its_version(coordinator: Coordinator) -> None:
    first = coordinator.history.state.version
    linked(coordinator)
    steps = [coordinator.step(), coordinator.step()]
    coordinator.tell(*steps)
    assert acknowledged(coordinator, 1, first) == steps


def test_a_peer_for_which_the_steps_did_not_fit_gets_all_of_the_state_once(coordinator: Coordinator) -> None:
    first = coordinator.history.state.version
    linked(coordinator)
    coordinator.tell(coordinator.step())
    assert [type(each) for each in acknowledged(coordinator, 1, first)] == [StateDifference]
    sequence = beat_again(coordinator)
    assert acknowledged(coordinator, sequence, first) == [State(encode_state(coordinator.history.state))]
    assert acknowledged(coordinator, beat_again(coordinator), first) == []


def test_a_peer_that_knows_no_differences_gets_all_of_the_state() -> None:
    coordinator = Coordinator(member("a"), member("b", differences=False))
    first = coordinator.history.state.version
    linked(coordinator)
    coordinator.tell(coordinator.step())
    assert acknowledged(coordinator, 1, first) == [State(encode_state(coordinator.history.state))]


def test_a_primary_that_goes_on_without_the_newest_state_gets_steps_and_then_all_of_it() -> None:
    coordinator = Coordinator()
    state = coordinator.history.state
    mine = Copy(ME, state.version)
    slots = tuple([msgspec.structs.replace(slot, primary=replica("b"), backup=mine) for slot in state.slots])
    coordinator.history.start_at(
        msgspec.structs.replace(state, version=Version(state.version + 1), slots=slots)
    )
    coordinator.core.receive(COORDINATOR, coordinator.history.whole(), now_ns=NOW)
    behind = coordinator.history.state.version
    step = coordinator.step()
    coordinator.tell(step)
    told = []
    for sequence in range(1, 6):
        message = Replicate(SequenceNumber(sequence), behind, True, [])
        coordinator.core.receive(replica("b"), message, now_ns=coordinator.now_ns)
        told += states(coordinator.take())
        coordinator.now_ns += BEHIND_NS // 2
    assert told == [step, State(encode_state(coordinator.history.state))]


def test_a_step_of_a_peer_is_taken_too(coordinator: Coordinator) -> None:
    step = coordinator.step()
    coordinator.core.receive(replica("b"), step, now_ns=NOW)
    assert coordinator.core.state == coordinator.history.state
    stray = msgspec.structs.replace(coordinator.step(), digest=1)
    coordinator.core.receive(replica("b"), stray, now_ns=NOW)
    assert heartbeats(coordinator.take()) == [], "the peer finds out by itself"


def greeted(coordinator: Coordinator, connection: int, *, differences: bool) -> list[Any]:
    """Connect a client, and return the routes that it gets."""
    number, client = ConnectionId(connection), ClientId(f"client-{connection}")
    hello = ClientHello(PROTOCOL, ClusterId("c"), client, GreetingNumber(1), differences=differences)
    coordinator.core.connected(number, now_ns=coordinator.now_ns)
    coordinator.core.receive(number, hello, now_ns=coordinator.now_ns)
    return [effect.message for effect in coordinator.take() if isinstance(effect, Broadcast)]


def test_clients_get_differences_if_they_take_them_and_all_routes_if_not(coordinator: Coordinator) -> None:
    for connection, differences in ((101, True), (102, False), (103, True)):
        assert [type(each) for each in greeted(coordinator, connection, differences=differences)] == [Routes]
    before = coordinator.history.state
    coordinator.history.advance_to(moved(before, "b", 5))
    sent = coordinator.tell(*(coordinator.history.differences_since(before.version) or []))
    broadcasts = [each for each in sent if isinstance(each, Broadcast)]
    assert [(each.to, type(each.message)) for each in broadcasts] == [
        ((101, 103), RoutesDifference),
        ((102,), Routes),
    ]


def test_a_client_whom_a_difference_did_not_fit_gets_all_routes(coordinator: Coordinator) -> None:
    (routes,) = greeted(coordinator, 101, differences=True)
    coordinator.core.receive(ConnectionId(101), GetRoutes(Version(3)), now_ns=coordinator.now_ns)
    assert [each.message for each in coordinator.take() if isinstance(each, Broadcast)] == [routes]


def test_a_state_of_another_cluster_is_not_taken_as_a_step(coordinator: Coordinator) -> None:
    before: ClusterState = coordinator.history.state
    other = msgspec.structs.replace(before, version=Version(before.version + 1), cluster=ClusterId("other"))
    coordinator.history.advance_to(other)
    coordinator.tell(*(coordinator.history.differences_since(before.version) or []))
    assert coordinator.core.state.cluster == "c"
