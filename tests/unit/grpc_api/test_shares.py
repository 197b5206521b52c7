"""A few connections cannot take all calls and all memory of a node."""

from __future__ import annotations

import pytest

from lockring.grpc_api.shares import (
    CALLS_MAX,
    CALLS_PER_CONNECTION_MAX,
    HELD_BYTES_FEW,
    HELD_BYTES_MAX,
    HELD_BYTES_PER_CONNECTION_MAX,
    SIDE_BYTES_FEW,
    SIDE_BYTES_MAX,
    SIDE_BYTES_PER_CONNECTION_MAX,
    SIDE_CALLS_MAX,
    SIDE_CALLS_PER_CONNECTION_MAX,
    SIDE_METHODS,
    Shares,
    Taken,
)
from lockring.troubles import REASONS_MAX
from tests.hostile import http2
from tests.unit.grpc_api.serving import HEALTH, LOCK, WATCH, RawClient, Served, health_of, until, with_server

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


def hold_all(shares: Shares, path: str, size: int) -> Taken:
    """A connection whose messages take all the room that it has, in parts."""
    taken = Taken()
    while shares.hold(taken, path, size):
        pass
    shares.hold(taken, path, -size)
    return taken


def test_messages_that_wait_on_many_connections_leave_room_for_others() -> None:
    shares = Shares()
    taken = [hold_all(shares, KEEP_ALIVE, 10_000) for _ in range(100)]
    assert max(each.held_bytes for each in taken) <= HELD_BYTES_PER_CONNECTION_MAX
    assert shares.held_bytes == sum(each.held_bytes for each in taken) < HELD_BYTES_MAX
    assert shares.hold(Taken(), KEEP_ALIVE, HELD_BYTES_FEW)
    assert shares.hold(Taken(), HEALTH_WATCH, SIDE_BYTES_FEW)


def test_messages_of_health_checks_take_a_small_share_of_the_memory() -> None:
    shares = Shares()
    taken = [hold_all(shares, HEALTH_WATCH, 1_000) for _ in range(1_000)]
    assert max(each.side_bytes for each in taken) <= SIDE_BYTES_PER_CONNECTION_MAX
    assert shares.held_bytes < SIDE_BYTES_MAX
    assert shares.hold(Taken(), HEALTH_WATCH, SIDE_BYTES_FEW)
    assert hold_all(shares, KEEP_ALIVE, 10_000).held_bytes > HELD_BYTES_PER_CONNECTION_MAX - 10_000


def test_what_is_given_back_counts_no_more() -> None:
    shares = Shares()
    for path in (KEEP_ALIVE, HEALTH_WATCH):
        taken = Taken()
        assert not shares.hold(taken, path, 10 * HELD_BYTES_MAX)
        assert shares.hold(taken, path, -10 * HELD_BYTES_MAX)
        assert (taken.held_bytes, taken.side_bytes, shares.held_bytes) == (0, 0, 0)


def test_incomplete_requests_of_one_connection_harm_no_others() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            part = http2.message(bytes(16_000), announced=70_000)
            for number in range(300):
                client.call(LOCK, part, stream=2 * number + 1, ends=False)
            assert (await client.trailers(599))["grpc-status"] == "8"
            assert served.server._shares.held_bytes <= HELD_BYTES_PER_CONNECTION_MAX
            assert await health_of(served.address)

    assert with_server(test) == []


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
