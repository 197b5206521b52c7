"""Programs that speak TLS in an event loop, and ports for them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from lockring.security.handshakes import HandshakeGate
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tls_layer import TlsError, TlsLayer
from lockring.security.tls_policy import ClientTls, PortContexts, TlsPolicy
from lockring.security.tls_protocol import PEER_CERTIFICATE, accepting, open_tls
from tests.unit.security.conftest import Certs

Run = Callable[[Coroutine[Any, Any, None]], None]
MEGABYTE = 1024 * 1024


class Program(asyncio.Protocol):
    """A program's protocol that keeps what it sees; a server's sends everything back."""

    made: list[Program]

    def __init__(self, *, echoes: bool = False) -> None:
        self.echoes = echoes
        self.transport: asyncio.Transport
        self.certificate: PeerCertificate | None = None
        self.data = bytearray()
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.grew = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = cast(asyncio.Transport, transport)
        self.certificate = transport.get_extra_info(PEER_CERTIFICATE)

    def data_received(self, data: bytes) -> None:
        assert self.events == ["made"]
        self.data += data
        self.grew.set()
        if self.echoes:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)

    async def received(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            while len(self.data) < count:
                self.grew.clear()
                await self.grew.wait()
        return bytes(self.data)


class Port:
    """A port that echoes, with what it has accepted."""

    def __init__(self, address: tuple[str, int], gate: HandshakeGate) -> None:
        self.address = address
        self.gate = gate
        self.programs: list[Program] = []
        self.failures: list[str] = []

    async def dial(self, context: ssl.SSLContext, name: str = "localhost") -> Program:
        """Connect, and have something echoed: only then it is known that the server has accepted too."""
        _, program = await open_tls(Program, *self.address, lambda: TlsLayer.dial(context, name))
        program.transport.write(b"hello")
        while not program.data and not program.lost.done():
            program.grew.clear()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(program.grew.wait()), program.lost]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            waits[0].cancel()
        return program


@asynccontextmanager
async def open_port(contexts: Callable[[], PortContexts], **options: Any) -> AsyncIterator[Port]:
    loop = asyncio.get_running_loop()
    gate = HandshakeGate(**options, on_failure=lambda _, reason: port.failures.append(reason))

    def make() -> Program:
        program = Program(echoes=True)
        port.programs.append(program)
        return program

    server = await loop.create_server(accepting(make, contexts, gate), "127.0.0.1", 0)
    port = Port(server.sockets[0].getsockname()[:2], gate)
    try:
        yield port
    finally:
        server.close()
        for program in port.programs:
            program.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


def port_of(policy: TlsPolicy, **options: Any) -> Any:
    return open_port(lambda: policy.port_contexts, **options)


def client(certs: Certs, files: Any = None, ca: str = "ca") -> ssl.SSLContext:
    return ClientTls(certs.paths(files, ca)).context


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.01)


async def refused(port: Port, context: ssl.SSLContext, reason: str, name: str = "localhost") -> None:
    """Dial, and find that the port refuses; with TLS 1.3 the dialing side may learn so after its own handshake."""
    try:
        program = await port.dial(context, name)
    except TlsError:
        pass
    else:
        assert not program.data
    await until(lambda: bool(port.failures))
    assert port.failures == [reason]
    assert port.programs == []
    assert port.gate.under_way == 0
