"""A few connections cannot take all calls and all memory of a node."""

from __future__ import annotations

import pytest

from lockring.grpc_api.shares import (
    CALLS_MAX,
    CALLS_PER_CONNECTION_MAX,
    SIDE_CALLS_MAX,
    SIDE_CALLS_PER_CONNECTION_MAX,
    SIDE_METHODS,
    Shares,
    Taken,
)
from lockring.troubles import REASONS_MAX
from tests.hostile import http2
from tests.unit.grpc_api.serving import HEALTH, WATCH, RawClient, Served, health_of, until, with_server

KEEP_ALIVE = "lockring.v1.LockService/KeepAlive"
HEALTH_WATCH = "grpc.health.v1.Health/Watch"


def filled(shares: Shares, path: str) -> Taken:
    """A connection that has begun all calls that it may."""
    taken = Taken()
    while not shares.begin(taken, path):
        pass
    return taken


def test_health_and_reflection_are_the_methods_with_a_share_of_their_own() -> None:
    assert {each.split("/")[0] for each in SIDE_METHODS} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_connections_that_want_all_leave_calls_to_others() -> None:
    shares = Shares()
    taken = [filled(shares, KEEP_ALIVE) for _ in range(20)]
    assert taken[0].calls == CALLS_PER_CONNECTION_MAX
    assert sum(each.calls for each in taken) < CALLS_MAX
    new = Taken()
    assert shares.begin(new, KEEP_ALIVE) == ""
    assert shares.begin(Taken(), HEALTH_WATCH) == ""


def test_health_checks_take_a_small_share_and_each_connection_may_have_one() -> None:
    shares = Shares()
    taken = [filled(shares, HEALTH_WATCH) for _ in range(100)]
    assert taken[0].side_calls == SIDE_CALLS_PER_CONNECTION_MAX
    assert sum(each.side_calls for each in taken) <= SIDE_CALLS_MAX + 100
    assert all(each.side_calls for each in taken)
    assert filled(shares, KEEP_ALIVE).calls == CALLS_PER_CONNECTION_MAX


def test_a_full_node_refuses_even_the_first_call() -> None:
    shares = Shares()
    for _ in range(CALLS_MAX):
        assert shares.begin(Taken(), KEEP_ALIVE) == ""
    assert "which is its limit" in shares.begin(Taken(), HEALTH_WATCH)


@pytest.mark.parametrize("path", [KEEP_ALIVE, HEALTH_WATCH])
def test_calls_that_end_make_room(path: str) -> None:
    shares = Shares()
    taken = filled(shares, path)
    count = taken.calls + taken.side_calls
    for _ in range(count):
        shares.end(taken, path)
    assert (taken.calls, taken.side_calls) == (0, 0)
    again = filled(shares, path)
    assert again.calls + again.side_calls == count


def test_many_watches_of_the_health_on_few_connections_harm_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(served: Served) -> None:
        clients = [await RawClient.open(served.address) for _ in range(4)]
        for client in clients:
            for number in range(900):
                client.call(WATCH, http2.message(b""), stream=2 * number + 1)
            assert (await client.trailers(2 * 899 + 1))["grpc-status"] == "8"
        assert served.calls == 4 * SIDE_CALLS_PER_CONNECTION_MAX
        assert await health_of(served.address)
        lines = [each for each in caplog.records if "calls of gRPC are refused" in each.getMessage()]
        assert 1 <= len(lines) <= REASONS_MAX, "and not one for each"
        for client in clients:
            client.writer.close()
        await until(lambda: served.calls == 0)
        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, http2.message(b""))
            assert (await client.trailers())["grpc-status"] == "0"

    assert with_server(test) == []
