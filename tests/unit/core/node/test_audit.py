"""The acts that a node reports for the audit log."""

from __future__ import annotations

import pytest

from lockring.core.access import NOTHING, Grantee, Quota
from lockring.core.effects import AuditEntry
from lockring.ids import LockName, SessionId
from lockring.protocol import (
    Break,
    CloseSession,
    GrantReply,
    Keepalive,
    Message,
    OnBehalfOf,
    Release,
    SlotList,
    Watch,
)
from lockring.protocol.identities import Identity
from lockring.slots import slot_of
from lockring.units import NS_PER_S
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes


def served(*, audits: bool = True) -> Nodes:
    nodes = Nodes("A", audits=audits)
    nodes.assign("A")
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def acts(nodes: Nodes) -> list[tuple[str, str, str, str]]:
    """Act, identity, name and reason of each entry, which are then forgotten."""
    found, nodes.audited[:] = list(nodes.audited), []
    return [
        (each.act, "" if each.identity is None else each.identity.name, each.name, each.reason)
        for each in found
    ]


def web(nodes: Nodes, session: str = "s") -> Client:
    return nodes.client("A", session, access=grantee("web-1", "acquire *", "break *"))


def test_a_grant_and_a_release_name_the_identity_the_token_and_the_rule() -> None:
    nodes = served()
    client = web(nodes)
    (grant,) = client.acquire("x", 1)
    assert isinstance(grant, GrantReply)
    (entry,) = nodes.audited
    assert entry == AuditEntry(
        "acquire",
        "ok",
        connection=client.connection,  # type: ignore[arg-type]
        identity=grantee("web-1").identity,
        name="x",
        fencing_token=grant.generation,
        right="acquire",
        rule="acquire *",
    )
    nodes.audited.clear()
    client.release("x", 1)
    (entry,) = nodes.audited
    assert (entry.act, entry.name, entry.fencing_token, entry.reason) == (
        "release",
        "x",
        grant.generation,
        "",
    )


def test_a_wait_is_audited_once_it_is_granted() -> None:
    nodes = served()
    holder, waiter = web(nodes), web(nodes, "t")
    holder.acquire("x", 1)
    acts(nodes)
    waiter.acquire("x", 1)
    assert acts(nodes) == []
    holder.release("x", 1)
    assert acts(nodes) == [("release", "web-1", "x", ""), ("acquire", "web-1", "x", "")]


def test_a_lock_whose_lease_runs_out_is_audited_as_lost() -> None:
    nodes = served()
    web(nodes).acquire("x", 1)
    acts(nodes)
    nodes.advance(60 * NS_PER_S)
    assert acts(nodes) == [("lost", "web-1", "x", "expired")]


def test_a_broken_lease_is_audited_and_so_is_the_loss() -> None:
    nodes = served()
    (grant,) = web(nodes).acquire("x", 1)
    assert isinstance(grant, GrantReply)
    acts(nodes)
    operator = nodes.client("A", "op", access=grantee("op", "break x"))
    operator.ask(Break(5, "x", grant.generation, force=True))
    assert [(each.act, each.right, each.rule) for each in nodes.audited] == [
        ("break", "break", "break x"),
        ("lost", "", ""),
    ]
    assert acts(nodes) == [("break", "op", "x", ""), ("lost", "web-1", "x", "broken")]


def test_an_acquire_that_is_repeated_is_no_new_grant() -> None:
    nodes = served()
    client = web(nodes)
    client.acquire("x", 1)
    acts(nodes)
    (answer,) = client.acquire("x", 1)
    assert isinstance(answer, GrantReply)
    again = nodes.client("A", "s", client="again", access=grantee("web-1", "acquire *"))
    assert isinstance(again.acquire("x", 1)[0], GrantReply)
    assert acts(nodes) == []


def test_a_grant_whose_client_has_gone_is_audited_once() -> None:
    nodes = served()
    holder, waiter = web(nodes), web(nodes, "t")
    holder.acquire("x", 1)
    waiter.acquire("x", 1)
    acts(nodes)
    core = nodes.cores["A"]
    core.receive(holder.connection, Release(9, SessionId("s"), 1, LockName("x")), now_ns=nodes.now)
    core.disconnected(waiter.connection, now_ns=nodes.now)
    nodes.settle()
    assert acts(nodes) == [("release", "web-1", "x", ""), ("acquire", "web-1", "x", "")]
    again = nodes.client("A", "t", client="again", access=grantee("web-1", "acquire *"))
    assert isinstance(again.acquire("x", 1)[0], GrantReply)
    assert acts(nodes) == []


def test_a_grant_of_a_former_primary_is_audited_as_that() -> None:
    nodes = Nodes("A", "B", audits=True)
    nodes.assign("A", "B")
    for _ in range(20):
        nodes.advance(200 * MS)
    web(nodes).acquire("x", 1)
    nodes.advance(500 * MS)
    nodes.crash("A")
    nodes.promote("B")
    nodes.advance(5 * NS_PER_S)
    acts(nodes)
    client = nodes.client("B", "s", access=grantee("web-1", "acquire *"))
    assert isinstance(client.acquire("x", 1)[0], GrantReply)
    assert acts(nodes) == [("acquire", "web-1", "x", "granted by a former primary, and answered again here")]


def releases() -> list[Message]:
    """All ways of a client to give up what it has."""
    return [
        Release(20, SessionId("s"), 1, LockName("x")),
        CloseSession(21, SessionId("s")),
        Keepalive(22, SessionId("s"), 10_000, "s", 1, 0, 0, [], [SlotList(slot_of("x"), [])]),
    ]


@pytest.mark.parametrize("way", range(3), ids=["release", "close", "keepalive"])
def test_a_release_names_the_connection_that_asked_for_it(way: int) -> None:
    nodes = served()
    first = web(nodes)
    first.acquire("x", 1)
    other = nodes.client("A", "s", client="other", access=grantee("web-1", "acquire *"))
    nodes.audited.clear()
    other.ask(releases()[way])
    (entry,) = nodes.audited
    assert (entry.act, entry.connection) == ("release", other.connection)


def test_a_loss_names_no_connection_since_none_asked_for_it() -> None:
    nodes = served()
    web(nodes).acquire("x", 1)
    nodes.audited.clear()
    nodes.advance(60 * NS_PER_S)
    (entry,) = nodes.audited
    assert (entry.act, entry.connection) == ("lost", None)


def forwarding() -> tuple[Nodes, Client]:
    """A node's connection, on which it asks for "token web-1" and "token web-2"."""
    nodes = Nodes("A", audits=True, grantee_of=lambda each: grantee(each.name, "acquire *", "watch *"))
    nodes.assign("A")
    for _ in range(20):
        nodes.advance(200 * MS)
    me = Identity("node", "B")
    server = nodes.client("A", "s", access=Grantee(me, NOTHING, Quota(str(me))))
    server.ask(OnBehalfOf(Identity("token", "web-1")))
    return nodes, server


def test_a_forwarded_wait_is_audited_for_the_identity_that_waits() -> None:
    nodes, server = forwarding()
    holder = web(nodes, "h")
    holder.acquire("x", 1)
    assert server.acquire("x", 1) == []
    server.ask(OnBehalfOf(Identity("token", "web-2")))
    nodes.audited.clear()
    holder.release("x", 1)
    _, entry = nodes.audited
    assert (entry.act, entry.is_forwarded, entry.rule) == ("acquire", True, "acquire *")
    assert entry.identity == Identity("token", "web-1")


def test_the_end_of_a_forwarded_watch_is_audited_as_forwarded() -> None:
    access = grantee("web-1", "watch *")
    nodes = Nodes("A", audits=True, grantee_of=lambda each: access)
    nodes.assign("A")
    for _ in range(20):
        nodes.advance(200 * MS)
    me = Identity("node", "B")
    server = nodes.client("A", "s", access=Grantee(me, NOTHING, Quota(str(me))))
    server.ask(OnBehalfOf(access.identity))
    server.ask(Watch(5, LockName("x")))
    access.permissions = NOTHING
    nodes.client("A", "h").acquire("x", 1)
    (entry,) = [each for each in nodes.audited if each.act == "denied"]
    assert (entry.is_forwarded, entry.connection) == (True, server.connection)


def test_acts_are_audited_without_identities_too() -> None:
    nodes = served()
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    client.release("x", 1)
    assert acts(nodes) == [("acquire", "", "x", ""), ("release", "", "x", "")]


def test_without_an_audit_log_nothing_is_reported() -> None:
    nodes = served(audits=False)
    client = web(nodes)
    client.acquire("x", 1)
    client.release("x", 1)
    assert nodes.audited == []
