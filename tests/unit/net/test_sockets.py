"""Connections whose other side resets them at the moment of their orderly end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from lockring.net.sockets import end_writing
from tests.unit.net.serving import PATIENCE_S

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("make_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_the_end_of_a_connection_that_was_reset_is_its_end_and_no_error(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    broken: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: broken.append(context))
        ended = asyncio.Event()

        class Program(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ended.set()

        listening = socket.create_server(("127.0.0.1", 0))
        made, _ = await loop.create_connection(Program, *listening.getsockname())
        transport: asyncio.Transport = made
        transport.pause_reading()
        other, _ = listening.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        listening.close()
        end_writing(transport)
        transport.abort()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert broken == []
