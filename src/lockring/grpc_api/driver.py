"""The asyncio client that serves gRPC clients: the client core, with the node of this process beside it.

To that node it leads without a socket, to any other over one ordinary client connection to its lock port. A lock port
forwards nothing, so a call makes at most one hop.

The core acquires on behalf of gRPC clients: each acquisition is a session of its own, and is the gRPC client's from the
grant on. What renews or releases it comes later, perhaps through another node, and names the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from lockring._version import __version__
from lockring.client.aio.connection import AsyncConnection
from lockring.client.aio.driver import AsyncDriver
from lockring.client.aio.watching import WatchReader
from lockring.core.client import BACKLOG_MAX, ClientCore, LossOnBehalf, Query
from lockring.errors import Moved, NotCoordinator, StaleVersion, Unavailable
from lockring.grpc_api.askers import ASKER
from lockring.grpc_api.host import LocalConnection, NodeHost
from lockring.ids import LinkId, LockName, SessionId
from lockring.net.frames import FrameReader
from lockring.net.openers import Opener, open_plain
from lockring.protocol import Message, ToNode
from lockring.random_ids import new_id
from lockring.units import NS_PER_S

PATIENCE_NS: Final = 5 * NS_PER_S
"""How long a question is repeated while no node serves its slot: longer than a failover with the default leases."""

_FOREVER_NS: Final = 10**6 * NS_PER_S
"""Bound of a wait for the first server: the own node is one, and the gRPC call has a deadline of its own."""

AGAIN: Final = (Moved, Unavailable, StaleVersion, NotCoordinator)
"""Errors that say nothing of the lock: the same question may be asked again."""

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ToNode)

LossHandler = Callable[[LossOnBehalf], None]
"""Takes a loss that a node has reported of a session."""


class DriverOwner(Protocol):
    """The driver, as a connection to the own node sees it."""

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        """Handle messages that have arrived."""

    def wire_lost(self, wire: AsyncConnection, reason: str, error: None) -> None:
        """Handle the end of the connection."""


class LocalTransport(asyncio.Transport):
    """The transport of a connection to the node of this process.

    Messages cross as frames, as they do on a socket, so that neither side shares objects with the other. They arrive
    with the next turn of the loop: neither core is entered while it asks for a message to be sent.

    Args:
        host: the node.
        wire: the connection.
        owner: the driver.
    """

    def __init__(self, host: NodeHost, wire: AsyncConnection, owner: DriverOwner) -> None:
        super().__init__()
        self._wire = wire
        self._owner = owner
        self._frames: FrameReader[Message] = FrameReader(_decoder)
        self._arrived: list[Message] = []
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._line: LocalConnection = host.connect_local(self._receive, self._end)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand frames to the node."""
        if not self._is_closed:
            for message in self._frames.feed(bytes(data)):
                self._line.ask(message)

    def is_closing(self) -> bool:
        """Return whether either side has ended the connection."""
        return self._is_closed

    def close(self) -> None:
        """End the connection from the driver's side."""
        if not self._is_closed:
            self._is_closed = True
            self._line.hang_up()

    def abort(self) -> None:
        """End the connection from the driver's side."""
        self.close()

    def _receive(self, message: Message) -> None:
        if not self._arrived:
            self._loop.call_soon(self._deliver)
        self._arrived.append(message)

    def _deliver(self) -> None:
        messages, self._arrived = self._arrived, []
        self._owner.wire_received(self._wire, messages)

    def _end(self, reason: str) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.call_soon(self._owner.wire_lost, self._wire, reason, None)


class NodeDriver(AsyncDriver):
    """The client of one node's gRPC API. Lives in one event loop.

    Args:
        host: the node of this process.
        opener: opens connections to the lock ports of other nodes.
    """

    def __init__(self, host: NodeHost, *, opener: Opener = open_plain) -> None:
        core = ClientCore(
            [host.address],
            owner="",
            new_id=new_id,
            software=f"lockring-grpc {__version__}",
            connect_timeout_ns=_FOREVER_NS,
            session_per_acquisition=True,
        )
        super().__init__([host.address], lambda: "", _FOREVER_NS, core=core, opener=opener)
        self._host = host
        self._loss_handlers: dict[SessionId, dict[LossHandler, None]] = {}

    def begin(self, question: Callable[[ClientCore, int], Query]) -> Query:
        """Begin a query on behalf of the present call's client; see `AsyncDriver`."""
        self._core.ask_for(ASKER.get())
        return super().begin(question)

    def watch(self, name: LockName, *, unread_max: int = BACKLOG_MAX) -> WatchReader:
        """Begin to watch a lock on behalf of the present call's client; see `AsyncDriver`."""
        self._core.ask_for(ASKER.get())
        return super().watch(name, unread_max=unread_max)

    def node_at(self, link: LinkId) -> str:
        """Return the id of the node behind a link, "" if it is closed."""
        found = self._core.link(link)
        return "" if found is None or found.node is None else found.node.replica.node

    def listen(self, session: SessionId, handler: LossHandler) -> None:
        """Call `handler` with each loss that a node reports of this session."""
        self._loss_handlers.setdefault(session, {})[handler] = None

    def unlisten(self, session: SessionId, handler: LossHandler) -> None:
        """Undo `listen`."""
        handlers = self._loss_handlers.get(session)
        if handlers is not None:
            handlers.pop(handler, None)
            if not handlers:
                del self._loss_handlers[session]

    async def _open(self, loop: asyncio.AbstractEventLoop, wire: AsyncConnection) -> None:
        if wire.address == self._host.address:
            wire.transport = LocalTransport(self._host, wire, self)
        else:
            await super()._open(loop, wire)

    def _carry_out_rare(self, effect: Any) -> None:
        if isinstance(effect, LossOnBehalf):
            for handler in list(self._loss_handlers.get(effect.session, ())):
                handler(effect)
        else:
            super()._carry_out_rare(effect)
