"""Holds conversations: many at a time, from one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, cast

from lockring.addresses import split_address
from tests.hostile.conversations import FINAL, Conversation, converse
from tests.hostile.processes import WAIT_S
from tests.hostile.samples import Facts

AT_ONCE: Final = 12
SLOW_AT_ONCE: Final = 150
REMEMBERED: Final = 40

_HURRY_S: Final = 0.3
"""How long to wait for a server to end a connection on which it may well be waiting for the rest of a frame."""


class Port(NamedTuple):
    """A port under attack.

    Attributes:
        name: for the report.
        address: HOST:PORT.
        facts: what is true there.
    """

    name: str
    address: str
    facts: Facts


class Stranger(asyncio.Protocol):
    """One end of a connection that throws away what comes, and notes when it ends."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.ended.set()

    async def wait_for_end(self, timeout_s: float) -> bool:
        """Whether the other side ends the connection within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        return self.ended.is_set()


class Attack:
    """Conversations with all ports in turn.

    Args:
        ports: whom to attack.
        seed: what all conversations follow from.

    Attributes:
        ports: whom it attacks.
        inputs: how many were sent, by kind and name of the port.
        conversations: how many were begun.
        harm: what a server did that it should not.
        recent: the last conversations, for the report of a failure.
    """

    def __init__(self, ports: list[Port], seed: int) -> None:
        self.inputs: Counter[tuple[str, str]] = Counter()
        self.conversations = 0
        self.harm: list[str] = []
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self.ports = ports
        self._seed = seed
        self._slow: set[asyncio.Task[None]] = set()
        self._slow_room = asyncio.Semaphore(SLOW_AT_ONCE)

    async def hold(self, numbers: Iterable[int], enough: Callable[[], bool]) -> None:
        """Hold the conversations of these numbers until there are no more or it is enough."""
        source = iter(numbers)

        async def one_after_the_other() -> None:
            for number in source:
                if enough() or self.harm:
                    return
                await self._begin(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())
        await asyncio.gather(*self._slow)

    async def _begin(self, number: int) -> None:
        port = self.ports[number % len(self.ports)]
        conversation = converse(self._seed, number, port.facts)
        self.conversations += 1
        inputs = " ".join(each[:48].hex() for each in conversation.inputs[:3])
        self.recent.append(
            f"{number} {port.name} {conversation.kind}, {len(conversation.inputs)} inputs: {inputs}"
        )
        if conversation.ending != "silence" and not conversation.byte_pause_s:
            await self._converse(port, conversation)
            return
        await self._slow_room.acquire()
        task = asyncio.ensure_future(self._converse(port, conversation))
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)
        task.add_done_callback(lambda _: self._slow_room.release())

    async def _converse(self, port: Port, conversation: Conversation) -> None:
        host, number = split_address(port.address)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WAIT_S):
                _, stranger = await loop.create_connection(Stranger, host, number)
        except OSError as error:  # also a time-out
            self.harm.append(f"{port.name} does not accept conversation {conversation.number}: {error!r}")
            return
        transport = stranger.transport
        assert transport is not None
        if conversation.opening:
            transport.write(conversation.opening)
        for data in conversation.inputs:
            if stranger.ended.is_set():
                break
            self.inputs[conversation.kind, port.name] += 1
            if conversation.byte_pause_s:
                for byte in data:
                    if stranger.ended.is_set():
                        break
                    transport.write(bytes([byte]))
                    await asyncio.sleep(conversation.byte_pause_s)
            else:
                transport.write(data)
                await asyncio.sleep(0)
        await self._leave(port, conversation, stranger, transport)

    async def _leave(
        self, port: Port, conversation: Conversation, stranger: Stranger, transport: asyncio.Transport
    ) -> None:
        match conversation.ending:
            case "garbage":
                transport.write(FINAL)
                # A frame that was announced longer than it is takes the garbage for its own.
                await stranger.wait_for_end(_HURRY_S if conversation.kind == "noise" else WAIT_S)
            case "silence":
                await stranger.wait_for_end(WAIT_S)
            case "reset":
                sock = transport.get_extra_info("socket")
                if not transport.is_closing():
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if (
            conversation.ending in ("garbage", "silence")
            and conversation.kind != "noise"
            and not stranger.ended.is_set()
        ):
            self.harm.append(
                f"{port.name} does not end conversation {conversation.number}, {conversation.kind}"
            )
        transport.close()
        await stranger.wait_for_end(WAIT_S)
