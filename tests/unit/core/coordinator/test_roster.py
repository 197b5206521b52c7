"""Joining, the stabilization window, duplicates, and the answers that a node gets at once."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.cluster_state import Replica, decode_state
from lockring.core.access import ANY_NODE, NO_NODE, Newcomer, NodeProof
from lockring.core.timing import Timing
from lockring.ids import NodeId
from lockring.protocol import (
    PROTOCOL,
    DrainReply,
    GetState,
    Heartbeat,
    Join,
    Leave,
    Refusal,
    SlotRequest,
    SlotRequestKind,
    SlotRequests,
    State,
    Welcome,
)
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import Node, World


def refusal_of(node: Node) -> Refusal:
    answer = node.inbox[0]
    assert isinstance(answer, Refusal)
    assert node.closed is not None, "who is refused a join is disconnected"
    return answer


def test_version_0_bootstraps_a_cluster() -> None:
    world = World()
    assert world.stored == world.written[0]
    assert world.written[0].version > 0
    assert world.written[0].cluster == "cluster-of-first"
    assert world.core.is_active
    assert world.core.note == "no node has joined yet"
    world.cluster("a", "b", "c")
    assert all(count >= 1300 for count in world.primaries().values())
    assert "-" not in world.primaries()
    assert "-" not in world.backups()
    assert world.core.note == ""
    assert {m.condition for m in world.state.members.values()} == {"active"}


def test_a_joining_node_is_welcomed_and_gets_the_state_at_once() -> None:
    world = World()
    world.cluster("a", "b")
    before = world.state.version
    node = world.join("c")
    welcome, snapshot = node.inbox[:2]
    assert isinstance(welcome, Welcome)
    assert (welcome.protocol, welcome.cluster, welcome.role) == (PROTOCOL, "cluster-of-first", "coordinator")
    assert (welcome.node, welcome.incarnation, welcome.version) == ("c", 1, before)
    assert welcome.coordinator == "127.0.0.1:9500"
    assert isinstance(snapshot, State)
    assert decode_state(snapshot.state).version == before


def test_a_reconnecting_node_gets_the_state_at_once_and_keeps_its_slots() -> None:
    world = World()
    world.cluster("a", "b")
    primaries = world.primaries()
    first = world.kill("a")
    again = world.join("a", cluster=world.state.cluster, version=first.seen.version, address=first.address)
    assert isinstance(again.inbox[0], Welcome)
    assert isinstance(again.inbox[1], State)
    writes = len(world.written)
    world.run(10)
    assert len(world.written) == writes
    assert world.primaries() == primaries


def test_peers_learn_the_address_at_once_but_slots_wait_for_the_window() -> None:
    world = World()
    world.join("a", address="127.0.0.1:9777")
    assert world.state.members[NodeId("a")].address == "127.0.0.1:9777"
    assert [member.condition for member in world.state.members.values()] == ["joining"]
    world.run(0.9)
    assert world.primaries() == {"-": 4096}
    world.run(0.3)
    assert world.primaries() == {"a": 4096}
    assert [member.condition for member in world.state.members.values()] == ["active"]


def test_several_groups_of_rapid_changes_give_one_update_each() -> None:
    world = World()
    for group, names in enumerate(["abc", "de", "fgh"]):
        for name in names:
            world.join(name)
            world.run(0.6)  # less than the window: each join restarts it
        assert world.core.status().ring_updates == group
        world.run(1)
        assert world.core.status().ring_updates == group + 1
    assert world.core.status().settled == tuple("abcdefgh")


def test_a_drop_and_a_join_in_one_window_give_one_update() -> None:
    world = World()
    world.cluster("a", "b", "c")
    updates = world.core.status().ring_updates
    world.silence("c")
    world.run(4.8)
    assert world.core.status().ring_updates == updates
    world.run(0.9)  # c has failed, and its window is still open
    world.join("d")
    world.run(0.9)
    assert world.core.status().ring_updates == updates
    world.run(1)
    assert world.core.status().ring_updates == updates + 1
    assert world.core.status().settled == ("a", "b", "d")


def test_a_node_back_within_the_window_gives_no_update() -> None:
    world = World()
    world.cluster("a", "b", "c")
    updates = world.core.status().ring_updates
    world.silence("c")
    world.run(5.5)
    world.nodes["c"].is_silent = False
    world.run(5)
    assert world.core.status().ring_updates == updates


def test_a_changed_weight_moves_slots_and_a_changed_address_does_not() -> None:
    world = World()
    world.cluster("a", "b")
    world.kill("b")
    world.join("b", weight=3, address="127.0.0.1:9999")
    world.run_until_quiet()
    assert world.state.members[NodeId("b")].address == "127.0.0.1:9999"
    assert world.state.members[NodeId("b")].weight == 3
    assert world.state.members[NodeId("b")].condition == "active"
    assert world.primaries()["b"] > 2900
    updates = world.core.status().ring_updates
    world.kill("b")
    world.join("b", weight=3, address="127.0.0.1:9998")
    world.run_until_quiet()
    assert world.state.members[NodeId("b")].address == "127.0.0.1:9998"
    assert world.core.status().ring_updates == updates


def test_a_node_of_another_protocol_is_refused() -> None:
    refusal = refusal_of(World().join("a", protocol=PROTOCOL + 1))
    assert refusal.code == "protocol"
    assert str(PROTOCOL + 1) in refusal.text


def test_a_node_of_another_cluster_is_refused_and_both_are_named() -> None:
    world = World()
    world.cluster("a")
    refusal = refusal_of(world.join("b", cluster="strangers"))
    assert refusal.code == "wrong-cluster"
    assert "strangers" in refusal.text
    assert "cluster-of-first" in refusal.text
    assert "b" not in world.state.members


@pytest.mark.parametrize(
    ("proof", "is_let_in"),
    [
        (NO_NODE, False),
        (NodeProof(True, (NodeId("b"),)), False),
        (NodeProof(True, (NodeId("a"),)), True),
        (ANY_NODE, True),
    ],
)
def test_a_node_joins_if_its_connection_has_shown_to_be_that_node(proof: NodeProof, is_let_in: bool) -> None:
    world = World()
    node = world.join("a", newcomer=Newcomer(None, proof))
    world.run_until_quiet()
    assert ("a" in world.state.members) == is_let_in
    if not is_let_in:
        assert refusal_of(node).code == "denied"
        assert node.connection not in world.admitted, "a stranger has little room, and few lines in the log"


@pytest.mark.parametrize("proof", [NO_NODE, ANY_NODE], ids=["unproven", "proven"])
def test_a_join_that_is_malformed_is_a_strangers_and_its_text_is_no_part_of_a_refusal(
    proof: NodeProof,
) -> None:
    world = World()
    node = world.join("a\n2026-01-01 forged", newcomer=Newcomer(None, proof))
    world.run_until_quiet()
    refusal = refusal_of(node)
    assert refusal.code == "invalid"
    assert "\n" not in refusal.text
    assert node.connection not in world.admitted
    assert node.connection in world.closed


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "joined"])
def test_a_connection_that_has_joined_as_one_node_joins_as_no_other(is_held: bool) -> None:
    world = World(starts=not is_held)
    node = world.join("a", newcomer=Newcomer(None, NodeProof(True, (NodeId("a"),))))
    assert world.core.is_active != is_held
    world.receive(node.connection, Join(PROTOCOL, "", NodeId("b"), 1, "127.0.0.1:9999", 1, 0))
    world.settle()
    assert node.connection in world.closed
    if is_held:
        world.core.start(now_ns=world.read_clocks())
    world.run_until_quiet()
    assert "b" not in world.state.members


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("not a name", {}),
        ("a", {"address": "nowhere"}),
        ("a", {"weight": 0}),
        ("a", {"weight": 101}),
        ("a", {"incarnation": 0}),
        ("a", {"incarnation": 2**63}),
        ("a", {"version": 2**63 - 1}),
        ("a", {"version": -1}),
    ],
)
def test_a_malformed_join_is_refused(name: str, changes: dict[str, Any]) -> None:
    world = World()
    assert refusal_of(world.join(name, **changes)).code == "invalid"
    assert not world.state.members


def test_a_second_process_of_the_same_id_is_refused_while_the_first_is_heard() -> None:
    world = World()
    world.cluster("a")
    for incarnation in (1_000, 2):
        refusal = refusal_of(world.join("a", incarnation))
        assert refusal.code == "duplicate-node"
        assert refusal.name == "a"
    world.run(1)
    assert world.nodes["a"].closed is None
    assert world.state.members[NodeId("a")].replica == Replica("a", 1)


def test_a_restarted_node_replaces_its_former_life_once_that_is_disconnected_or_silent() -> None:
    world = World()
    world.cluster("a", "b")
    world.kill("a")
    assert isinstance(world.join("a", 2).inbox[0], Welcome)
    assert world.state.members[NodeId("a")].replica == Replica("a", 2)
    former = world.nodes["b"]
    former.is_silent = True
    world.run(3.1)
    assert isinstance(world.join("b", 2).inbox[0], Welcome)
    assert former.closed is not None


def test_an_older_life_is_refused_with_the_incarnation_that_will_do() -> None:
    world = World()
    world.join("a", 50)
    world.kill("a")
    refusal = refusal_of(world.join("a", 7))
    assert (refusal.code, refusal.hint) == ("stale", 51)
    assert isinstance(world.join("a", refusal.hint).inbox[0], Welcome)


def test_a_node_that_reconnects_ends_its_older_connection() -> None:
    world = World()
    first = world.join("a")
    second = world.join("a")
    assert isinstance(second.inbox[0], Welcome)
    assert first.closed is not None
    world.receive(second.connection, Heartbeat(1, 0))
    world.settle()
    assert [ack.sequence for ack in second.acknowledged] == [1]


def test_only_joined_nodes_may_speak() -> None:
    world = World()
    for message in (Heartbeat(1, 0), SlotRequests(SlotRequestKind.DROP, []), GetState(1)):
        connection = world.connection()
        world.receive(connection, message)
        world.settle()
        answer = world.sent[-1]
        assert answer[0] == connection
        assert isinstance(answer[1], Refusal)
        assert answer[1].code == "protocol"
        assert connection in world.closed


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(1, 2**63 - 1),
        SlotRequests(9, []),
        SlotRequests(SlotRequestKind.DROP, [SlotRequest(4096, 1)]),
        SlotRequests(SlotRequestKind.DROP, [SlotRequest(-1, 1)]),
    ],
)
def test_a_node_that_sends_nonsense_is_disconnected_and_changes_nothing(
    message: Heartbeat | SlotRequests,
) -> None:
    world = World()
    world.cluster("a", "b")
    writes = len(world.written)
    world.receive(world.nodes["a"].connection, message)
    world.settle()
    assert world.nodes["a"].closed is not None
    assert len(world.written) == writes


def test_a_member_that_was_dropped_joins_again_by_its_heartbeats() -> None:
    world = World()
    world.cluster("a", "b")
    world.silence("b")
    world.run(12)
    assert "b" not in world.state.members
    assert world.primaries() == {"a": 4096}
    world.nodes["b"].is_silent = False
    world.run_until_quiet()
    assert world.state.members[NodeId("b")].condition == "active"
    assert world.primaries()["b"] == 2048


def test_a_node_with_an_old_version_is_sent_the_state_again_after_a_moment() -> None:
    world = World()
    node = world.join("a")
    world.run_until_quiet()
    node.inbox.clear()
    world.heartbeat(node, version=node.seen.version - 1)
    world.heartbeat(node, version=node.seen.version - 1)
    world.settle()
    assert sum(isinstance(message, State) for message in node.inbox) == 1


def test_a_drain_of_an_unknown_node_is_refused() -> None:
    world = World()
    answer = world.drain("ghost")
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.name, answer.request) == ("unknown-node", "ghost", 7)


def test_the_last_node_is_drained_only_if_it_asks_itself() -> None:
    world = World()
    world.cluster("a", "b")
    world.silence("b")
    world.run(5.5)
    answer = world.drain("a")
    assert isinstance(answer, Refusal)
    assert answer.code == "last-node"
    assert "last one" in answer.text
    world.run(10)
    assert world.leave("a", request=0) == DrainReply(0, "a")
    assert "last node is leaving" in world.core.note
    world.run(1)
    assert world.primaries() == {"-": 4096}
    assert world.backups() == {"-": 4096}
    world.kill("a")
    world.run(1)
    assert not world.state.members


def test_after_the_last_node_has_left_slots_wait_for_its_leases() -> None:
    world = World()
    world.cluster("a")
    world.leave("a", request=0)
    world.run(1)
    world.kill("a")
    world.join("b")
    world.run(29)
    assert world.primaries() == {"-": 4096}
    assert "4096 slots are not served: all copies are gone" in world.core.note
    world.run(5)
    assert world.primaries() == {"b": 4096}
    assert world.core.note == ""


def test_nodes_that_all_leave_at_once_are_all_let_go() -> None:
    world = World()
    world.cluster("a", "b", "c")
    for name in "abc":
        world.receive(world.nodes[name].connection, Leave(0))
    world.run(1)
    assert world.primaries() == {"-": 4096}
    for name in "abc":
        assert DrainReply(0, name) in world.nodes[name].inbox
        world.kill(name)
    world.run(1)
    assert not world.state.members


def test_a_drain_is_answered_again_when_repeated() -> None:
    world = World()
    world.cluster("a", "b", "c")
    assert world.drain("a", request=1) == DrainReply(1, "a")
    assert world.drain("a", request=2) == DrainReply(2, "a")
    assert world.state.members[NodeId("a")].condition == "draining"


def test_a_drained_node_stays_drained_until_it_starts_again() -> None:
    world = World()
    world.cluster("a", "b", "c")
    world.drain("a")
    world.run_until_quiet()
    node = world.kill("a")
    world.join("a", address=node.address)
    world.run_until_quiet()
    assert world.state.members[NodeId("a")].condition == "draining"
    assert "a" not in world.primaries()
    world.kill("a")
    world.join("a", 2)
    world.run_until_quiet()
    assert world.primaries()["a"] > 1300


def test_a_node_that_left_is_no_longer_a_member_at_once() -> None:
    world = World()
    world.cluster("a", "b", "c")
    world.leave("a", request=0)
    world.run_until_quiet()
    assert "a" in world.state.members
    world.kill("a")
    world.run(0.1)
    assert "a" not in world.state.members


def test_the_status_tells_what_is_going_on() -> None:
    world = World(starts=False)
    assert world.core.status().phase == "idle"
    assert world.core.note == "the coordinator is still reading its store"
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    world.join("a")
    world.run(1.2)
    world.nodes["a"].is_obedient = False
    world.join("b")
    world.run(1.5)
    status = world.core.status()
    assert (status.phase, status.connected, status.settled) == ("active", ("a", "b"), ("a", "b"))
    assert status.version == world.state.version
    assert status.learning == 256


def test_a_dead_node_fails_also_where_the_others_send_their_heartbeats_together_and_the_lease_is_short() -> (
    None
):
    """A member lease may be as short as one and a half heartbeats; then all nodes are silent for most of it."""
    timing = Timing(
        coordinator_lease_ns=5 * NS_PER_S, stabilization_ns=NS_PER_S // 3, member_lease_ns=3 * NS_PER_S // 2
    )
    world = World(timing=timing)
    world.cluster("a", "b", "c")
    world.kill("b")
    world.run(10)
    assert sorted(world.state.members) == ["a", "c"]
