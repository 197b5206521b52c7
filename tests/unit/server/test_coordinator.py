"""A coordinator's server over real sockets: what it does with connections that break the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from lockring.net.frames import encode_frame
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    FromCoordinator,
    GetState,
    Heartbeat,
    Join,
    Message,
    Refusal,
    ToClient,
    Welcome,
)
from lockring.server.coordinator import CoordinatorServer
from lockring.server.settings import CoordinatorSettings
from tests.cluster.wire import Wire
from tests.unit.net.serving import run, until

HELLO = ClientHello(PROTOCOL, "", "client", 1)
HEARTBEAT = Heartbeat(1, 0)
JOIN = Join(PROTOCOL, "", "n", 1, "127.0.0.1:9501", 1, 0)


def with_server(test: Callable[[CoordinatorServer], Awaitable[None]]) -> None:
    """Run a test's coroutine with a coordinator that listens."""

    async def main() -> None:
        server = CoordinatorServer(CoordinatorSettings(listen="127.0.0.1:0", new_cluster=True))
        await server.start()
        try:
            await until(lambda: (core := server._core.deciding) is not None and core.is_active)
            await test(server)
        finally:
            await server.stop()

    run(main())


async def converse(server: CoordinatorServer, *messages: Message) -> Refusal:
    """Send messages on a connection of its own until it is refused."""

    def blocking() -> Refusal:
        with Wire(server.address, accepted=ToClient | FromCoordinator) as wire:
            wire.write(b"".join(map(encode_frame, messages)))
            for message in wire.read_to_end():
                if isinstance(message, Refusal):
                    return message
            raise AssertionError("it was not refused")

    return await asyncio.to_thread(blocking)


@pytest.mark.parametrize(
    ("messages", "level", "line"),
    [
        ((HELLO, HEARTBEAT), "WARNING", "closed the connection of a client at"),
        ((JOIN, GetState(1)), "WARNING", "closed the connection of a node at"),
        ((HEARTBEAT,), "INFO", "refused a stranger at"),
        ((msgspec.structs.replace(JOIN, protocol=PROTOCOL + 1),), "INFO", "refused a stranger at"),
    ],
    ids=["client", "node", "stranger", "join"],
)
def test_a_connection_that_breaks_the_protocol_after_it_was_admitted_is_worth_a_warning(
    messages: tuple[Message, ...], level: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: CoordinatorServer) -> None:
        caplog.clear()
        refusal = await converse(server, *messages)
        (record,) = [
            each
            for each in caplog.records
            if refusal.text in each.getMessage() and "connected" not in each.getMessage()
        ]
        assert record.levelname == level
        assert record.getMessage().startswith(line)

    caplog.set_level("INFO")
    with_server(test)


def test_a_client_for_which_there_is_no_place_is_refused_and_has_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(server: CoordinatorServer) -> None:
        server._listener._limits._clients_max = 0
        assert (await converse(server, HELLO)).code == "overloaded"

    caplog.set_level("INFO")
    with_server(test)
    assert [each for each in caplog.records if each.getMessage().startswith("refused a stranger at")]


def test_a_refused_join_keeps_the_hint_for_the_nodes_next_life() -> None:
    async def test(server: CoordinatorServer) -> None:
        later = msgspec.structs.replace(JOIN, incarnation=9)
        with Wire(server.address, accepted=FromCoordinator) as wire:
            wire.send(later)
            assert isinstance(await asyncio.to_thread(wire.read), Welcome)
        await until(lambda: not list(server._listener.connections))
        refusal = await converse(server, JOIN)
        assert (refusal.code, refusal.name, refusal.hint) == ("stale", "n", 10)

    with_server(test)


@pytest.mark.parametrize("late", [HELLO, JOIN], ids=["hello", "join"])
def test_a_second_first_message_behind_a_refused_one_uses_up_no_clients_place(late: Message) -> None:
    async def test(server: CoordinatorServer) -> None:
        listener = server._listener
        listener._limits._clients_max = 2
        for _ in range(3):
            with Wire(server.address) as wire:
                assert isinstance(await asyncio.to_thread(wire.greet), Welcome)
                wire.write(encode_frame(HEARTBEAT) + encode_frame(late))
                assert isinstance((await asyncio.to_thread(wire.read_to_end))[-1], Refusal)
            await until(lambda: not list(listener.connections))
        with Wire(server.address) as one, Wire(server.address) as other:
            for wire in (one, other):
                assert isinstance(await asyncio.to_thread(wire.greet), Welcome)

    with_server(test)
