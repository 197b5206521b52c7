"""Servers that ask for their own clients: the identity that is named counts, with the rights that it has here."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.access import NOTHING, Grantee, Quota
from lockring.core.node import askers
from lockring.ids import NodeId
from lockring.protocol import (
    Describe,
    DescribeReply,
    Drain,
    GrantReply,
    Message,
    OnBehalfOf,
    Refusal,
    ReleaseReply,
    Watch,
    WatchNotice,
)
from lockring.protocol.identities import Identity
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes

ONE, TWO = Identity("token", "one"), Identity("token", "two")


class Rights:
    """The rights that identities have at the node."""

    def __init__(self) -> None:
        self.rules: dict[str, tuple[str, ...]] = {
            "one": ("acquire x", "read *"),
            "two": ("acquire y", "watch *"),
        }
        self.given: dict[str, Grantee] = {}
        self.asked: list[str] = []

    def __call__(self, identity: Identity) -> Grantee:
        self.asked.append(identity.name)
        given = self.given[identity.name] = grantee(identity.name, *self.rules.get(identity.name, ()))
        if identity.name not in self.rules:
            given.permissions = NOTHING
        return given


@pytest.fixture
def rights() -> Rights:
    return Rights()


@pytest.fixture
def nodes(rights: Rights) -> Nodes:
    nodes = Nodes("A", grantee_of=rights)
    nodes.assign("A", None, "x", "y")
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def server(nodes: Nodes, *, is_enforced: bool = True) -> Client:
    """The connection of another server."""
    me = Identity("node", "B")
    return nodes.client("A", "s", access=Grantee(me, NOTHING, Quota(str(me)), is_enforced=is_enforced))


def only(answers: list[Message], kind: type[Message] = Refusal) -> Any:
    (answer,) = answers
    assert isinstance(answer, kind), answer
    return answer


def test_a_server_may_nothing_for_itself(nodes: Nodes) -> None:
    assert "node B may not acquire 'x'" in only(server(nodes).acquire("x", 1)).text


def test_requests_are_judged_by_the_rights_of_the_identity_that_was_announced_last(nodes: Nodes) -> None:
    forward = server(nodes)
    assert forward.ask(OnBehalfOf(ONE)) == []
    only(forward.acquire("x", 1), GrantReply)
    assert "token one may not acquire 'y'" in only(forward.acquire("y", 2)).text
    forward.ask(OnBehalfOf(TWO))
    forward.session = "t"
    only(forward.acquire("y", 1), GrantReply)
    assert "token two may not acquire 'x'" in only(forward.acquire("x", 2)).text
    assert [each.is_forwarded for each in nodes.audited] == [True, True]


def test_sessions_belong_to_the_identity_and_not_to_the_server(nodes: Nodes) -> None:
    forward = server(nodes)
    forward.ask(OnBehalfOf(ONE))
    forward.acquire("x", 1)
    forward.ask(OnBehalfOf(TWO))
    assert not only(forward.release("x", 1), ReleaseReply).dropped
    itself = nodes.client("A", "s", client="itself", access=grantee("one", "acquire x"))
    assert only(itself.release("x", 1), ReleaseReply).dropped


def test_an_identity_is_looked_up_once_for_many_announcements(nodes: Nodes, rights: Rights) -> None:
    forward = server(nodes)
    for identity in (ONE, TWO, ONE, TWO, ONE):
        forward.ask(OnBehalfOf(identity))
    assert rights.asked == ["one", "two"]


def test_the_rights_of_many_identities_are_kept_up_to_a_bound(
    nodes: Nodes, rights: Rights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(askers, "ASKERS_MAX", 2)
    forward = server(nodes)
    for name in ("one", "two", "three", "two", "one"):
        forward.ask(OnBehalfOf(Identity("token", name)))
    assert rights.asked == ["one", "two", "three", "one"]


def test_an_identity_that_the_node_does_not_know_may_do_nothing(nodes: Nodes) -> None:
    forward = server(nodes)
    forward.ask(OnBehalfOf(Identity("token", "stranger")))
    assert "token stranger may not acquire 'x': it has no role" in only(forward.acquire("x", 1)).text
    assert only(forward.release("x", 1)).code == "denied"


@pytest.mark.parametrize("access", [grantee("one", "admin"), grantee("one")], ids=["admin", "nothing"])
def test_a_client_that_asks_for_others_loses_its_connection(nodes: Nodes, access: Grantee) -> None:
    client = nodes.client("A", "s", access=access)
    client.ask(OnBehalfOf(TWO))
    assert "token one may not ask for token two: only a server" in client.closed
    assert client.acquire("y", 1) == []
    (entry,) = nodes.audited
    assert (entry.identity, entry.outcome, entry.name) == (ONE, "refused", "token two")


def test_where_rights_are_tried_out_anyone_may_ask_for_others_and_is_reported(nodes: Nodes) -> None:
    client = nodes.client("A", "s", access=grantee("one", is_enforced=False))
    client.ask(OnBehalfOf(TWO))
    only(client.acquire("y", 1), GrantReply)
    assert [each.outcome for each in nodes.audited] == ["would-refuse"]


def test_a_node_that_checks_nothing_hears_it_and_goes_on() -> None:
    nodes = Nodes("A")
    nodes.assign("A", None, "x")
    nodes.advance(500 * MS)
    client = nodes.client("A", "s")
    assert client.ask(OnBehalfOf(TWO)) == []
    only(client.acquire("x", 1), GrantReply)
    assert not nodes.cores["A"].sessions.by_id["s"].identity  # type: ignore[index]


def test_a_request_that_waits_for_its_slot_keeps_its_identity(nodes: Nodes) -> None:
    forward = server(nodes)
    forward.ask(OnBehalfOf(ONE))
    assert forward.ask(Describe(5, "z")) == []
    forward.ask(OnBehalfOf(TWO))  # who may not read
    nodes.assign("A", None, "z")
    nodes.advance(500 * MS)
    assert isinstance(forward.inbox[-1], DescribeReply)
    assert only(forward.ask(Describe(6, "x"))).right == "read"


def test_a_watch_is_the_identitys_that_has_begun_it(nodes: Nodes, rights: Rights) -> None:
    forward = server(nodes)
    forward.ask(OnBehalfOf(TWO))
    only(forward.ask(Watch(5, "x")), WatchNotice)
    forward.ask(OnBehalfOf(ONE))
    seen = len(forward.inbox)
    forward.acquire("x", 1)
    news = [each for each in forward.inbox[seen:] if isinstance(each, WatchNotice)]
    assert [each.lock.holders[0].session != "s" for each in news] == [True]
    rights.given["two"].permissions = NOTHING
    seen = len(forward.inbox)
    forward.release("x", 1)
    assert [each.right for each in forward.inbox[seen:] if isinstance(each, Refusal)] == ["watch"]


def test_a_drain_names_the_operator_to_the_coordinator(nodes: Nodes, rights: Rights) -> None:
    rights.rules["op"] = ("drain *",)
    forward, client = server(nodes), nodes.client("A", "t", access=grantee("op", "drain A"))
    op = Identity("token", "op")
    forward.ask(OnBehalfOf(op))
    forward.ask(Drain(5, NodeId("A"), asker=ONE))  # what the message says counts for nothing
    client.ask(Drain(6, NodeId("A"), asker=ONE))
    nodes.client("A", "u").ask(Drain(7, NodeId("A"), asker=ONE))
    orders = [each for each in nodes.asked_of_coordinator if isinstance(each, Drain)]
    assert [each.asker for each in orders] == [op, op, None]
