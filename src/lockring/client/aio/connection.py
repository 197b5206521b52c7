"""One TCP connection of the asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from typing import Protocol, cast

from lockring.client.blocking.connection import CONNECT_S, decoder, not_understood, why_it_ended
from lockring.errors import LockringError, ProtocolError
from lockring.ids import LinkId
from lockring.net.frames import FrameReader
from lockring.net.sockets import tune
from lockring.protocol import Message
from lockring.system_errors import connect_failure, reason_of


class ConnectionOwner(Protocol):
    """The driver, as a connection sees it."""

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        """Handle messages that have arrived."""

    def wire_lost(self, wire: AsyncConnection, reason: str, error: LockringError | None) -> None:
        """Handle the end of a connection, or bytes on it that make no sense."""


class AsyncConnection:
    """One connection, as the event loop drives it, which calls the methods of `asyncio.Protocol`.

    It refers to its driver weakly: the loop keeps the connection, and a client that is forgotten must be noticed.
    """

    def __init__(self, owner: ConnectionOwner, link: LinkId, address: str) -> None:
        self._owner = weakref.ref(owner)
        self._frames: FrameReader[Message] = FrameReader(decoder)
        self._greeted = False
        self.link = link
        self.address = address
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the open connection."""
        # A cast, since uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Decode bytes and hand whole messages to the driver."""
        try:
            messages = self._frames.feed(data)
        except ProtocolError as error:
            wrong = not_understood(self.address, error, self._greeted)
            owner = self._owner()
            if owner is not None:
                owner.wire_lost(self, "", wrong)
            return
        if messages:
            self._greeted = True
            owner = self._owner()
            if owner is not None:
                owner.wire_received(self, messages)

    def eof_received(self) -> bool:
        """Close too: the server will send no more."""
        return False

    def pause_writing(self) -> None:
        """Do nothing: each call waits for its answer, so little is ever unread."""

    def resume_writing(self) -> None:
        """Do nothing."""

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the connection to the driver."""
        reason, wrong = why_it_ended(error, greeted=self._greeted)
        owner = self._owner()
        if owner is not None:
            owner.wire_lost(self, reason, wrong)

    def belong_to(self, owner: ConnectionOwner) -> None:
        """Refer to a driver that was forgotten and still has to close."""
        self._owner = weakref.ref(owner)

    def say_last(self, words: bytes) -> None:
        """Write to the socket directly, since the event loop has ended."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            assert self.transport is not None
            seal = self.transport.get_extra_info("seal")
            with contextlib.suppress(OSError):  # if this does not arrive, the lease runs out instead
                os.write(sock.fileno(), words if seal is None else seal(words))


def why_not_connected(error: Exception) -> str:
    """Return for people why a connection could not be made."""
    if isinstance(error, OSError):
        return connect_failure(error, CONNECT_S)
    return f"cannot be connected to: {reason_of(error)}"
