"""Calls that no library would make: they end themselves, and neither the node nor other calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockring.addresses import split_address
from lockring.grpc_api.server import GrpcServer
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN
from tests.hostile import http2
from tests.unit.grpc_api.test_drains import SilentLife, host_of

PATIENCE_S = 60.0
GARBAGE = b"\xff\xff\xff\xff"


def with_server(test: Callable[[str], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run a test with the address of a node's API, and return the errors that would end the node."""
    broken: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
        server = GrpcServer(host_of(SilentLife()), AccessGate(OPEN, server="n1"))
        address = await server.start("127.0.0.1:0")
        try:
            await asyncio.wait_for(test(address), PATIENCE_S)
        finally:
            await server.stop(0)

    asyncio.run(main())
    return broken


async def health_of(address: str) -> Any:
    """The answer of the health service, once there is one."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        return await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_S)


async def send_call(address: str, path: bytes) -> None:
    """Make a call of a path, and wait for the end of the connection."""
    host, port = split_address(address)
    reader, writer = await asyncio.open_connection(host, port)
    headers = http2.call_headers(path)
    call = http2.frame(http2.HEADERS, 1, headers, flags=http2.END_HEADERS | http2.END_STREAM)
    writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0) + call)
    await writer.drain()
    while await reader.read(65_536):
        pass
    writer.close()


def test_a_path_that_is_no_text_ends_the_connections_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "lockring.grpc")

    async def test(address: str) -> None:
        for _ in range(3):
            await send_call(address, b"/\xff\xfe")
            assert (await health_of(address)).status == health_pb2.HealthCheckResponse.NOT_SERVING

    assert with_server(test) == []
    told = "the gRPC API has ended because of a malformed call, and begins again: 'utf-8' codec"
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize(
    "method",
    ["/lockring.v1.LockService/Lock", "/lockring.v1.LockService/Watch", "/grpc.health.v1.Health/Check"],
)
def test_a_request_that_cannot_be_read_is_invalid(method: str) -> None:
    async def test(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
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
    async def test(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.stream_stream(method)()
            await call.write(GARBAGE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    assert with_server(test) == []


def test_methods_that_write_their_answers_still_do() -> None:
    async def test(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            call.cancel()

    assert with_server(test) == []


def test_only_so_many_connections_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockring.grpc_api.server.CONNECTIONS_MAX", 5)

    async def test(address: str) -> None:
        host, port = split_address(address)
        others = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0))
            assert await reader.read(1), "it greets with its settings"
            others.append(writer)
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read(1) == b"", "one more is closed at once"
        writer.close()
        others.pop().close()
        assert (await health_of(address)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for each in others:
            each.close()

    assert with_server(test) == []


def test_an_error_of_another_part_goes_to_the_former_handler() -> None:
    async def test(address: str) -> None:
        async def fail() -> None:
            raise LookupError("not the API's")

        await asyncio.wait([asyncio.get_running_loop().create_task(fail())])

    (context,) = with_server(test)
    assert isinstance(context["exception"], LookupError)
