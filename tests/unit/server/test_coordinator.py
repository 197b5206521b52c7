"""A coordinator's server over real sockets: what it does with connections that break the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lockring.net.frames import encode_frame
from lockring.protocol import PROTOCOL, ClientHello, Heartbeat, Join, Message, Welcome
from lockring.server.coordinator import CoordinatorServer
from lockring.server.settings import CoordinatorSettings
from tests.cluster.wire import Wire
from tests.unit.net.serving import run, until

HELLO = ClientHello(PROTOCOL, "", "client", 1)
JOIN = Join(PROTOCOL, "", "n", 1, "127.0.0.1:9501", 1, 0)


def with_server(test: Callable[[CoordinatorServer], Awaitable[None]]) -> None:
    """Run a test's coroutine with a coordinator that listens."""

    async def main() -> None:
        server = CoordinatorServer(CoordinatorSettings(listen="127.0.0.1:0", new_cluster=True))
        await server.start()
        try:
            await until(lambda: server._core.is_active)
            await test(server)
        finally:
            await server.stop()

    run(main())


@pytest.mark.parametrize("late", [HELLO, JOIN], ids=["hello", "join"])
def test_a_second_first_message_behind_a_refused_one_uses_up_no_clients_place(late: Message) -> None:
    async def test(server: CoordinatorServer) -> None:
        listener = server._listener
        listener._limits._clients_max = 2
        for _ in range(3):
            with Wire(server.address) as wire:
                assert isinstance(await asyncio.to_thread(wire.greet), Welcome)
                wire.write(encode_frame(Heartbeat(1, 0)) + encode_frame(late))
                assert (await asyncio.to_thread(wire.refusal)).code == "wrong-role"
            await until(lambda: not list(listener.connections))
        with Wire(server.address) as one, Wire(server.address) as other:
            for wire in (one, other):
                assert isinstance(await asyncio.to_thread(wire.greet), Welcome)

    with_server(test)
