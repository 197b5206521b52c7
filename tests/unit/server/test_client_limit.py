"""Real servers whose port has room for one client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lockring.net import listener
from lockring.net.descriptors import ConnectionRoom
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    GetState,
    Message,
    PeerHello,
    Refusal,
    StateReply,
    TroubleNotice,
    Welcome,
)
from lockring.server.coordinator import CoordinatorServer
from lockring.server.node import NodeServer
from lockring.server.settings import CoordinatorSettings, NodeSettings
from tests.cluster.wire import Wire
from tests.unit.net.serving import run, until

Server = CoordinatorServer | NodeServer


def node() -> Server:
    return NodeServer(NodeSettings(id="N1", listen="127.0.0.1:0", coordinators=("127.0.0.1:9",), grpc=False))


def coordinator() -> Server:
    return CoordinatorServer(CoordinatorSettings(listen="127.0.0.1:0", new_cluster=True))


@pytest.fixture(params=[node, coordinator])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Server]:
    """The maker of a server, whose port has room for one client."""
    monkeypatch.setattr(listener, "room_for", lambda _ports, **_: ConnectionRoom(1, 16, 64))
    made: Callable[[], Server] = request.param
    return made


def served(make: Callable[[], Server], test: Callable[[str], Awaitable[None]]) -> None:
    """Run a test with the address of a server."""

    async def main() -> None:
        server = make()
        try:
            await server.start()
            if isinstance(server, CoordinatorServer):
                # A client that was welcomed before the cluster had its id has to come back.
                await until(lambda: (core := server._core.deciding) is not None and core.state is not None)
            await test(server.address)
        finally:
            await server.stop()

    run(main())


async def answer(wire: Wire, message: Message) -> Message:
    """Send a message, and return the first answer that is not news."""
    wire.send(message)
    while isinstance(found := await asyncio.to_thread(wire.read), TroubleNotice):
        pass
    return found


def test_a_client_that_comes_twice_at_the_limit_keeps_its_first_connection(
    make: Callable[[], Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lockring.net")

    async def test(address: str) -> None:
        with Wire(address) as first, Wire(address) as second:
            assert isinstance(await answer(first, ClientHello(PROTOCOL, "", "client", 1)), Welcome)
            refusal = await answer(second, ClientHello(PROTOCOL, "", "client", 2))
            assert isinstance(refusal, Refusal)
            assert (refusal.code, "1 client connections" in refusal.text) == ("overloaded", True)
            assert isinstance(await answer(first, GetState(7)), StateReply)
        assert any(line.startswith("refused a stranger") for line in caplog.messages)

    served(make, test)


def test_there_is_room_again_once_the_first_client_has_left(make: Callable[[], Server]) -> None:
    async def test(address: str) -> None:
        with Wire(address) as first:
            assert isinstance(await answer(first, ClientHello(PROTOCOL, "", "one", 1)), Welcome)

        async def comes_in() -> bool:
            with Wire(address) as wire:
                return isinstance(await answer(wire, ClientHello(PROTOCOL, "", "other", 1)), Welcome)

        async with asyncio.timeout(30):
            while not await comes_in():  # until the server has seen the end of the first
                pass

    served(make, test)


def test_a_connection_that_is_not_a_clients_needs_no_room(make: Callable[[], Server]) -> None:
    async def test(address: str) -> None:
        with Wire(address) as first, Wire(address) as peer:
            assert isinstance(await answer(first, ClientHello(PROTOCOL, "", "one", 1)), Welcome)
            refusal = await answer(peer, PeerHello(PROTOCOL, "c", "N2", 1, "N1", 1))
            assert isinstance(refusal, Refusal)
            assert refusal.code != "overloaded", "it is refused for another reason"

    served(make, test)
