"""A release that withdraws one acquire leaves alone the requests and answers of other connections under the same
acquisition."""

from __future__ import annotations

import pytest

from lockring.protocol import Acquire, GrantReply, Message, Release, ReleaseReply
from tests.unit.core.node.world import Client, Nodes, S, of


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def ask(client: Client, *, wait_ms: int = -1) -> tuple[int, list[Message]]:
    """Acquire "x" as acquisition 1, and return the request's number and what came back."""
    number = next(client.requests)
    return number, client.ask(Acquire(number, client.session, 10_000, "o", 1, "x", wait_ms=wait_ms))


def take_back(client: Client, acquire: int) -> bool:
    """Whether anything was dropped."""
    answers = client.ask(Release(next(client.requests), client.session, 1, "x", acquire=acquire))
    return of(ReleaseReply, answers)[0].dropped


def test_a_grant_that_no_other_connection_has_received_is_taken_back(nodes: Nodes) -> None:
    client = nodes.client("A", "one")
    number, answers = ask(client)
    assert of(GrantReply, answers)
    assert take_back(client, number)
    assert of(GrantReply, nodes.client("A", "two").acquire("x", 1))


def test_a_waiter_is_taken_back(nodes: Nodes) -> None:
    nodes.client("A", "holder").acquire("x", 1)
    client = nodes.client("A", "one")
    number, _ = ask(client)
    assert take_back(client, number)
    assert nodes.cores["A"].status().waiters == 0


def test_a_waiter_that_was_asked_for_again_elsewhere_is_left(nodes: Nodes) -> None:
    holder = nodes.client("A", "holder")
    holder.acquire("x", 1)
    first, second = nodes.client("A", "one"), nodes.client("A", "one")
    number, _ = ask(first)
    ask(second)
    assert not take_back(first, number)
    holder.release("x", 1)
    assert of(GrantReply, second.inbox)


def test_a_grant_that_another_connection_has_received_is_left(nodes: Nodes) -> None:
    first, second = nodes.client("A", "one"), nodes.client("A", "one")
    number, _ = ask(first)
    assert of(GrantReply, ask(second)[1])
    assert not take_back(first, number)


def test_a_repetition_does_not_take_back_a_grant_that_another_connection_has_received(nodes: Nodes) -> None:
    first, second = nodes.client("A", "one"), nodes.client("A", "one")
    ask(first)
    number, _ = ask(second)
    assert not take_back(second, number)


def test_an_older_acquire_of_the_same_connection_takes_nothing_back(nodes: Nodes) -> None:
    nodes.client("A", "holder").acquire("x", 1)
    client = nodes.client("A", "one")
    older, _ = ask(client)
    newer, _ = ask(client)
    assert not take_back(client, older)
    assert take_back(client, newer)


def test_a_grant_that_was_inherited_is_left_until_it_is_released_for_good(nodes: Nodes) -> None:
    client = nodes.client("A", "one")
    number, _ = ask(client)
    nodes.crash("A")
    nodes.promote("B")
    nodes.advance(4 * S)
    again = nodes.client("B", "one")
    assert not take_back(again, number)
    assert of(ReleaseReply, again.release("x", 1))[0].dropped
