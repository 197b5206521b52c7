"""A gRPC server beside a test, and a client that sends any frames of HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import hpack
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockring.addresses import split_address
from lockring.grpc_api.server import GrpcServer
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN
from tests.hostile import http2
from tests.unit.grpc_api.test_drains import SilentLife, host_of
from tests.unit.net.serving import until

__all__ = ["until"]

PATIENCE_S = 60.0
HEALTH = b"/grpc.health.v1.Health/Check"
WATCH = b"/grpc.health.v1.Health/Watch"
LOCK = b"/lockring.v1.LockService/Lock"
KEEP = b"/lockring.v1.LockService/KeepAlive"


class Served(NamedTuple):
    """A server, and the address of its port."""

    server: GrpcServer
    address: str

    @property
    def calls(self) -> int:
        return len(self.server._tasks)

    @property
    def connections(self) -> int:
        return len(self.server._connections)


def with_server(
    test: Callable[[Served], Awaitable[None]], *, gate: AccessGate | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Run a test beside the API of a node, and return the errors that would end the node."""
    broken: list[dict[str, Any]] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # grpcio's clients of all event loops share one queue: here comes what a test before has left, whose loop is
        # closed. No server of lockring has such clients.
        if "PollerCompletionQueue" not in context["message"]:
            broken.append(context)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        server = GrpcServer(host_of(SilentLife()), gate or AccessGate(OPEN, server="n1"), **more)
        address = await server.start("127.0.0.1:0")
        try:
            await asyncio.wait_for(test(Served(server, address)), PATIENCE_S)
        finally:
            await server.stop(0)
        assert server._shares.held_bytes == 0, "what calls have kept is given back"

    asyncio.run(main())
    return broken


async def health_of(address: str) -> Any:
    """The answer of the health service."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        return await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_S)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class RawClient:
    """A client that sends frames as they are given, and reads those of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._decoder = hpack.Decoder()
        self.headers: dict[int, dict[str, str]] = {}

    @classmethod
    async def open(cls, address: str, *, greets: bool = True) -> Self:
        made = cls(*await asyncio.open_connection(*split_address(address)))
        if greets:
            made.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0))
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def call(
        self, path: bytes, body: bytes = b"", more: Any = (), *, stream: int = 1, ends: bool = True
    ) -> None:
        """Begin a call, with one request if `body` is given."""
        self.send(
            http2.frame(http2.HEADERS, stream, http2.call_headers(path, more), flags=http2.END_HEADERS),
            http2.frame(http2.DATA, stream, body, flags=http2.END_STREAM if ends else 0),
        )

    async def frame(self) -> Frame | None:
        """The next frame, None at the end of the connection."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        found = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        if found.kind == http2.HEADERS:
            decoded = self._decoder.decode(payload)
            self.headers.setdefault(found.stream, {}).update({str(k): str(v) for k, v in decoded})
        return found

    async def trailers(self, stream: int = 1) -> dict[str, str]:
        """Headers and trailers of a call, at its end."""
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self.frame()) is not None:
                if found.kind == http2.HEADERS and found.stream == stream and found.flags & http2.END_STREAM:
                    return self.headers[stream]
        raise AssertionError("the connection has ended before the call")

    async def end(self) -> list[Frame]:
        """All frames up to the end of the connection."""
        found = []
        async with asyncio.timeout(PATIENCE_S):
            while (each := await self.frame()) is not None:
                found.append(each)
        return found


def goodbye_of(frames: list[Frame]) -> tuple[int, bytes]:
    """The error code and the text with which a server has ended a connection."""
    (last,) = [each for each in frames if each.kind == http2.GO_AWAY]
    return int.from_bytes(last.payload[4:8], "big"), last.payload[8:]
