"""The reasons of waits that a client reports, and its answer if a list is incomplete."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.client import CallResult, Wait
from lockring.errors import LockringError, ProtocolError, Unavailable, WrongCluster
from lockring.protocol import Acquire, Describe, List, ListReply, QueueNotice, Refusal, TroubleNotice
from lockring.slots import SLOTS
from tests.unit.core.client.world import A, World, answers, connected, lock_info, only, resolved, routes

GIVE_UP_NS = 10 * 10**9


def wait(world: World) -> Wait:
    (found,) = world.core.waits(world.now_ns)
    return found


def describing(world: World) -> Any:
    return world.core.describe("x", give_up_at_ns=world.now_ns + GIVE_UP_NS, now_ns=world.now_ns)


def listing(world: World) -> Any:
    return world.core.list_locks("", give_up_at_ns=world.now_ns + GIVE_UP_NS, now_ns=world.now_ns)


class TestWaits:
    def test_a_server_that_cannot_be_reached_is_named_with_what_to_do(self) -> None:
        world = World(origin="the address is the default: start a server there")
        world.acquire()
        world.take()
        world.cut(A, "connection refused")
        world.pass_s(3)
        found = wait(world)
        assert (found.name, found.reason) == ("x", "unreachable")
        assert "connection refused" in found.text
        assert found.text.endswith("the address is the default: start a server there")
        assert found.since_s == pytest.approx(3, abs=0.1)

    def test_a_lock_counts_as_held_once_its_node_has_said_so(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire).request
        assert wait(world).reason == "silent"
        world.say(A, QueueNotice(request))
        assert wait(world).reason == "held"

    def test_a_wait_for_leases_of_an_earlier_cluster_says_how_long_it_takes(self) -> None:
        world = connected(first=routes(1, None))
        world.acquire()
        world.say(A, TroubleNotice("leases", "4096 of 4096 slots wait", False, 6_000, 25_000))
        world.pass_s(5)
        found = wait(world)
        assert (found.reason, found.text) == ("leases", "4096 of 4096 slots wait")
        assert found.since_s == pytest.approx(11)
        assert found.left_s == pytest.approx(20)

    def test_trouble_that_is_over_is_not_reported(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire).request
        world.say(A, QueueNotice(request), TroubleNotice("no-coordinator", "gone", True, 40_000))
        assert wait(world).reason == "no-coordinator"
        world.say(A, TroubleNotice(""))
        assert wait(world).reason == "held"

    def test_a_slot_without_a_primary_is_reported_with_the_time_since_the_routes_say_so(self) -> None:
        world = connected(first=routes(1, None))
        world.pass_s(4)
        world.acquire()
        found = wait(world)
        assert found.reason == "no-primary"
        assert found.since_s == pytest.approx(4)

    def test_a_primary_that_cannot_be_reached_is_named(self) -> None:
        world = connected(first=routes(1, 1))
        world.acquire()
        world.take()
        found = wait(world)
        assert found.reason == "unreachable"
        assert "node b" in found.text

    def test_an_open_watch_does_not_count_as_a_wait(self) -> None:
        world = connected()
        world.core.watch("x", now_ns=world.now_ns)
        world.take()
        world.pass_s(2)
        assert world.core.waits(world.now_ns) == []

    def test_queries_end_as_outages_with_the_reason(self) -> None:
        world = connected()
        describing(world)
        world.say(A, TroubleNotice("no-coordinator", "the coordinator is gone", True, 31_000))
        world.deaf.add(world.link_of[A])
        for effect in world.take():
            del effect
        found: list[LockringError | None] = []
        for _ in range(12):
            effects = world.pass_s(1)
            found += [each.error for each in answers(effects)]
        (error,) = found
        assert isinstance(error, Unavailable)
        assert error.reason in ("no-coordinator", "unreachable")


class TestAnswersOfAnotherCluster:
    def test_a_permanent_failure_ends_the_wait(self) -> None:
        error = ProtocolError("no lockring server")
        world = connected(first=routes(1, 0, [("a", 1, A)]))
        world.hold()
        world.cut(A)
        request = describing(world)
        world.pass_s(0.1)
        (answer,) = answers(world.cut(A, error=error))
        assert answer.request is request
        assert answer.error is error

    def test_a_query_goes_on_at_the_cluster_that_has_replaced_this_one(self) -> None:
        world = connected(first=routes(1, 0, [("a", 1, A)]))
        held = world.hold()
        world.cut(A)
        request = describing(world)
        world.pass_s(0.1)
        assert answers(world.cut(A, error=WrongCluster("another cluster"))) == []
        assert not world.believes(held)
        world.pass_s(2)
        world.accept(A, routes(1))
        assert request.exchange.link

    def test_a_client_that_holds_nothing_goes_on_with_the_other_cluster(self) -> None:
        world = connected()
        world.cut(A)
        request = describing(world)
        world.pass_s(0.1)
        assert answers(world.cut(A, error=WrongCluster("another cluster"))) == []
        world.pass_s(0.1)
        world.accept(A, routes(1))
        assert request.exchange.link

    def test_an_unreachable_server_beside_it_is_still_waited_for(self) -> None:
        world = connected(first=routes(1, {0: 1}))
        world.hold("y", address=A)
        world.cut(A)
        describing(world)
        world.pass_s(0.1)
        assert answers(world.cut(A, error=WrongCluster("another cluster"))) == []


class TestLists:
    def test_a_list_of_a_cluster_that_serves_nothing_fails(self) -> None:
        world = connected(first=routes(1, None))
        listing(world)
        assert answers(world.pass_s(9.9)) == []
        (answer,) = answers(world.pass_s(0.2))
        assert isinstance(answer.error, Unavailable)
        assert answer.error.reason == "no-primary"

    def test_a_list_is_made_once_slots_are_served(self) -> None:
        world = connected(first=routes(1, None))
        listing(world)
        world.pass_s(1)
        message = only(world.say(A, routes(2)), List)
        (answer,) = answers(world.say(A, ListReply(message.request, [lock_info("x")], -1, "")))
        assert [lock.name for lock in answer.answer] == ["x"]
        assert answer.answer.unserved_slots == 0

    def test_slots_that_no_node_serves_are_counted(self) -> None:
        world = connected(first=routes(1, {0: None, 1: None}))
        listing(world)
        message = only(world.take(), List)
        (answer,) = answers(world.say(A, ListReply(message.request, [lock_info("x")], -1, "", 5)))
        assert answer.answer.unserved_slots == 7

    def test_nodes_that_may_serve_no_slot_are_asked_again_until_the_time_is_over(self) -> None:
        world = connected()
        listing(world)
        asked = 0
        found: list[CallResult] = []
        effects = world.take()
        while not found:
            for effect in effects:
                message = getattr(effect, "message", None)
                if isinstance(message, List):
                    asked += 1
                    world.effects += world.say(A, ListReply(message.request, [], -1, "", SLOTS))
            effects = world.pass_s(0.25)
            found = answers(effects)
        assert asked > 5
        assert isinstance(found[0].error, Unavailable)


def test_an_acquire_whose_time_is_over_fails_with_its_refusal() -> None:
    world = connected()
    world.acquire(wait_ms=1_500)
    for _ in range(20):
        effects = world.take() + world.pass_s(0.1)
        for effect in effects:
            message = getattr(effect, "message", None)
            if isinstance(message, Acquire):
                world.effects += world.say(
                    A, Refusal(message.request, "unavailable", "node a may not serve slot 7")
                )
        if ended := resolved(effects):
            _, error = ended[0]
            assert isinstance(error, Unavailable)
            assert "may not serve slot 7" in str(error)
            return
    pytest.fail("the acquire has not ended")


def test_a_query_to_a_silent_node_fails_as_silent() -> None:
    world = connected()
    world.core.describe("x", give_up_at_ns=world.now_ns + 10**9, now_ns=world.now_ns)
    only(world.take(), Describe)
    (answer,) = answers(world.pass_s(1))
    assert isinstance(answer.error, Unavailable)
    assert answer.error.reason == "silent"
    assert answer.error.since_s == pytest.approx(1)
