"""Drains by the one who asks, however the request came: an operator, or the node itself; and their end."""

from __future__ import annotations

import pytest

from lockring.core.access import Grantee, Newcomer
from lockring.ids import NodeId
from lockring.protocol import Drain, DrainReply, Leave, Message, Refusal, Undrain, UndrainReply
from lockring.protocol.identities import Identity
from tests.unit.core.coordinator.world import World
from tests.unit.core.grantees import grantee


def refused(answer: Message) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


def conditions(world: World) -> dict[str, str]:
    return {node: member.condition for node, member in world.state.members.items()}


# --------------------------------------------------------------------------- the last one


@pytest.mark.parametrize(
    "by", ["an operator", "the node itself, passing it on", "another node, passing it on"]
)
def test_an_operators_drain_of_the_last_node_is_refused_whichever_way_it_came(by: str) -> None:
    world = World()
    world.cluster("a", "b")
    world.drain("b")
    world.run_until_quiet()
    ways = {
        "an operator": None,
        "the node itself, passing it on": world.nodes["a"].connection,
        "another node, passing it on": world.nodes["b"].connection,
    }
    answer = refused(world.drain("a", by=ways[by]))
    assert (answer.code, answer.name) == ("last-node", "a")
    assert "b is draining" in answer.text
    assert "lockring undrain b" in answer.text
    world.run(3)
    assert world.primaries() == {"a": 4096}


def test_the_only_node_is_not_drained_and_the_answer_says_what_to_do() -> None:
    world = World()
    world.cluster("a")
    answer = refused(world.drain("a", by=world.nodes["a"].connection))
    assert answer.code == "last-node"
    assert "let another node join first" in answer.text
    assert conditions(world) == {"a": "active"}


def test_of_two_drains_that_come_at_once_one_is_refused() -> None:
    world = World()
    world.cluster("a", "b")
    first, second = world.client(), world.client()
    world.receive(first, Drain(1, "a"))
    world.receive(second, Drain(2, "b"))
    world.settle()
    assert (first, DrainReply(1, "a")) in world.sent
    assert [m.code for c, m in world.sent if c == second and isinstance(m, Refusal)] == ["last-node"]


def test_a_drain_is_refused_if_the_other_node_leaves_before_it_is_in_force() -> None:
    world = World()
    world.cluster("a", "b")
    operator = world.client()
    world.receive(operator, Drain(1, "a"))
    world.receive(world.nodes["b"].connection, Leave(1))
    world.settle()
    assert [m.code for c, m in world.sent if c == operator and isinstance(m, Refusal)] == ["last-node"]
    assert conditions(world) == {"a": "active", "b": "draining"}


def test_a_dead_node_that_was_the_last_one_is_not_said_to_serve() -> None:
    world = World()
    world.cluster("a")
    world.kill("a")
    answer = refused(world.drain("a"))
    assert (answer.code, answer.text) == (
        "last-node",
        "node a has failed, and no other node could take its slots; let another node join first",
    )


def test_a_node_whose_fellows_have_all_failed_is_the_last_one() -> None:
    world = World()
    world.cluster("a", "b")
    world.silence("b")
    world.run(5.5)
    answer = refused(world.drain("a", by=world.nodes["a"].connection))
    assert (answer.code, "b failed" in answer.text) == ("last-node", True)


def test_a_node_that_does_not_answer_can_be_drained_while_another_one_serves() -> None:
    world = World()
    world.cluster("a", "b")
    world.silence("b")
    world.run(5.5)
    assert world.drain("b", request=1) == DrainReply(1, "b")
    assert world.drain("b", request=2) == DrainReply(2, "b"), "and again, which changes nothing"
    world.run_until_quiet()
    assert world.primaries() == {"a": 4096}
    assert "b" not in world.state.members


def test_nothing_is_moved_to_a_node_that_has_just_ended() -> None:
    world = World()
    world.cluster("a", "b")
    world.kill("b")
    answer = refused(world.drain("a"))
    assert (answer.code, "no other node is connected" in answer.text) == ("unavailable", True)
    world.leave("a")
    world.run(2)
    assert world.primaries() != {"b": 4096}
    world.join("b", 2)
    world.run_until_quiet()
    assert world.primaries() == {"b": 4096}


def test_no_node_is_drained_before_another_one_is_in_touch_with_a_coordinator_that_has_just_started() -> None:
    world = World()
    world.cluster("a", "b")
    state = world.stored
    again = World(starts=False, term="again")
    again.stored = state
    again.core.start(now_ns=again.read_clocks())
    again.settle()
    again.join("a")
    answer = refused(again.drain("a"))
    assert answer.code == "unavailable"
    again.join("b")
    assert again.drain("a") == DrainReply(7, "a")


# --------------------------------------------------------------------------- the node itself


def test_the_last_node_may_leave_by_itself_and_its_slots_are_let_go() -> None:
    world = World()
    world.cluster("a")
    assert world.leave("a") == DrainReply(7, "a")
    world.run(1)
    assert world.primaries() == {"-": 4096}


def test_a_node_leaves_as_the_last_one_once_those_beside_it_are_gone_for_good() -> None:
    world = World()
    world.cluster("a", "b")
    world.kill("b")
    assert world.leave("a") == DrainReply(7, "a")
    world.run(2)
    assert "-" not in world.primaries(), "the other one may be back in a moment"
    world.run(6)
    assert world.primaries() == {"-": 4096}


def test_a_node_that_comes_back_in_time_takes_over_from_one_that_leaves() -> None:
    world = World()
    world.cluster("a", "b")
    world.kill("b")
    world.leave("a")
    world.run(2)
    world.join("b", 2)
    world.run_until_quiet()
    assert world.primaries() == {"b": 4096}


def test_a_node_that_has_not_joined_leaves_nothing() -> None:
    world = World()
    world.cluster("a")
    stranger = world.connection()
    world.receive(stranger, Leave(5))
    world.settle()
    assert [m.code for c, m in world.sent if c == stranger and isinstance(m, Refusal)] == ["protocol"]
    assert conditions(world) == {"a": "active"}


# --------------------------------------------------------------------------- undrain


@pytest.mark.parametrize("drained", [True, False], ids=["drained", "draining"])
def test_an_undrained_node_has_slots_again(drained: bool) -> None:
    world = World()
    world.cluster("a", "b", "c")
    world.drain("a")
    if drained:
        world.run_until_quiet()
        assert "a" not in world.primaries()
    assert world.undrain("a", by=world.nodes["b"].connection) == UndrainReply(7, "a")
    world.run_until_quiet()
    assert world.primaries()["a"] > 1300
    assert set(conditions(world).values()) == {"active"}


def test_an_undrain_of_a_node_that_is_not_drained_changes_nothing() -> None:
    world = World()
    world.cluster("a", "b")
    before = world.state
    assert world.undrain("a") == UndrainReply(7, "a")
    assert world.state is before


def test_a_drain_and_its_end_that_come_at_once_are_both_answered_and_the_later_one_counts() -> None:
    world = World()
    world.cluster("a", "b")
    first, second = world.client(), world.client()
    world.receive(first, Drain(1, "a"))
    world.receive(second, Undrain(2, "a"))
    world.settle()
    assert (first, DrainReply(1, "a")) in world.sent
    assert (second, UndrainReply(2, "a")) in world.sent
    world.run_until_quiet()
    assert conditions(world)["a"] == "active"


def test_a_node_that_leaves_by_itself_is_not_made_active_again() -> None:
    world = World()
    world.cluster("a", "b", "c")
    world.leave("a")
    answer = refused(world.undrain("a"))
    assert (answer.code, answer.name) == ("node-leaving", "a")
    assert "start it again" in answer.text
    world.run_until_quiet()
    assert "a" not in world.primaries()


def test_an_undrain_waits_for_a_node_that_has_not_come_back_since_the_coordinator_started() -> None:
    world = World()
    world.cluster("a", "b")
    world.leave("a")
    again = World(starts=False, term="again")
    again.stored = world.stored
    again.core.start(now_ns=again.read_clocks())
    again.settle()
    assert refused(again.undrain("a")).code == "unavailable"
    again.join("a")
    again.leave("a")
    assert refused(again.undrain("a")).code == "node-leaving"


def test_an_unknown_node_is_not_undrained() -> None:
    world = World()
    world.cluster("a")
    assert refused(world.undrain("ghost")).code == "unknown-node"


def test_the_second_of_two_nodes_is_drained_once_the_first_is_active_again() -> None:
    world = World()
    world.cluster("a", "b")
    world.drain("a")
    world.run_until_quiet()
    assert refused(world.drain("b")).code == "last-node"
    world.undrain("a")
    world.run_until_quiet()
    assert world.drain("b") == DrainReply(7, "b")
    world.run_until_quiet()
    assert world.primaries() == {"a": 4096}


def test_a_drained_node_without_a_substitute_is_reported() -> None:
    world = World()
    world.cluster("a", "b")
    world.drain("a")
    world.run_until_quiet()
    world.kill("b")
    world.run(8)
    assert "lockring undrain a" in world.core.note
    world.undrain("a")
    world.run(40)
    assert world.primaries() == {"a": 4096}
    assert world.core.note == ""


def test_absent_members_are_in_the_status() -> None:
    world = World()
    world.cluster("a", "b")
    assert world.core.status(now_ns=world.now_ns).absent == ()
    world.kill("b")
    status = world.core.status(now_ns=world.now_ns)
    assert status.absent == ("b",), "its connection has ended, so its slots are not counted as served"
    heard = dict(status.heard)
    assert 0 <= heard[NodeId("a")] <= 1_000
    assert 0 <= heard[NodeId("b")] <= 1_000


# --------------------------------------------------------------------------- for whom a node asks

OP, OTHER = Identity("token", "op"), Identity("token", "other")


def rights(identity: Identity) -> Grantee:
    return grantee(identity.name, *({"op": ("drain a",)}.get(identity.name, ())))


@pytest.mark.parametrize(
    ("asker", "node", "is_allowed"),
    [(OP, "a", True), (OP, "b", False), (OTHER, "a", False), (None, "a", False)],
)
def test_a_node_that_passes_an_order_on_is_asked_for_whom(
    asker: Identity | None, node: str, is_allowed: bool
) -> None:
    world = World(grantee_of=rights)
    world.cluster("a", "b", "c")
    sender = world.nodes["b"]
    for order in (Drain(7, NodeId(node), asker), Undrain(8, NodeId(node), asker)):
        world.receive(sender.connection, order)
        world.run(2)
        (answer,) = [each for each in sender.inbox if getattr(each, "request", 0) == order.request]
        assert isinstance(answer, (DrainReply, UndrainReply)) == is_allowed
        if not is_allowed:
            assert (refused(answer).code, refused(answer).right) == ("denied", "drain")
    assert [each.is_forwarded for each in world.audited] == ([] if is_allowed else [True, True])


def test_a_nodes_own_wish_to_leave_needs_no_right() -> None:
    world = World(grantee_of=rights)
    world.cluster("a", "b")
    assert isinstance(world.leave("a"), DrainReply)


def test_where_rights_are_tried_out_an_order_of_any_identity_is_carried_out_and_reported() -> None:
    world = World(grantee_of=lambda identity: grantee(identity.name, is_enforced=False))
    world.cluster("a", "b")
    assert isinstance(world.drain("a", by=world.nodes["b"].connection), DrainReply)
    assert [each.outcome for each in world.audited] == ["would-refuse"]


def test_orders_and_their_outcome_are_audited() -> None:
    world = World(audits=True, grantee_of=rights)
    world.cluster("a", "b")
    operator = world.client(newcomer=Newcomer(grantee("op", "drain *")))
    world.drain("a", by=operator)
    world.undrain("a", by=operator)
    world.drain("nowhere", by=operator)
    world.receive(world.client(), Undrain(9, NodeId("a"), OP))
    world.receive(world.nodes["b"].connection, Drain(9, NodeId("a"), OP))
    world.leave("b")
    world.run(1)
    assert [
        (each.act, each.outcome, each.identity and each.identity.name, each.is_forwarded, each.name)
        for each in world.audited
    ] == [
        ("drain", "ok", "op", False, "a"),
        ("undrain", "ok", "op", False, "a"),
        ("drain", "failed", "op", False, "nowhere"),
        ("undrain", "ok", None, False, "a"),
        ("drain", "ok", "op", True, "a"),
        ("leave", "ok", "b", False, "b"),
    ]
