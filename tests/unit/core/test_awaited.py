"""What is told of a wait for leases of before: from the coordinator to a node, to a client, to the error of its call."""

from __future__ import annotations

from lockring.core.awaited import Awaited, sentence
from lockring.errors import Unavailable
from lockring.units import NS_PER_S
from tests.unit.core.client_world import A, connected, resolved, routes


def test_the_time_that_is_left_counts_down_and_never_below_zero() -> None:
    awaited = Awaited()
    assert awaited.told(0) == ""
    assert awaited.take("all copies are gone", 31_500, 100 * NS_PER_S)
    assert awaited.told(100 * NS_PER_S) == "all copies are gone; it takes another 32 s at the longest"
    assert awaited.told(121 * NS_PER_S) == "all copies are gone; it takes another 11 s at the longest"
    assert awaited.told(200 * NS_PER_S) == "all copies are gone"
    assert not awaited.take("all copies are gone", 1_000, 0)
    assert awaited.take("", 0, 0)
    assert sentence("", 0) == ""


def test_a_clients_error_says_what_is_waited_for_and_how_long_yet() -> None:
    world = connected()
    told = routes(2, None)
    told.why, told.waits_ms = "it is unknown what was held before", 20_000
    world.say(A, told)
    ticket = world.acquire(wait_ms=5_000)
    [(which, error)] = resolved(world.pass_s(5))
    assert which is ticket
    assert isinstance(error, Unavailable)
    assert "no node may serve 'x' at present: it is unknown what was held before" in str(error)
    assert "another 15 s" in str(error)


def test_news_of_the_wait_reach_a_client_under_the_same_version() -> None:
    world = connected(first=routes(1, None))
    world.acquire(wait_ms=1_000)
    told = routes(1, None)
    told.why, told.waits_ms = "all copies are gone", 20_000
    world.say(A, told)
    [(_, error)] = resolved(world.pass_s(1))
    assert "all copies are gone; it takes another 19 s" in str(error)
    world.say(A, routes(1, None))
    world.acquire(wait_ms=1_000)
    [(_, error)] = resolved(world.pass_s(1))
    assert "all copies are gone" not in str(error)
