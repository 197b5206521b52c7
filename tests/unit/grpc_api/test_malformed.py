"""Calls and frames that no library would make: they end themselves, or their connection, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockring.grpc_api import connection as connections
from lockring.grpc_api import dispatch, shares
from lockring.grpc_api import server as servers
from lockring.grpc_api.messages import MESSAGE_BYTES_MAX
from lockring.grpc_api.shares import CALLS_PER_CONNECTION_MAX
from tests.hostile import http2
from tests.unit.grpc_api.serving import (
    HEALTH,
    KEEP,
    LOCK,
    PATIENCE_S,
    WATCH,
    RawClient,
    Served,
    goodbye_of,
    health_of,
    until,
    with_server,
)

REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST = http2.message(b"\x3a\x00")
"""Asks the reflection for all services."""

GARBAGE = b"\xff\xff\xff\xff"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ENHANCE_YOUR_CALM = 11


def test_a_path_that_is_no_text_ends_its_call_and_nothing_else() -> None:
    async def test(served: Served) -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == NOT_SERVING
            async with await RawClient.open(served.address) as client:
                for stream in (1, 3, 5):
                    client.call(b"/\xff\xfe", stream=stream)
                    assert (await client.trailers(stream))["grpc-status"] == "12"
                client.call(HEALTH, http2.message(b""), stream=7)
                assert (await client.trailers(7))["grpc-status"] == "0", "its own connection goes on too"
            served.server.note_serving(True)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()

    assert with_server(test) == []


@pytest.mark.parametrize(
    "headers",
    [
        http2.header_block([(b":method", b"POST")]),
        http2.header_block([(b":path", HEALTH), (b":path", HEALTH)]),
        http2.call_headers(HEALTH, [(b"X-Upper", b"1")]),
        http2.call_headers(HEALTH, [(b"connection", b"close")]),
        http2.call_headers(HEALTH, [(b"x", b"y" * 20_000)]),
        b"\xff\xff\xff\xff\xff\xff",
    ],
)
def test_headers_that_http_does_not_allow_end_their_connection_alone(headers: bytes) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            parts = [headers[at : at + 16_384] for at in range(0, len(headers), 16_384)]
            kinds = [http2.HEADERS] + [http2.CONTINUATION] * (len(parts) - 1)
            for number, (kind, part) in enumerate(zip(kinds, parts, strict=True)):
                client.send(http2.frame(kind, 1, part, flags=4 if number == len(parts) - 1 else 0))
            assert goodbye_of(await client.end())[0] > 0
        assert (await health_of(served.address)).status == NOT_SERVING

    assert with_server(test) == []


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (((b"grpc-timeout", b"99999999999H"),), "3"),
        (((b"grpc-timeout", b"soon"),), "3"),
        (((b"grpc-timeout", b"99999999H"),), "0"),
        (((b"grpc-encoding", b"brotli"),), "12"),
        (((b"x-bin", b"!!!"),), "0"),
    ],
)
def test_a_header_that_is_wrong_ends_its_call(more: Any, status: str) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, http2.message(b""), more)
            assert (await client.trailers())["grpc-status"] == status

    assert with_server(test) == []


def test_what_is_no_call_of_grpc_gets_a_status_of_http() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            usual = [(b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x")]
            for stream, method, status in ((1, b"GET", "405"), (3, b"POST", "415")):
                block = http2.header_block([(b":method", method), *usual])
                client.send(http2.frame(http2.HEADERS, stream, block, flags=5))
                assert (await client.trailers(stream))[":status"] == status
        assert served.calls == 0

    assert with_server(test) == []


@pytest.mark.parametrize(
    "method",
    ["/lockring.v1.LockService/Lock", "/lockring.v1.LockService/Watch", "/grpc.health.v1.Health/Check"],
)
def test_a_request_that_cannot_be_read_is_invalid(method: str) -> None:
    async def test(served: Served) -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            call: Any = (
                channel.unary_stream(method)(GARBAGE)
                if "Watch" in method
                else channel.unary_unary(method)(GARBAGE)
            )
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "cannot be read" in await call.details()

    assert with_server(test) == []


@pytest.mark.parametrize(
    "method",
    ["/lockring.v1.LockService/KeepAlive", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"],
)
def test_a_request_in_a_stream_that_cannot_be_read_ends_the_stream(method: str) -> None:
    async def test(served: Served) -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            call: Any = channel.stream_stream(method)()
            await call.write(GARBAGE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    assert with_server(test) == []


@pytest.mark.parametrize("path", [LOCK, KEEP, HEALTH])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (http2.message(b"", announced=2**32 - 1), "8"),
        (http2.message(b"", announced=MESSAGE_BYTES_MAX + 1), "8"),
        (http2.message(b"", announced=5), "3"),
        (b"\x02\x00\x00\x00\x00", "3"),
        (http2.message(b"x", is_compressed=True), "13"),
        (b"\x00", "3"),
    ],
)
def test_a_message_that_is_too_long_or_misframed_ends_its_call(path: bytes, body: bytes, status: str) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(path, body)
            assert (await client.trailers())["grpc-status"] == status
            client.call(HEALTH, http2.message(b""), stream=3)
            assert (await client.trailers(3))["grpc-status"] == "0"

    assert with_server(test) == []


def test_a_call_without_a_request_is_invalid() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(LOCK)
            assert (await client.trailers())["grpc-status"] == "3"

    assert with_server(test) == []


def test_compressed_requests_are_read_and_may_not_grow_beyond_the_limit() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            bomb = zlib.compress(bytes(MESSAGE_BYTES_MAX + 1))
            for stream, body, status in (
                (1, zlib.compress(b""), "0"),
                (3, bomb, "8"),
                (5, bomb[:-10], "3"),
                (7, b"?", "3"),
            ):
                message = http2.message(body, is_compressed=True)
                client.call(HEALTH, message, [(b"grpc-encoding", b"deflate")], stream=stream)
                assert (await client.trailers(stream))["grpc-status"] == status

    assert with_server(test) == []


def test_methods_that_answer_many_times_still_do() -> None:
    async def test(served: Served) -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == NOT_SERVING
            call.cancel()

    assert with_server(test) == []


def test_only_so_many_connections_are_accepted() -> None:
    async def test(served: Served) -> None:
        others = []
        for _ in range(5):
            other = await RawClient.open(served.address)
            assert await other.frame(), "it greets with its settings"
            others.append(other)
        async with await RawClient.open(served.address) as client:
            assert await client.end() == [], "one more is closed at once"
        others.pop().writer.close()
        await until(lambda: served.connections == 4)
        assert (await health_of(served.address)).status == NOT_SERVING
        for each in others:
            each.writer.close()

    assert with_server(test, connections_max=5) == []


def test_calls_that_are_reset_at_once_leave_nothing() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            for number in range(400):
                client.send(begun_and_reset(2 * number + 1))
            client.call(HEALTH, http2.message(b""), stream=801)
            assert (await client.trailers(801))["grpc-status"] == "0"
            (connection,) = served.server._connections
            await until(lambda: served.calls == 0)
            assert connection.calls == {}

    assert with_server(test) == []


@pytest.mark.parametrize(
    "frame",
    [
        http2.frame(http2.PING, 0, bytes(8)),
        http2.frame(http2.SETTINGS, 0),
        http2.frame(http2.DATA, 1),
        http2.frame(200, 0, b"?"),
        http2.frame(http2.WINDOW_UPDATE, 0, (1).to_bytes(4, "big")),
        http2.frame(http2.WINDOW_UPDATE, 1, (1).to_bytes(4, "big")),
        http2.frame(http2.PRIORITY, 1, bytes(5)),
        http2.frame(http2.PING, 0, bytes(8), flags=1),
    ],
)
def test_a_flood_of_frames_that_carry_nothing_ends_its_connection(frame: bytes) -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(KEEP, ends=False)
            client.send(frame * 3_000)
            assert goodbye_of(await client.end()) == (
                ENHANCE_YOUR_CALM,
                b"too many frames that begin no call",
            )
        assert (await health_of(served.address)).status == NOT_SERVING

    assert with_server(test) == []


def test_a_connection_that_has_ended_leaves_nothing_to_collect() -> None:
    async def test(served: Served) -> None:
        gc.collect()
        gc.disable()
        try:
            async with await RawClient.open(served.address) as client:
                client.call(HEALTH, http2.message(b""))
                await client.trailers()
                client.call(WATCH, http2.message(b""), stream=3)
                await until(lambda: served.calls == 1)
                (connection,) = served.server._connections
                parts: list[Callable[[], object]] = [weakref.ref(connection), weakref.ref(connection._http)]
                del connection
            await until(lambda: all(each() is None for each in parts))
        finally:
            gc.enable()

    assert with_server(test) == []


def begun_and_reset(stream: int) -> bytes:
    """A call that its client gives up at once."""
    headers = http2.frame(http2.HEADERS, stream, http2.call_headers(KEEP), flags=http2.END_HEADERS)
    return headers + http2.frame(http2.RESET, stream, (8).to_bytes(4, "big"))


def test_resets_may_come_more_often_and_not_forever() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            for number in range(3_000):
                client.send(begun_and_reset(2 * number + 1))
            client.call(HEALTH, http2.message(b""), stream=99_999)
            assert (await client.trailers(99_999))["grpc-status"] == "0", "as when many deadlines pass"
            for number in range(50_000, 64_000):
                client.send(begun_and_reset(2 * number + 1))
            assert goodbye_of(await client.end())[0] == ENHANCE_YOUR_CALM
        await until(lambda: served.calls == 0)

    assert with_server(test) == []


def test_a_client_cannot_have_the_server_keep_more_headers_of_responses() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            table_size = b"\x00\x01" + (2**31).to_bytes(4, "big")
            client.send(http2.frame(http2.SETTINGS, 0, table_size))
            client._decoder.max_allowed_table_size = 2**31
            client.call(HEALTH, http2.message(b""))
            assert (await client.trailers())["grpc-status"] == "0"
            (connection,) = served.server._connections
            assert connection._http.encoder.header_table_size == 4096

    assert with_server(test) == []


def test_responses_that_are_not_read_are_bounded_over_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "HELD_BYTES_MAX", 500)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            no_room = b"\x00\x04" + (0).to_bytes(4, "big")
            client.send(http2.frame(http2.SETTINGS, 0, no_room))
            for number in range(8):
                client.call(REFLECTION, LIST, stream=2 * number + 1, ends=False)
            assert (await client.trailers(15))["grpc-status"] == "8"

    assert with_server(test) == []


def test_headers_without_an_end_do_not_grow() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.send(http2.frame(http2.HEADERS, 1, http2.header_block([(b"x", b"y")])))
            more = http2.frame(http2.CONTINUATION, 1, http2.header_block([(b"x" * 100, b"y" * 100)]))
            client.send(more * 10_000)
            assert goodbye_of(await client.end())[0] > 0
        assert (await health_of(served.address)).status == NOT_SERVING

    assert with_server(test) == []


def test_a_client_that_never_reads_is_read_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its many questions are answered as far as there is room, and the others' at once."""
    monkeypatch.setattr(shares, "SIDE_CALLS_MAX", 2_000)
    monkeypatch.setattr(shares, "SIDE_CALLS_PER_CONNECTION_MAX", 1_000)
    monkeypatch.setattr(shares, "SIDE_BYTES_PER_CONNECTION_MAX", shares.SIDE_BYTES_MAX)
    monkeypatch.setattr(shares, "SIDE_BYTES_MAX", shares.HELD_BYTES_MAX)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            transport = client.writer.transport
            transport.pause_reading()  # type: ignore[attr-defined]
            client.send(http2.frame(http2.WINDOW_UPDATE, 0, (2**30).to_bytes(4, "big")))
            for number in range(900):
                client.call(REFLECTION, LIST * 200, stream=2 * number + 1, ends=False)
            (connection,) = served.server._connections
            await until(lambda: connection._is_full)
            mine: Any = connection._transport
            assert not mine.is_reading()
            assert mine.get_write_buffer_size() < 3 * connections.UNREAD_BYTES_MAX
            assert (await health_of(served.address)).status == NOT_SERVING
            transport.abort()
        await until(lambda: served.calls == 0)

    assert with_server(test) == []


def test_a_thousand_calls_are_open_on_one_connection_and_no_more() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            for number in range(CALLS_PER_CONNECTION_MAX):
                client.call(KEEP, stream=2 * number + 1, ends=False)
            await until(lambda: served.calls == CALLS_PER_CONNECTION_MAX)
            client.call(KEEP, stream=2 * CALLS_PER_CONNECTION_MAX + 1, ends=False)
            assert goodbye_of(await client.end())[0] > 0
        await until(lambda: served.calls == 0)

    assert with_server(test) == []


def test_more_calls_than_a_node_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "CALLS_MAX", 3)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            for stream in (1, 3, 5):
                client.call(WATCH, http2.message(b""), stream=stream)
            client.call(HEALTH, http2.message(b""), stream=7)
            assert (await client.trailers(7))["grpc-status"] == "8"

    assert with_server(test) == []


def test_requests_that_never_end_are_bounded_over_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "HELD_BYTES_MAX", 30_000)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            part = http2.message(bytes(10_000), announced=100_000)
            for stream in (1, 3, 5):
                client.call(KEEP, part, stream=stream, ends=False)
            assert (await client.trailers(5))["grpc-status"] == "8"
        await until(lambda: served.server._shares.held_bytes == 0)

    assert with_server(test) == []


def test_a_request_that_does_not_come_ends_its_call_and_a_stream_may_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "REQUEST_S_MAX", 0.05)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(KEEP, stream=1, ends=False)
            for stream, part in ((3, b""), (5, http2.message(b"x", announced=100))):
                client.call(LOCK, part, stream=stream, ends=False)
                found = await client.trailers(stream)
                assert found["grpc-status"] == "4"
                assert "did not come within" in found["grpc-message"]
            await until(lambda: served.calls == 1)

    assert with_server(test) == []


def test_a_client_that_does_not_greet_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GREETING_S_MAX", 0.05)
    monkeypatch.setattr(servers, "_LOOK_S", 0.02)

    async def test(served: Served) -> None:
        for begun in (b"", http2.PREFACE[:10], http2.PREFACE):
            async with await RawClient.open(served.address, greets=False) as client:
                client.send(begun)
                assert goodbye_of(await client.end())[1].startswith(b"no greeting of HTTP/2 came")

    assert with_server(test) == []


def test_a_client_without_a_sign_of_life_is_cut_off_and_its_calls_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "SILENCE_S", 0.05)
    monkeypatch.setattr(connections, "ANSWER_S_MAX", 0.05)
    monkeypatch.setattr(servers, "_LOOK_S", 0.02)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(WATCH, http2.message(b""))
            frames = await client.end()
            assert http2.PING in {each.kind for each in frames}, "it was asked for one"
        await until(lambda: served.calls == 0)

    assert with_server(test) == []


def test_a_client_that_answers_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENCE_S", 0.05)
    monkeypatch.setattr(servers, "_LOOK_S", 0.02)

    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(WATCH, http2.message(b""))
            pings = 0
            while pings < 5:
                found = await client.frame()
                assert found is not None
                if found.kind == http2.PING and not found.flags:
                    pings += 1
                    client.send(http2.frame(http2.PING, 0, found.payload, flags=1))
            assert served.calls == 1

    assert with_server(test) == []


def test_a_server_that_stood_still_reads_what_has_come_before_it_judges_silence() -> None:
    async def test(served: Served) -> None:
        server = served.server

        def look() -> None:
            assert server._timer is not None
            server._timer.cancel()
            server._look()

        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, http2.message(b""))
            await client.trailers()
            (connection,) = server._connections
            connection._alive_ns -= 100 * 10**9
            connection._asked_ns = connection._alive_ns + 1
            server._looked_ns -= 60 * 10**9
            look()
            assert not connection._is_ending
            look()
            assert connection._is_ending
            assert await client.end() == []

    assert with_server(test) == []


def test_a_call_ends_at_its_deadline_and_with_its_connection() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(WATCH, http2.message(b""), [(b"grpc-timeout", b"50m")])
            client.call(WATCH, http2.message(b""), stream=3)
            assert (await client.trailers(1))["grpc-status"] == "4"
            assert served.calls == 1
        await until(lambda: served.calls == 0)

    assert with_server(test) == []


def test_calls_under_way_end_when_the_node_stops() -> None:
    async def test(served: Served) -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            assert (await call.read()).status == NOT_SERVING
            await served.server.stop(0.1)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert (served.calls, served.connections) == (0, 0)

    assert with_server(test) == []


def test_an_error_of_another_part_goes_to_the_handler_of_the_node() -> None:
    async def test(served: Served) -> None:
        async def fail() -> None:
            raise LookupError("not the API's")

        await asyncio.wait([asyncio.get_running_loop().create_task(fail())])

    (context,) = with_server(test)
    assert isinstance(context["exception"], LookupError)
