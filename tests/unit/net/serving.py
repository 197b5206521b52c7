"""A listener with a host that notes what happens, in an event loop of the kind that servers run in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, ProtocolError
from lockring.net.accepted import CLIENT, PEER, AcceptedConnection
from lockring.net.connection import Outbox
from lockring.net.listener import Listener
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    GetState,
    Message,
    PeerHello,
    StateReply,
    Welcome,
)
from tests.processes import PATIENCE_S

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on uvloop, with a bound."""
    import uvloop

    async def bounded() -> T:
        async with asyncio.timeout(1.5 * PATIENCE_S):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, not one event
            await asyncio.sleep(0.005)


class EchoHost:
    """Welcomes clients and peers, and answers `GetState` with the request's number."""

    def __init__(self, *, clients_max: int = 100) -> None:
        self.outbox = Outbox()
        self.listener = Listener(self, self.outbox, clients_max=clients_max)
        self.address = ""
        self.answer = b""
        self.most_at_once = 1_000_000
        self.refused: tuple[type[Message], ...] = (Acquire,)
        self.on_deliver: Callable[[AcceptedConnection], None] = lambda _guest: None
        self.refuses: LockringError | None = None
        self.longest_queue = 0
        self.arrived: list[Message] = []
        self.left: list[str] = []
        self.greeted: list[Message] = []

    async def start(self, address: str = "127.0.0.1:0") -> None:
        self.address = await self.listener.open(address)
        await self.listener.begin()

    async def stop(self) -> None:
        self.listener.close("the test is over")
        await self.listener.closed(1.0)

    def greet(self, guest: AcceptedConnection, hello: Message) -> None:
        if self.refuses is not None:
            raise self.refuses
        if not isinstance(hello, (ClientHello, PeerHello)):
            raise ProtocolError("no hello")
        if isinstance(hello, ClientHello):
            guest.require_client_room()
        guest.admit(
            CLIENT if isinstance(hello, ClientHello) else PEER, Welcome(PROTOCOL, "c", "node", "N1", 1, 1)
        )
        self.greeted.append(hello)
        self.outbox.flush()

    def deliver(self, guest: AcceptedConnection, messages: list[Message], now_ns: int) -> int:
        self.on_deliver(guest)
        if len(messages) > self.most_at_once:
            guest.hold(messages[self.most_at_once :])
            messages = messages[: self.most_at_once]
        for message in messages:
            self.arrived.append(message)
            if isinstance(message, self.refused):
                raise ProtocolError(f"not {type(message).__name__}")
            if isinstance(message, GetState):
                guest.send(StateReply(message.request, self.answer))
            self.longest_queue = max(self.longest_queue, sum(map(len, guest._out)))
        self.outbox.flush()
        return monotonic_ns()

    def connection_closed(self, guest: AcceptedConnection, reason: str) -> None:
        self.left.append(reason)


def with_host(test: Callable[[EchoHost], Awaitable[None]], *, clients_max: int = 100) -> Callable[[], None]:
    """Run a test's coroutine with a host that is listening."""

    async def main() -> None:
        host = EchoHost(clients_max=clients_max)
        await host.start()
        try:
            await test(host)
        finally:
            await host.stop()

    return lambda: run(main())
