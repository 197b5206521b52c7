"""The answers of a server that a node took for its coordinator."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Replica
from lockring.core.node import JoinFacts
from lockring.core.node.greetings import check_coordinator
from lockring.errors import (
    DuplicateNode,
    InvalidRequest,
    LockringError,
    ProtocolError,
    StaleVersion,
    Unavailable,
    WrongCluster,
    WrongRole,
)
from lockring.ids import ClusterId, Incarnation, Version
from lockring.net.connection import Outbox
from lockring.protocol import Join, Message, Welcome
from lockring.server.coordinator_link import CoordinatorLink, NodePlace
from tests.unit.net.serving import run

ADDRESS = "10.0.0.1:9500"


class Joiner:
    """A node that records the calls of its link to the coordinator."""

    replica = Replica("N1", 5)

    def __init__(self) -> None:
        self.link = CoordinatorLink(self, NodePlace(weight=100), [ADDRESS], Outbox())
        self.failures: list[LockringError] = []
        self.lives: list[int] = []
        self.missing: list[str] = []
        self.joins = 0

    def join_facts(self) -> JoinFacts:
        return JoinFacts(ClusterId(""), Version(7), (Incarnation(3), Incarnation(4)), Version(6))

    def begin_life(self, incarnation: int) -> None:
        self.lives.append(incarnation)

    def greet_coordinator(self, welcome: Welcome, address: str) -> None:
        check_coordinator(welcome, self.join_facts().cluster, address)

    def joined(self) -> None:
        self.joins += 1

    def from_coordinator(self, messages: list[Message]) -> None:
        raise AssertionError(messages)

    def coordinator_missing(self, why: str) -> None:
        self.missing.append(why)

    def coordinator_lost(self) -> None:
        raise AssertionError("it was not connected")

    def fail(self, error: LockringError) -> None:
        self.failures.append(error)


@pytest.mark.parametrize("error", [WrongRole("node b is not a coordinator"), ProtocolError("no hello")])
def test_the_answer_of_a_server_that_may_not_be_a_coordinator_bears_its_address(error: LockringError) -> None:
    node = Joiner()
    node.link.connect_failed(ADDRESS, error, 0)
    (failure,) = node.failures
    assert type(failure) is type(error)
    assert str(failure) == f"{error} (the answer of {ADDRESS}, where a coordinator was expected)"


@pytest.mark.parametrize("error", [WrongCluster("the coordinator belongs to c"), InvalidRequest("weight 0")])
def test_the_answer_of_a_coordinator_is_given_as_it_is(error: LockringError) -> None:
    node = Joiner()
    node.link.connect_failed(ADDRESS, error, 0)
    assert node.failures == [error]


def test_an_address_that_the_answer_bears_is_not_repeated() -> None:
    node = Joiner()
    error = WrongRole(f"{ADDRESS} is node b, not a coordinator", name="b")
    node.link.connect_failed(ADDRESS, error, 0)
    assert node.failures == [error]


def test_a_node_that_has_joined_waits_whatever_the_answer_is() -> None:
    node = Joiner()
    node.link.opened(ADDRESS, Welcome(1, "c", "coordinator", "", 0, 1))
    assert node.joins == 1
    for error in (WrongRole("x"), WrongCluster("x"), Unavailable("no route")):
        node.link.connect_failed(ADDRESS, error, 0)
    assert node.failures == []
    assert node.missing[-1] == f"waiting for the coordinator at {ADDRESS}: no route"


def test_a_life_that_is_too_old_is_followed_by_another_only_if_a_later_one_is_known() -> None:
    node = Joiner()
    node.link.connect_failed(ADDRESS, StaleVersion("seen with 6"), 7)
    node.link.connect_failed(ADDRESS, StaleVersion("the state is old"), 0)
    assert node.lives == [7]
    assert node.failures == []


def test_another_node_of_the_same_id_is_given_time_to_be_a_former_life_of_this_one() -> None:
    async def main() -> None:
        node = Joiner()
        node.link.connect_failed(ADDRESS, DuplicateNode("a node N1 is running already"), 0)
        assert node.failures == []
        assert "running already" in node.link.note

    run(main())


def test_a_node_says_as_it_joins_which_of_its_lives_are_over() -> None:
    hello = Joiner().link.hello()
    assert isinstance(hello, Join)
    assert (hello.incarnation, hello.version, hello.former) == (5, 7, [3, 4])
