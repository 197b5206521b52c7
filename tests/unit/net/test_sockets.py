"""How hosts are looked up, and connections whose other side resets them at the moment of their orderly end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from lockring.net.sockets import end_writing, open_connection
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


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("localhost:1", b"localhost"),
        ("[fe80::1%eth0]:1", b"fe80::1%eth0"),
        ("bücher.example:1", "bücher.example"),
    ],
)
def test_only_international_names_are_looked_up_as_text(
    monkeypatch: pytest.MonkeyPatch, address: str, host: str | bytes
) -> None:
    asked: list[tuple[object, object]] = []

    def look_up(host: object, port: object, *_: object) -> None:
        asked.append((host, port))
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(socket.gaierror):
        open_connection(address, PATIENCE_S)
    assert asked == [(host, 1)]
