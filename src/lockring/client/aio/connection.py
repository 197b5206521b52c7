"""One TCP connection of the asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from typing import TYPE_CHECKING, cast

from lockring.client.blocking.connection import decoder, not_understood
from lockring.errors import ProtocolError
from lockring.net.frames import FrameReader
from lockring.net.sockets import tune
from lockring.protocol import Message

if TYPE_CHECKING:
    from lockring.client.aio.plumbing import AsyncDriverBase


class AsyncConnection(asyncio.Protocol):
    """One connection, as the event loop drives it.

    It refers to its engine weakly: the loop keeps the connection, and a client that is forgotten is to be noticed.
    """

    def __init__(self, engine: AsyncDriverBase, link: int, address: str) -> None:
        self._engine = weakref.ref(engine)
        self._frames: FrameReader[Message] = FrameReader(decoder)
        self._greeted = False
        self.link = link
        self.address = address
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        # A cast, since uvloop's transports are none by inheritance.
        self.transport = cast(asyncio.Transport, transport)
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            messages = self._frames.feed(data)
        except ProtocolError as error:
            wrong = not_understood(self.address, error, self._greeted)
            engine = self._engine()
            if engine is not None:
                engine.wire_lost(self, "", wrong)
            return
        if messages:
            self._greeted = True
            engine = self._engine()
            if engine is not None:
                engine.wire_received(self, messages)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        reason = "the connection was lost" if self._greeted else "closed the connection without a greeting"
        engine = self._engine()
        if engine is not None:
            engine.wire_lost(self, reason, None)

    def belong_to(self, engine: AsyncDriverBase) -> None:
        """Refer to the engine again, which lives on though it was forgotten."""
        self._engine = weakref.ref(engine)

    def say_last(self, words: bytes) -> None:
        """Say something past an event loop that is over."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            with contextlib.suppress(OSError):  # what does not arrive is told by the end of the lease
                os.write(sock.fileno(), words)
