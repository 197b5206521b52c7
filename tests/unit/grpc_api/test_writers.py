"""Responses that wait for room go on in order, and no more of them look for it than there is room for."""

from __future__ import annotations

import pytest

from lockring.grpc_api import connection as connections
from lockring.grpc_api import shares
from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.connection import GrpcConnection
from tests.hostile import http2
from tests.unit.grpc_api.serving import HEALTH, WATCH, RawClient, Served, until, with_server

WATCHES = 200


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of health stand for any: let a connection have many."""
    monkeypatch.setattr(shares, "SIDE_CALLS_PER_CONNECTION_MAX", 1_000)
    monkeypatch.setattr(shares, "SIDE_CALLS_MAX", 2_000)


def window(size: int) -> bytes:
    """Settings by which each stream has so much room."""
    return http2.frame(http2.SETTINGS, 0, b"\x00\x04" + size.to_bytes(4, "big"))


def room(stream: int, size: int) -> bytes:
    return http2.frame(http2.WINDOW_UPDATE, stream, size.to_bytes(4, "big"))


async def ask(client: RawClient, count: int, path: bytes = WATCH) -> None:
    for number in range(count):
        client.call(path, http2.message(b""), stream=2 * number + 1)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams whose calls have looked for room."""
    found: list[int] = []
    look = GrpcConnection.room_of

    def looked(self: GrpcConnection, call: GrpcCall) -> int:
        found.append(call.number)
        return look(self, call)

    monkeypatch.setattr(GrpcConnection, "room_of", looked)
    return found


def test_room_of_the_connection_wakes_no_call_whose_stream_has_none(looks: list[int]) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.send(window(0))
            await ask(client, WATCHES)
            await until(lambda: len(looks) == WATCHES)
            client.send(room(0, 1) * 500)
            client.call(b"/none", stream=2 * WATCHES + 1)
            await client.trailers(2 * WATCHES + 1)
            assert len(looks) == WATCHES
            client.send(room(5, 100))
            while (found := await client.frame()) is not None and found.kind != http2.DATA:
                pass
            assert found is not None
            assert found.stream == 5

    assert with_server(test) == []


def test_each_response_goes_on_when_the_room_of_all_streams_grows() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.send(window(0))
            await ask(client, 100, HEALTH)
            (connection,) = await _connected(served)
            await until(lambda: connection._writers.stalled_count == 100)
            client.send(window(1_000))
            for number in range(100):
                await _ended(client, 2 * number + 1)

    assert with_server(test) == []


def test_responses_go_on_in_order_as_the_connection_gets_room(looks: list[int]) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, http2.message(b""))
            await client.trailers()
            (connection,) = await _connected(served)
            connection._http.outbound_flow_control_window = 0
            for number in range(1, 101):
                client.call(HEALTH, http2.message(b""), stream=2 * number + 1)
            await until(lambda: len(looks) == 101)
            client.send(room(0, 3))
            seen: list[int] = []
            data = b""
            while len(data) < 3:
                found = await client.frame()
                assert found is not None
                data += found.payload if found.kind == http2.DATA else b""
            assert len(looks) <= 105, "one call looks for room, and perhaps the next one"
            client.send(room(0, 100_000))
            while len(seen) < 100:
                found = await client.frame()
                assert found is not None
                if found.flags & http2.END_STREAM and found.kind == http2.HEADERS:
                    seen.append(found.stream)
            assert sorted(seen) == [2 * number + 1 for number in range(1, 101)]
            rest = [each for each in seen if each != 3]
            assert rest == sorted(rest), "those that came first go first"

    assert with_server(test) == []


def test_a_response_that_is_given_up_lets_the_next_one_go_on() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, http2.message(b""))
            await client.trailers()
            (connection,) = await _connected(served)
            connection._http.outbound_flow_control_window = 0
            for stream in (3, 5):
                client.call(HEALTH, http2.message(b""), stream=stream)
            await until(lambda: len(connection._writers._queue) == 2)
            client.send(room(0, 1_000), http2.frame(http2.RESET, 3, (8).to_bytes(4, "big")))
            assert (await client.trailers(5))["grpc-status"] == "0"

    assert with_server(test) == []


def test_a_client_that_gives_room_for_each_part_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FRAMES_BURST", 10)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            for number in range(200):
                stream = 2 * number + 1
                client.call(HEALTH, http2.message(b""), stream=stream)
                assert (await client.trailers(stream))["grpc-status"] == "0"
                client.send(room(0, 7), room(stream, 7), http2.frame(http2.PRIORITY, stream, bytes(5)))

    assert with_server(test) == []


async def _connected(served: Served) -> list[GrpcConnection]:
    await until(lambda: served.connections == 1)
    return list(served.server._connections)


async def _ended(client: RawClient, stream: int) -> None:
    if "grpc-status" not in client.headers.get(stream, {}):
        assert (await client.trailers(stream))["grpc-status"] == "0"
