"""A coordinator's service to clients, and its answers to connections that begin wrongly."""

from __future__ import annotations

import pytest

from lockring.cluster_state import decode_state
from lockring.core.access import NOTHING, Limits, Newcomer
from lockring.core.coordinator.clients import REPORT_NS
from lockring.ids import NO_REQUEST, NodeId
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    EventsReply,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    Heartbeat,
    Join,
    List,
    Message,
    OnBehalfOf,
    PeerHello,
    Probe,
    ProbeReply,
    Refusal,
    Replicate,
    Routes,
    StateReply,
    StatusReply,
    TroubleNotice,
    Undrain,
    Welcome,
)
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import World
from tests.unit.core.grantees import grantee

JOIN = Join(PROTOCOL, "", "n", 1, "n:9501", 1, 0)


def answers(world: World, connection: int) -> list[Message]:
    return [message for to, message in world.sent if to == connection]


def troubles(world: World, connection: int) -> list[TroubleNotice]:
    return [message for message in answers(world, connection) if isinstance(message, TroubleNotice)]


def refused(world: World, connection: int) -> str:
    """The code with which a connection was refused and ended."""
    assert connection in world.closed
    refusal = answers(world, connection)[-1]
    assert isinstance(refusal, Refusal)
    return refusal.code


def test_a_client_is_welcomed_and_gets_the_routes() -> None:
    world = World()
    world.cluster("a", "b")
    client = world.client()
    welcome, routes = answers(world, client)
    assert isinstance(welcome, Welcome)
    assert (welcome.role, welcome.cluster, welcome.node) == ("coordinator", world.state.cluster, "")
    assert isinstance(routes, Routes)
    assert len(routes.members) == 2
    assert world.admitted[client] is False


def test_a_client_that_came_before_the_cluster_had_an_id_has_to_come_back_for_it() -> None:
    world = World(starts=False)
    client = world.client()
    assert [type(each) for each in answers(world, client)] == [Welcome, TroubleNotice]
    world.core.start(now_ns=world.read_clocks())
    world.settle()
    assert client in world.closed


def test_clients_hear_of_routes_only_when_these_differ() -> None:
    world = World()
    world.cluster("a")
    client = world.client()
    world.cluster("b")
    count = len(world.published)
    assert count > 2
    versions = [each.version for each in answers(world, client) if isinstance(each, Routes)]
    assert 1 < len(versions) < count
    assert versions == sorted(set(versions))


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (ClientHello(PROTOCOL + 1, "", "one", 1), "protocol"),
        (ClientHello(PROTOCOL, "some other cluster", "one", 1), "wrong-cluster"),
        (PeerHello(PROTOCOL, "", "n", 1, "coordinator", 1), "wrong-role"),
        (Heartbeat(1, 1), "protocol"),
        (GetState(1), "protocol"),
        (List(1, ""), "protocol"),
    ],
)
def test_a_connection_that_begins_wrongly_learns_why_and_is_ended(hello: Message, code: str) -> None:
    world = World()
    world.cluster("a", "b")
    connection = world.connection()
    world.receive(connection, hello)
    world.settle()
    assert refused(world, connection) == code
    assert connection not in world.admitted


@pytest.mark.parametrize("message", [Heartbeat(1, 1), JOIN], ids=["heartbeat", "join"])
def test_a_client_may_not_speak_as_a_node(message: Message) -> None:
    world = World()
    world.cluster("a", "b")
    client = world.client()
    world.receive(client, message)
    world.run(2)
    assert refused(world, client) == "wrong-role"
    assert set(world.state.members) == {"a", "b"}


def test_a_node_may_not_send_what_only_copies_take() -> None:
    world = World()
    world.cluster("a", "b")
    node = world.nodes["a"].connection
    world.receive(node, Replicate(1, 1, True, []))
    world.settle()
    assert refused(world, node) == "wrong-role"


@pytest.mark.parametrize(
    "late", [ClientHello(PROTOCOL, "", "one", 2), JOIN, GetState(1)], ids=["hello", "join", "question"]
)
@pytest.mark.parametrize(
    "hello", [ClientHello(PROTOCOL, "", "one", 1), JOIN, None], ids=["client", "node", "stranger"]
)
def test_messages_behind_a_refused_one_are_ignored(hello: Message | None, late: Message) -> None:
    """They may be in the same write, and then they arrive although the connection is being closed."""
    world = World()
    world.cluster("a", "b")
    connection = world.connection()
    if hello is not None:
        world.receive(connection, hello)
        world.settle()
    world.receive(connection, Replicate(1, 1, True, []))
    world.receive(connection, late)
    world.settle()
    refused(world, connection)
    count = len(answers(world, connection))
    world.receive(connection, late)
    world.settle()
    assert len(answers(world, connection)) == count


def test_a_client_that_is_refused_gets_nothing_more() -> None:
    world = World()
    world.cluster("a")
    client = world.client()
    world.receive(client, Heartbeat(1, 1))
    world.settle()
    count = len(answers(world, client))
    world.cluster("b")
    assert len(answers(world, client)) == count


def test_the_state_and_the_status_are_answered_at_any_time() -> None:
    world = World(starts=False)
    client = world.client()
    world.receive(client, GetState(5))
    world.receive(client, GetStatus(6))
    world.settle()
    *_, state, status = answers(world, client)
    assert isinstance(state, StateReply)
    assert (state.request, state.note) == (5, "the coordinator is still reading its store")
    assert decode_state(state.state).version == 0
    assert isinstance(status, StatusReply)
    assert (status.request, status.status.role, status.status.note) == (6, "coordinator", state.note)


def test_clients_learn_once_a_second_at_most_what_slots_wait_for() -> None:
    world = World(new_cluster=False)
    client = world.client()
    world.join("a")
    world.run(0.9)
    assert len(troubles(world, client)) == 1
    world.run(0.3)
    trouble = troubles(world, client)[-1]
    assert trouble.reason == "leases"
    assert 29_000 < trouble.left_ms < 31_600
    assert any("slots are not served" in each for each in world.notes)
    world.run(35)
    assert troubles(world, client)[-1] == TroubleNotice("")


def test_a_client_that_comes_late_learns_what_slots_wait_for_at_that_moment() -> None:
    world = World(new_cluster=False)
    world.join("a")
    (first,) = troubles(world, world.client())
    assert first.reason == "leases"
    world.run(26)
    (late,) = troubles(world, world.client())
    assert (late.reason, late.text) == (first.reason, first.text)
    assert late.left_ms == world.core.left_ms(world.now_ns) < first.left_ms - 20_000


def test_two_reports_are_never_less_than_a_second_apart() -> None:
    world = World()
    client = world.client()
    assert len(troubles(world, client)) == 1, "the state of things, with the welcome"
    times: list[int] = []
    for step in range(300):
        if step == 110:  # until then, no node has joined
            world.join("a")
        world.run(0.01)
        if len(troubles(world, client)) > 1 + len(times):
            times.append(world.now_ns)
    assert len(times) == 2
    assert times[1] - times[0] >= REPORT_NS


def test_clients_have_to_come_back_when_the_cluster_gets_its_former_id_back() -> None:
    world = World(starts=True)
    client = world.client()
    connection = world.connection()
    world.receive(
        connection, Join(PROTOCOL, "the right id", "a", 1, "a:9501", 1, world.state.version + NS_PER_S)
    )
    world.run(1)
    assert world.state.cluster == "the right id"
    assert client in world.closed
    assert connection not in world.closed


ASKED = (GetState(5), GetStatus(5), GetEvents(5), Drain(5, NodeId("a")), Undrain(5, NodeId("a")))


@pytest.mark.parametrize("message", ASKED, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("is_enforced", [True, False], ids=["enforced", "tried out"])
def test_a_client_without_the_right_is_refused_and_keeps_its_connection(
    message: Message, is_enforced: bool
) -> None:
    world = World()
    world.cluster("a", "b")
    access = grantee("web-1", "acquire *", is_enforced=is_enforced)
    client = world.client(newcomer=Newcomer(access))
    world.receive(client, message)
    world.run(2)
    right = "drain" if isinstance(message, (Drain, Undrain)) else "read"
    refusals = [each for each in answers(world, client) if isinstance(each, Refusal)]
    assert [(each.request, each.code, each.right) for each in refusals] == (
        [(5, "denied", right)] if is_enforced else []
    )
    assert client not in world.closed
    (entry,) = world.audited
    assert (entry.outcome, entry.right) == ("refused" if is_enforced else "would-refuse", right)
    assert (world.state.members[NodeId("a")].condition == "draining") == (
        isinstance(message, Drain) and not is_enforced
    )


@pytest.mark.parametrize("request_", [NO_REQUEST, 7], ids=["without a number", "with one"])
def test_a_question_for_routes_that_is_denied_is_refused_by_its_number_or_not_at_all(request_: int) -> None:
    """A refusal without a number is one of the connection, which a client would close."""
    world = World()
    world.cluster("a", "b")
    access = grantee("web-1", "acquire *")
    client = world.client(newcomer=Newcomer(access))
    access.permissions = NOTHING
    world.receive(client, GetRoutes(0, request_))
    world.run(1)
    refusals = [each for each in answers(world, client) if isinstance(each, Refusal)]
    assert [(each.request, each.code, each.right) for each in refusals] == (
        [(7, "denied", "")] if request_ else []
    )
    assert client not in world.closed
    assert [each.outcome for each in world.audited] == ["refused"]


@pytest.mark.parametrize("message", ASKED, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("is_enforced", [True, False], ids=["enforced", "tried out"])
def test_a_client_that_asks_too_often_hears_when_to_come_again(message: Message, is_enforced: bool) -> None:
    world = World()
    world.cluster("a", "b")
    access = grantee("web-1", "admin", limits=Limits(requests_per_s=2), is_enforced=is_enforced)
    client = world.client(newcomer=Newcomer(access))
    for _ in range(2):
        world.receive(client, GetStatus(4))
    world.receive(client, message)
    world.settle()
    refusals = [each for each in answers(world, client) if isinstance(each, Refusal)]
    assert [(each.request, each.code) for each in refusals] == ([(5, "overloaded")] if is_enforced else [])
    assert all(0 < each.retry_after_ms <= 501 for each in refusals)


def test_a_client_that_asks_too_often_still_finds_its_way() -> None:
    world = World()
    world.cluster("a", "b")
    client = world.client(newcomer=Newcomer(grantee("web-1", "admin", limits=Limits(requests_per_s=1))))
    before = len(answers(world, client))
    for _ in range(5):
        world.receive(client, GetRoutes(0, 5))
        world.receive(client, Probe(6))
    world.settle()
    assert [type(each) for each in answers(world, client)[before:]] == [Routes, ProbeReply] * 5


def test_a_coordinator_does_not_promise_to_take_requests_for_others() -> None:
    world = World()
    world.cluster("a")
    client = world.client()
    welcome = answers(world, client)[0]
    assert isinstance(welcome, Welcome)
    assert not welcome.identities
    world.receive(client, OnBehalfOf(Identity("token", "web-1")))
    world.settle()
    assert refused(world, client) == "wrong-role"


@pytest.mark.parametrize("message", ASKED, ids=lambda each: type(each).__name__)
def test_a_client_with_the_right_is_answered(message: Message) -> None:
    world = World()
    world.cluster("a", "b")
    client = world.client(newcomer=Newcomer(grantee("web-1", "read *", "drain a")))
    world.receive(client, message)
    world.run(2)
    assert not any(isinstance(each, Refusal) for each in answers(world, client))
    assert world.audited == []


def test_a_ping_needs_no_right_and_has_a_short_answer() -> None:
    world = World()
    world.cluster("a", "b")
    client = world.client(newcomer=Newcomer(grantee("web-1", "acquire x")))
    world.receive(client, Probe(5))
    world.settle()
    assert answers(world, client)[-1] == ProbeReply(5)
    assert world.audited == []


def test_a_client_is_told_what_a_coordinator_understands() -> None:
    world = World()
    (welcome, *_) = answers(world, world.client())
    assert isinstance(welcome, Welcome)
    assert welcome.probes


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("identities", [True, False])
def test_a_node_that_knows_no_identities_is_warned_of_where_rights_are_checked(
    checks: bool, identities: bool
) -> None:
    world = World(grantee_of=(lambda identity: grantee(identity.name)) if checks else None)
    node = world.join("a", identities=identities)
    assert isinstance(node.inbox[0], Welcome)
    is_warned = any(
        "node a runs a version of lockring that knows no identities" in each for each in world.notes
    )
    assert is_warned == (checks and not identities)
    assert ("node-without-identities" in world.events) == is_warned


def test_routes_need_no_right_and_are_sent_to_every_client() -> None:
    world = World()
    world.cluster("a")
    client = world.client(newcomer=Newcomer(grantee("web-1", "acquire x")))
    world.receive(client, GetRoutes(0))
    world.settle()
    assert [type(each) for each in answers(world, client)].count(Routes) == 2


def test_a_coordinator_remembers_its_members_and_refuses_a_question_for_too_much() -> None:
    world = World()
    world.cluster("a", "b")
    world.drain("a")
    world.run(2)
    client = world.client()
    world.receive(client, GetEvents(5))
    world.receive(client, GetEvents(6, limit=0))
    world.settle()
    reply, refusal = answers(world, client)[-2:]
    assert isinstance(reply, EventsReply)
    found = [(each.kind, each.node or each.source) for each in reply.events]
    assert found[0] == ("leading", world.state.coordinator)
    assert [each for each in found if each[0] in ("joined", "draining")] == [
        ("joined", "a"),
        ("joined", "b"),
        ("draining", "a"),
    ]
    assert {each.kind for each in reply.events if each.slots} == {"assigned", "moved"}
    assert isinstance(refusal, Refusal)
    assert (refusal.request, refusal.code) == (6, "invalid")
