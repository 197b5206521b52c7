"""The limits of an identity at a node: sessions, locks, waiters and requests per second, over all its connections."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.access import NEVER_THROTTLED, Grantee, Limits, Quota
from lockring.ids import SessionId
from lockring.protocol import (
    CloseSession,
    Describe,
    DescribeReply,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    Message,
    Refusal,
    Release,
    ReleaseReply,
)
from lockring.units import NS_PER_S
from tests.unit.core.grantees import grantee
from tests.unit.core.node.test_access import OF_CLIENTS, WITHOUT_RIGHT
from tests.unit.core.node.world import MS, Client, Nodes


def only(answers: list[Message], kind: type[Message] = Refusal) -> Any:
    (answer,) = answers
    assert isinstance(answer, kind), answer
    return answer


def served(*names: str) -> Nodes:
    nodes = Nodes(*names)
    nodes.assign(names[0], names[1] if len(names) > 1 else None)
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


class Bounded:
    """Connections of one identity with limits, the token `who`."""

    def __init__(self, nodes: Nodes, who: str = "web-1", *, is_enforced: bool = True, **limits: int) -> None:
        self.nodes = nodes
        self.who = who
        self.limits = Limits(**limits)
        self.quota = Quota(f"token {who}", self.limits)
        self.is_enforced = is_enforced

    def access(self) -> Grantee:
        return grantee(
            self.who,
            "acquire *",
            "read *",
            limits=self.limits,
            quota=self.quota,
            is_enforced=self.is_enforced,
        )

    def client(self, session: str, node: str = "A") -> Client:
        return self.nodes.client(node, session, access=self.access())

    @property
    def counts(self) -> tuple[int, int, int]:
        """Sessions, locks and waiters."""
        return self.quota.sessions, self.quota.acquisitions - self.quota.waiters, self.quota.waiters


def test_one_session_more_than_the_limit_is_refused_until_one_ends() -> None:
    bounded = Bounded(served("A"), sessions=2)
    first, second, third = (bounded.client(each) for each in ("s", "t", "u"))
    only(first.acquire("x", 1), GrantReply)
    only(second.keep(), KeepaliveReply)
    refusal = only(third.acquire("y", 1))
    assert (refusal.code, refusal.name) == ("overloaded", "y")
    assert "token web-1 has 2 sessions at this server, and may have 2" in refusal.text
    assert "u" not in bounded.nodes.cores["A"].sessions.by_id
    only(first.ask(CloseSession(9, SessionId("s"))), ReleaseReply)
    only(third.acquire("y", 1), GrantReply)
    bounded.nodes.advance(60 * NS_PER_S)
    assert bounded.counts == (0, 0, 0)


def test_another_identity_has_limits_of_its_own() -> None:
    nodes = served("A")
    limits = {"sessions": 1, "locks": 1, "waiters": 1, "requests_per_s": 1}
    first, second = (Bounded(nodes, who, **limits) for who in ("web-1", "web-2"))
    only(first.client("s").acquire("x", 1), GrantReply)
    assert only(first.client("t").acquire("z", 1)).code == "overloaded"
    only(second.client("u").acquire("y", 1), GrantReply)
    assert (first.counts, second.counts) == ((1, 1, 0), (1, 1, 0))


def test_one_lock_more_than_the_limit_is_refused_until_one_is_released() -> None:
    bounded = Bounded(served("A"), locks=2)
    one, two = bounded.client("s"), bounded.client("t")
    only(one.acquire("x", 1), GrantReply)
    only(two.acquire("y", 1), GrantReply)
    assert "token web-1 has 2 locks at this server, and may have 2" in only(one.acquire("z", 2)).text
    only(two.release("y", 1), ReleaseReply)
    only(one.acquire("z", 3), GrantReply)
    assert bounded.counts == (2, 2, 0)


def test_a_waiter_whose_turn_comes_beyond_the_limit_is_refused_and_the_next_one_granted() -> None:
    nodes = served("A")
    bounded = Bounded(nodes, locks=1)
    holder, other = nodes.client("A", "h"), nodes.client("A", "o")
    holder.acquire("x", 1)
    waiting = bounded.client("s")
    assert waiting.acquire("x", 1) == []
    assert other.acquire("x", 1) == []
    only(waiting.acquire("y", 2), GrantReply)
    assert bounded.counts == (1, 1, 1)
    seen = len(waiting.inbox)
    holder.release("x", 1)
    assert only(waiting.inbox[seen:]).code == "overloaded"
    assert isinstance(other.inbox[-1], GrantReply)
    assert bounded.counts == (1, 1, 0)


def test_one_waiter_more_than_the_limit_is_refused_until_one_stops() -> None:
    nodes = served("A")
    bounded = Bounded(nodes, waiters=1)
    holder = nodes.client("A", "h")
    for number, name in enumerate(("x", "y", "z"), start=1):
        holder.acquire(name, number)
    client = bounded.client("s")
    assert client.acquire("x", 1) == []
    assert "token web-1 has 1 waiting requests" in only(client.acquire("y", 2)).text
    only(client.release("x", 1), ReleaseReply)
    assert client.acquire("y", 3) == []
    holder.release("y", 2)
    assert client.acquire("z", 4) == []
    nodes.cores["A"].disconnected(client.connection, now_ns=nodes.now)
    nodes.settle()
    assert bounded.counts == (1, 1, 0)


def test_a_promoted_copy_counts_what_its_identity_has_once_that_comes() -> None:
    nodes = served("A", "B")
    Bounded(nodes).client("s").acquire("x", 1)
    nodes.advance(500 * MS)
    nodes.crash("A")
    nodes.promote("B")
    nodes.advance(5 * NS_PER_S)
    bounded = Bounded(nodes, locks=1)
    client = bounded.client("s", "B")
    client.keep()
    assert bounded.counts == (1, 1, 0)
    assert only(client.acquire("y", 2)).code == "overloaded"
    only(client.release("x", 1), ReleaseReply)
    assert bounded.counts == (1, 0, 0)


def test_a_session_that_is_closed_counts_no_more_though_a_copy_needs_it() -> None:
    nodes = served("A", "B")
    nodes.assign("B", "A", "y")
    nodes.advance(500 * MS)
    bounded = Bounded(nodes, sessions=1)
    Bounded(nodes).client("s").acquire("x", 1)
    nodes.advance(500 * MS)
    assert SessionId("s") in nodes.cores["B"].sessions.by_id
    client, other = bounded.client("s", "B"), bounded.client("t", "B")
    for acquisition in (2, 3):
        only(client.acquire("y", acquisition), GrantReply)
        assert bounded.counts == (1, 1, 0)
        assert only(other.acquire("y", 1)).code == "overloaded"
        only(client.ask(CloseSession(9, SessionId("s"))), ReleaseReply)
        assert bounded.counts == (0, 0, 0)
    only(other.acquire("y", 2), GrantReply)


def test_a_session_that_only_a_copy_has_is_not_counted_by_a_release() -> None:
    nodes = served("A", "B")
    Bounded(nodes).client("s").acquire("x", 1)
    nodes.advance(500 * MS)
    bounded = Bounded(nodes)
    only(bounded.client("s", "B").ask(CloseSession(9, SessionId("s"))), ReleaseReply)
    assert bounded.counts == (0, 0, 0)


def test_a_session_without_an_owner_is_counted_with_its_waiters_from_its_first_use_on() -> None:
    nodes = served("A")
    nodes.client("A", "h").acquire("x", 1)
    unknown = nodes.client("A", "s")
    unknown.acquire("y", 1)
    unknown.acquire("x", 2)
    bounded = Bounded(nodes, waiters=1)
    client = bounded.client("s")
    assert "1 waiting requests" in only(client.acquire("x", 3)).text
    assert bounded.counts == (1, 1, 1)
    only(client.release("x", 2), ReleaseReply)
    assert bounded.counts == (1, 1, 0)
    only(client.ask(CloseSession(9, SessionId("s"))), ReleaseReply)
    assert bounded.counts == (0, 0, 0)


def test_what_moves_to_another_node_is_counted_here_no_more() -> None:
    nodes = served("A", "B")
    bounded = Bounded(nodes)
    bounded.client("s").acquire("x", 1)
    nodes.advance(500 * MS)
    nodes.promote("B", swap=True)
    nodes.advance(500 * MS)
    assert bounded.counts[1:] == (0, 0)


def test_a_request_that_comes_too_soon_hears_when_to_come_again() -> None:
    nodes = served("A")
    client = Bounded(nodes, requests_per_s=2).client("s")
    for _ in range(2):
        only(client.ask(Describe(5, "x")), DescribeReply)
    refusal = only(client.ask(Describe(6, "x")))
    assert (refusal.request, refusal.code) == (6, "overloaded")
    assert 0 < refusal.retry_after_ms <= 501
    nodes.advance(refusal.retry_after_ms * MS)
    only(client.ask(Describe(7, "x")), DescribeReply)


def test_the_rate_is_that_of_all_connections_together() -> None:
    bounded = Bounded(served("A"), requests_per_s=2)
    one, two = bounded.client("s"), bounded.client("t")
    only(one.ask(Describe(5, "x")), DescribeReply)
    only(two.ask(Describe(5, "x")), DescribeReply)
    assert only(one.ask(Describe(6, "x"))).code == "overloaded"


def test_renewals_and_releases_are_never_too_soon() -> None:
    client = Bounded(served("A"), requests_per_s=1).client("s")
    only(client.acquire("x", 1), GrantReply)
    for number in range(10, 20):
        only(client.ask(Keepalive(number, SessionId("s"), 10_000, "s", 0, 0, 0)), KeepaliveReply)
    only(client.ask(Release(30, SessionId("s"), 1, "x")), ReleaseReply)


@pytest.mark.parametrize(
    "kind", sorted((*OF_CLIENTS, *WITHOUT_RIGHT), key=str), ids=lambda each: each.__name__
)
def test_a_request_is_too_soon_unless_it_keeps_gives_back_or_finds_the_way(kind: type[Message]) -> None:
    nodes = served("A")
    access = grantee("web-1", "admin", limits=Limits(requests_per_s=1))
    client = nodes.client("A", "s", access=access)
    only(client.acquire("x", 1), GrantReply)
    message = WITHOUT_RIGHT[kind] if kind in WITHOUT_RIGHT else OF_CLIENTS[kind][0]
    codes = [each.code for each in client.ask(message) if isinstance(each, Refusal)]
    assert ("overloaded" in codes) == (kind not in NEVER_THROTTLED)


@pytest.mark.parametrize("limit", ["sessions", "locks", "waiters", "requests_per_s"])
def test_where_rights_are_tried_out_limits_are_not(limit: str) -> None:
    bounded = Bounded(served("A"), is_enforced=False, **{limit: 1})
    client, other = bounded.client("s"), bounded.client("t")
    for number, name in enumerate(("x", "y", "z"), start=1):
        only(client.acquire(name, number), GrantReply)
        assert other.acquire(name, number) == []
