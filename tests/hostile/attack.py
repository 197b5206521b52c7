"""Holds conversations: many at a time, from one event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from lockring.addresses import split_address
from tests.hostile.conversations import FINAL, Conversation, converse
from tests.hostile.guarded import Language, converse_guarded
from tests.hostile.guises import Guises
from tests.hostile.processes import WAIT_S
from tests.hostile.samples import Facts
from tests.hostile.stranger import Stranger
from tests.hostile.tls_stranger import TlsStranger

AT_ONCE: Final = 12
SLOW_AT_ONCE: Final = 150
REMEMBERED: Final = 40

_PAUSE_S: Final = 0.1
"""How long a stranger stays that leaves after a moment, so that its inputs are handled."""

_HURRY_S: Final = 0.3
"""How long to wait for a server to end a connection on which it may well be waiting for the rest of a frame."""


class Port(NamedTuple):
    """A port under attack.

    Attributes:
        name: for the report.
        address: HOST:PORT.
        facts: what is true there.
        language: what it speaks, above TLS if there is any.
    """

    name: str
    address: str
    facts: Facts
    language: Language = "frames"


class Attack:
    """Conversations with all ports in turn.

    Args:
        ports: whom to attack.
        seed: what all conversations follow from.
        guises: whom strangers pretend to be at ports with TLS; None for ports without.

    Attributes:
        ports: whom it attacks.
        inputs: how many were sent, by kind and name of the port.
        shown: how many conversations were begun in each guise.
        conversations: how many were begun.
        harm: what a server did that it should not.
        recent: the last conversations, for the report of a failure.
    """

    def __init__(self, ports: list[Port], seed: int, guises: Guises | None = None) -> None:
        self.inputs: Counter[tuple[str, str]] = Counter()
        self.shown: Counter[str] = Counter()
        self.conversations = 0
        self.harm: list[str] = []
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self.ports = ports
        self._seed = seed
        self._guises = guises
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
        if self._guises is None:
            conversation = converse(self._seed, number, port.facts)
        else:
            conversation = converse_guarded(self._seed, number, port.facts, port.language)
            self.shown[conversation.shown.guise or "no TLS of its own"] += 1
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

    def _stranger(self, conversation: Conversation, port: Port) -> Stranger:
        shown = conversation.shown
        if self._guises is None or not shown.guise:
            return Stranger()
        context = self._guises.context(
            shown.guise, is_old=shown.is_old, speaks_http2=port.language == "calls"
        )
        return TlsStranger(context, shown.server_name, shown.tamper)

    async def _converse(self, port: Port, conversation: Conversation) -> None:
        stranger = self._stranger(conversation, port)
        try:
            async with asyncio.timeout(WAIT_S):
                transport = await _connect(stranger, port)
                await stranger.opened.wait()
        except OSError as error:  # also a time-out
            self.harm.append(f"{port.name} does not accept conversation {conversation.number}: {error!r}")
            return
        if conversation.opening:
            stranger.send(conversation.opening)
        for data in conversation.inputs:
            if stranger.ended.is_set():
                break
            self.inputs[conversation.kind, port.name] += 1
            if conversation.byte_pause_s:
                for byte in data:
                    if stranger.ended.is_set():
                        break
                    stranger.send(bytes([byte]))
                    await asyncio.sleep(conversation.byte_pause_s)
            else:
                stranger.send(data)
                await asyncio.sleep(0)
        await self._leave(port, conversation, stranger, transport)

    async def _leave(
        self, port: Port, conversation: Conversation, stranger: Stranger, transport: asyncio.Transport
    ) -> None:
        match conversation.ending:
            case "garbage":
                stranger.send(FINAL)
                # A frame that was announced longer than it is takes the garbage for its own.
                await stranger.wait_for_end(_HURRY_S if conversation.kind == "noise" else WAIT_S)
            case "silence":
                await stranger.wait_for_end(WAIT_S)
            case "pause":
                await stranger.wait_for_end(_PAUSE_S)
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
        if conversation.ending == "reset":
            transport.close()
        else:
            stranger.close()
        await stranger.wait_for_end(WAIT_S)


async def _connect(stranger: Stranger, port: Port) -> asyncio.Transport:
    """Connect a stranger. A port with gRPC may be closed for a moment, after a call that has ended its server."""
    host, number = split_address(port.address)
    while True:
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: stranger, host, number)
            return transport
        except OSError:
            if port.language != "calls":
                raise
        await asyncio.sleep(_PAUSE_S)
