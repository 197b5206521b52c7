"""Holders that a node names to the clients that wait for them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockring.core.access import Grantee, Newcomer, hidden_id
from lockring.core.node.blockers import BLOCKERS_MAX
from lockring.ids import ConnectionId
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    Break,
    ClientHello,
    Describe,
    DescribeReply,
    HolderRecord,
    Message,
    Mode,
    QueueNotice,
    Refusal,
)
from lockring.slots import slot_of
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes, S


def cluster() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def client_on(
    nodes: Nodes,
    session: str,
    host: str = "",
    pid: int = 0,
    *,
    number: int = 1,
    access: Grantee | None = None,
) -> Client:
    """A client that says where its process is."""
    made = nodes.client("A", session, access=access)
    core = nodes.cores["A"]
    core.disconnected(made.connection, now_ns=nodes.now)
    connection = made.connection = made.connection + 1_000 * number
    nodes.clients["A", connection] = made
    hello = ClientHello(PROTOCOL, "", f"client {session}", number, host=host, pid=pid)
    core.connected(connection, newcomer=Newcomer(access), now_ns=nodes.now)
    core.receive(connection, hello, now_ns=nodes.now)
    nodes.settle()
    made.inbox.clear()
    return made


def refusal(answers: list[Message]) -> Refusal:
    (found,) = answers
    assert isinstance(found, Refusal), found
    assert found.code == "timeout"
    return found


def described(client: Client, name: str) -> HolderRecord:
    (reply,) = client.ask(Describe(next(client.requests), name))
    assert isinstance(reply, DescribeReply)
    return reply.lock.holders[0]


def notices(client: Client) -> list[QueueNotice]:
    return [each for each in client.inbox if isinstance(each, QueueNotice)]


def test_a_refused_acquire_names_the_holder_its_place_and_the_position() -> None:
    nodes = cluster()
    client_on(nodes, "s", "web1", 4711).acquire("x", 1)
    nodes.advance(S)
    found = refusal(nodes.client("A", "t").acquire("x", 1, wait_ms=0))
    (holder,) = found.holders
    assert (holder.owner, holder.host, holder.pid, holder.held_ms) == ("s", "web1", 4711, 1_000)
    assert (holder.renewed_ms, holder.away_ms, holder.broken, holder.payload) == (1_000, -1, False, b"")
    assert found.position == 1


def test_a_wait_that_is_over_names_the_holder_and_the_place_in_the_queue() -> None:
    nodes = cluster()
    nodes.client("A", "s").acquire("x", 1)
    nodes.client("A", "first").acquire("x", 1)
    second = nodes.client("A", "second")
    second.acquire("x", 1, wait_ms=1_000)
    nodes.advance(2 * S)
    found = refusal([each for each in second.inbox if isinstance(each, Refusal)])
    assert [each.owner for each in found.holders] == ["s"]
    assert found.position == 2


def test_no_more_than_some_holders_are_named() -> None:
    nodes = cluster()
    for number in range(BLOCKERS_MAX + 2):
        nodes.client("A", f"s{number}").acquire("x", 1, mode=Mode.SHARED)
    found = refusal(nodes.client("A", "t").acquire("x", 1, wait_ms=0))
    assert [each.owner for each in found.holders] == [f"s{number}" for number in range(BLOCKERS_MAX)]


def test_a_long_wait_is_given_the_holders_once() -> None:
    nodes = cluster()
    client_on(nodes, "s", "web1", 4711).acquire("x", 1, ttl_ms=20_000)
    nodes.client("A", "first").acquire("x", 1, ttl_ms=20_000)
    second = nodes.client("A", "second")
    second.acquire("x", 1, ttl_ms=20_000)
    nodes.advance(4_500 * MS)
    assert [each.holders for each in notices(second)] == [[]]
    nodes.advance(4 * S)
    _, long = notices(second)
    assert [(each.owner, each.host) for each in long.holders] == [("s", "web1")]
    assert long.position == 2


def test_a_wait_that_went_on_elsewhere_counts_from_its_beginning() -> None:
    nodes = cluster()
    nodes.client("A", "s").acquire("x", 1, ttl_ms=20_000)
    waiter = nodes.client("A", "t")
    waiter.ask(Acquire(9, "t", 20_000, "t", 1, "x", waited_ms=60_000))
    nodes.advance(S)
    assert [bool(each.holders) for each in notices(waiter)] == [False, True]


def test_a_long_wait_is_given_the_holders_once_its_node_serves_the_lock_again() -> None:
    nodes = cluster()
    nodes.client("A", "s").acquire("x", 1, ttl_ms=20_000)
    waiter = nodes.client("A", "t")
    waiter.acquire("x", 1, ttl_ms=20_000)
    nodes.advance(S)
    nodes.crash("B")
    nodes.advance(11 * S)
    assert not nodes.cores["A"].service.grants._context.rights.may_serve(slot_of("x"), now_ns=nodes.now)
    assert [each.holders for each in notices(waiter)] == [[]]
    nodes.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    nodes.advance(S)
    _, long = notices(waiter)
    assert [each.owner for each in long.holders] == ["s"]


def test_the_holder_of_a_wait_that_ended_is_not_named() -> None:
    nodes = cluster()
    holder = nodes.client("A", "s")
    holder.acquire("x", 1, ttl_ms=20_000)
    waiter = nodes.client("A", "t")
    waiter.acquire("x", 1, ttl_ms=20_000)
    nodes.advance(S)
    holder.release("x", 1)
    nodes.advance(8 * S)
    assert [each.holders for each in notices(waiter)] == [[]]


def test_a_holder_whose_connection_is_gone_is_shown_as_away_until_it_comes_back() -> None:
    nodes = cluster()
    holder = client_on(nodes, "s", "web1", 4711)
    holder.acquire("x", 1)
    reader = nodes.client("A", "r")
    assert described(reader, "x").away_ms == -1
    nodes.cores["A"].disconnected(holder.connection, now_ns=nodes.now)
    nodes.advance(2 * S)
    found = described(reader, "x")
    assert (found.host, found.pid, found.away_ms, found.renewed_ms) == ("web1", 4711, 2_000, 2_000)
    client_on(nodes, "s", "web1", 4711, number=2)
    found = described(reader, "x")
    assert (found.host, found.away_ms) == ("web1", -1)


def test_a_client_that_does_not_say_where_it_is_is_not_shown_as_away() -> None:
    nodes = cluster()
    holder = nodes.client("A", "s")
    holder.acquire("x", 1)
    nodes.cores["A"].disconnected(holder.connection, now_ns=nodes.now)
    found = described(nodes.client("A", "r"), "x")
    assert (found.host, found.pid, found.away_ms) == ("", 0, -1)


@pytest.mark.parametrize(("host", "pid"), [("h" * 5_000, -3), ("h", 2**60)])
def test_nonsense_about_a_place_is_cut(host: str, pid: int) -> None:
    nodes = cluster()
    client_on(nodes, "s", host, pid).acquire("x", 1)
    found = described(nodes.client("A", "r"), "x")
    assert len(found.host) <= 253
    assert found.pid == 0


def test_a_broken_lease_is_shown_as_such() -> None:
    nodes = cluster()
    grant: Any = nodes.client("A", "s").acquire("x", 1)[0]
    reader = nodes.client("A", "r")
    reader.ask(Break(50, "x", grant.generation))
    assert described(reader, "x").broken


# --------------------------------------------------------------------------- rights


@pytest.mark.parametrize(
    ("rules", "sees_place", "sees_id"),
    [(["acquire *"], False, False), (["acquire *", "read *"], True, False), (["admin"], True, True)],
)
def test_host_and_process_need_the_right_to_read_and_ids_are_hidden(
    rules: list[str], sees_place: bool, sees_id: bool
) -> None:
    nodes = cluster()
    client_on(nodes, "s", "web1", 4711, access=grantee("owner", "acquire *")).acquire("x", 1)
    waiter = nodes.client("A", "t", access=grantee("web-2", *rules))
    (holder,) = refusal(waiter.acquire("x", 1, wait_ms=0)).holders
    assert holder.owner == "s"
    assert (holder.host, holder.pid) == (("web1", 4711) if sees_place else ("", 0))
    assert holder.session == ("s" if sees_id else hidden_id("s"))


def test_the_own_session_of_an_identity_is_shown_to_it() -> None:
    nodes = cluster()
    access = grantee("web-1", "acquire *")
    client = nodes.client("A", "s", access=access)
    client.acquire("x", 1)
    (holder,) = refusal(client.acquire("x", 2, wait_ms=0)).holders
    assert holder.session == "s"


def test_a_forwarded_wait_is_answered_by_the_rights_of_the_identity_that_asked() -> None:
    nodes = cluster()
    client_on(nodes, "s", "web1", 4711, access=grantee("owner", "acquire *")).acquire("x", 1)
    waiter = nodes.client("A", "t", access=grantee("web-2", "acquire *"))
    waiter.acquire("x", 1, wait_ms=1_000)
    nodes.cores["A"].service.clients.by_connection[ConnectionId(waiter.connection)].access = grantee(
        "web-3", "admin"
    )
    nodes.advance(2 * S)
    (holder,) = refusal([each for each in waiter.inbox if isinstance(each, Refusal)]).holders
    assert (holder.owner, holder.host, holder.session) == ("s", "", hidden_id("s"))
