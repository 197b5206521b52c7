"""A listening port: accepts connections, and ends them all when it closes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

import msgspec

from lockring.addresses import format_address, split_address
from lockring.errors import CannotListen
from lockring.ids import ConnectionId
from lockring.net.accepted import AcceptedConnection, ConnectionHandler, PortContext
from lockring.net.connection import Outbox
from lockring.net.descriptors import CLIENTS_MAX, room_for
from lockring.net.limits import ConnectionLimits, RefusalLog
from lockring.net.turns import TurnScheduler
from lockring.protocol import ToCoordinator, ToNode
from lockring.system_errors import listen_failure

_BACKLOG: Final = 1024

Securing = Callable[[Callable[[], asyncio.Protocol]], Callable[[], asyncio.Protocol]]
"""Puts TLS below the protocols that a function makes, one for each accepted connection."""


class Listener:
    """A listening port. Lives in one event loop.

    Args:
        handler: handles the accepted connections.
        outbox: holds their writes until the flush.
        clients_max: how many clients to accept, if the system allows as many.
        ports: how many listeners share the descriptors of this process.
    """

    def __init__(
        self, handler: ConnectionHandler, outbox: Outbox, *, clients_max: int = CLIENTS_MAX, ports: int = 1
    ) -> None:
        self._limits = ConnectionLimits(clients_max)
        self._context = PortContext(
            handler=handler,
            outbox=outbox,
            limits=self._limits,
            turns=TurnScheduler(),
            refusals=RefusalLog(),
            connections={},
            emptied=asyncio.Event(),
        )
        self._connections = self._context.connections
        # The messages to any server: a message to the wrong kind of server is then not mistaken for garbage.
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToNode | ToCoordinator)
        self._ports = ports
        self._numbers = cast("Callable[[], ConnectionId]", itertools.count(1).__next__)
        self._server: asyncio.Server | None = None
        self._address = ""

    @property
    def connections(self) -> Iterable[AcceptedConnection]:
        """All open connections."""
        return self._connections.values()

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def open(self, address: str, *, secure: Securing | None = None) -> str:
        """Take the port HOST:PORT without accepting connections yet; port 0 takes any free one.

        Args:
            address: HOST:PORT.
            secure: puts TLS below each connection; None for connections without TLS.

        Returns:
            HOST:PORT with the actual port.

        Raises:
            InvalidRequest: the address is malformed.
            ConfigError: the system lets this process open too few files.
            CannotListen: the port is taken, or the host is unknown or not of this machine.
        """
        host, port = split_address(address)
        self._limits.fit(room_for(self._ports))
        loop = asyncio.get_running_loop()
        make = self._make if secure is None else secure(self._make)
        try:
            self._server = await loop.create_server(make, host, port, backlog=_BACKLOG, start_serving=False)
        except OSError as error:
            raise CannotListen(f"cannot listen on {address}: {listen_failure(error)}") from error
        sockets: Sequence[Any] = cast(Any, self._server).sockets  # a tuple, but a list with uvloop
        self._address = format_address(host, sockets[0].getsockname()[1])
        return self._address

    async def begin(self) -> None:
        """Accept connections from now on.

        Raises:
            CannotListen: another process was faster.
        """
        assert self._server is not None
        try:
            await self._server.start_serving()
        except OSError as error:
            raise CannotListen(f"cannot listen on {self._address}: {listen_failure(error)}") from error

    def close(self, reason: str) -> None:
        """Stop accepting connections, and end all of them once their pending writes are delivered."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections.values()):
            connection.close(reason)

    async def closed(self, timeout_s: float) -> None:
        """Wait, after `close`, until all connections have ended; cut those that have not in time."""
        if self._connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._context.emptied.wait()
        for connection in list(self._connections.values()):
            connection.abort("the server stops")

    def connection(self, number: ConnectionId) -> AcceptedConnection | None:
        """Return the open connection of that number, None if it has ended."""
        return self._connections.get(number)

    def _make(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, AcceptedConnection(self._context, self._numbers(), self._decoder))
