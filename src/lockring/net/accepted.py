"""One accepted connection: its role, and its limits.

The first message decides the role: a client, a peer, or (at a coordinator) a node that joins. Until that message is
complete, a connection may use 16 KiB and a few seconds; later frames have limits too. A connection that sends what its
role does not allow (garbage, a giant frame, a message for another kind of server) gets a `Refusal` with the reason,
if the other side may be able to read one, and is closed. The server lives on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from lockring.clock import monotonic_ns
from lockring.core.refusals import refusal_of
from lockring.errors import LockringError, Overloaded, ProtocolError
from lockring.ids import NO_REQUEST, ConnectionId, RequestNumber
from lockring.log_events import event
from lockring.net.connection import FramedConnection, Outbox
from lockring.net.frames import HEADER_BYTES, FrameReader
from lockring.net.limits import ConnectionLimits, RefusalLog
from lockring.net.turns import TURN_NS_MAX, TurnScheduler
from lockring.protocol import FRAME_BYTES_MAX, Message, Welcome

HELLO_BYTES_MAX: Final = 16 * 1024
"""Longest first frame: a hello may have a JWT in it, of one or two thousand bytes."""

HELLO_S_MAX: Final = 5.0
"""How long the first frame may take to arrive."""

FRAME_S_MAX: Final = 30.0
"""How long any later frame may take from its first byte to its last: until then its bytes take up memory."""

CLIENT_FRAME_BYTES_MAX: Final = 1024 * 1024
CLIENT_UNREAD_BYTES_MAX: Final = 8 * 1024 * 1024
MEMBER_UNREAD_BYTES_MAX: Final = 256 * 1024 * 1024

log = logging.getLogger("lockring.net")


class Role(NamedTuple):
    """The purpose of a connection, and its limits.

    Attributes:
        title: its name in a sentence, with the article: "a client".
        is_member: whether it belongs to the cluster, and so does not count as a client.
        frame_bytes_max: length of the longest frame that it may send.
        unread_bytes_max: how much it may leave unread.
    """

    title: str
    is_member: bool
    frame_bytes_max: int
    unread_bytes_max: int


CLIENT: Final = Role("a client", False, CLIENT_FRAME_BYTES_MAX, CLIENT_UNREAD_BYTES_MAX)
PEER: Final = Role("a node", True, FRAME_BYTES_MAX, MEMBER_UNREAD_BYTES_MAX)


class ConnectionHandler(Protocol):
    """The server behind a port: what it does with accepted connections."""

    def greet(self, connection: AcceptedConnection, hello: Message) -> None:
        """Answer a first message: call `admit` or `turn_away`, or raise a `LockringError` to refuse the connection.

        Call `require_client_room` before anything changes for a client, and `admit` before this returns.
        """

    def deliver(self, connection: AcceptedConnection, messages: list[Message], now_ns: int) -> int:
        """Handle messages of an admitted connection. May raise a `LockringError` to end it.

        Args:
            connection: where they came.
            messages: in their order.
            now_ns: the monotonic clock, read after they had arrived.

        Returns:
            The monotonic clock at the end, so that nothing reads it twice.
        """

    def connection_closed(self, connection: AcceptedConnection, reason: str) -> None:
        """Handle the end of an admitted connection."""


@dataclass(frozen=True, slots=True)
class PortContext:
    """The objects that all connections of one port share.

    Attributes:
        handler: the server behind the port.
        outbox: holds the connections' writes until the flush.
        limits: counts the connections.
        turns: shares the loop's time among the clients.
        refusals: the log of refused connections.
        connections: the open connections, by number.
        emptied: set while none is open.
    """

    handler: ConnectionHandler
    outbox: Outbox
    limits: ConnectionLimits
    turns: TurnScheduler
    refusals: RefusalLog
    connections: dict[ConnectionId, AcceptedConnection]
    emptied: asyncio.Event


class _HelloReader(FrameReader[Message]):
    """Reads the first frame of a connection, and nothing behind it: that waits in `rest` for a reader of its role."""

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """See `FrameReader`."""
        rest = self.rest
        rest += data
        if len(rest) < HEADER_BYTES:
            return []
        end = HEADER_BYTES + int.from_bytes(rest[:HEADER_BYTES], "big")
        if end > HEADER_BYTES + HELLO_BYTES_MAX:
            raise ProtocolError(_not_a_hello(bytes(rest), end - HEADER_BYTES))
        if len(rest) < end:
            return []
        self.rest = bytearray()
        hello = super().feed(rest[:end])
        self.rest = rest[end:]
        return hello


class AcceptedConnection(FramedConnection):
    """One accepted connection.

    Args:
        port: what the port's connections share.
        number: of this connection; never reused in this process.
        decoder: decodes the messages to any server.

    Attributes:
        role: None until its first message was accepted.
        tag: free for the handler's own use.
    """

    def __init__(
        self, port: PortContext, number: ConnectionId, decoder: msgspec.msgpack.Decoder[Any]
    ) -> None:
        super().__init__(
            port.outbox,
            decoder,
            frame_bytes_max=HELLO_BYTES_MAX,
            write_bytes_max=CLIENT_UNREAD_BYTES_MAX,
        )
        self.number = number
        self.role: Role | None = None
        self.tag: object = None
        self._reader = _HelloReader(decoder, HELLO_BYTES_MAX)
        self._port = port
        self._deadline: asyncio.TimerHandle | None = None

    def require_client_room(self) -> None:
        """Check that the port can admit this connection as a client's.

        Raises:
            Overloaded: the port has as many clients as it may have.
        """
        self._port.limits.require_client_room()

    def admit(self, role: Role, welcome: Welcome | None) -> None:
        """Accept the first message. For a client, `require_client_room` must have found room just before.

        Args:
            role: the connection's role from now on.
            welcome: the answer; None to give it later.
        """
        assert self.role is None, "a second role would count a client twice, and uncount it once"
        if not role.is_member:
            self._port.limits.count_client()
        self.role = role
        self.expect(
            self._decoder, frame_bytes_max=role.frame_bytes_max, write_bytes_max=role.unread_bytes_max
        )
        if welcome is not None:
            self.send(welcome)

    def refuse(self, error: LockringError, *, request: RequestNumber = NO_REQUEST, hint: int = 0) -> None:
        """Send the reason and end the connection."""
        self.send(refusal_of(error, request, hint=hint))
        self.close(str(error))

    def log_refusal(self, level: int, action: str, error: LockringError) -> None:
        """Log what is done with the connection, such as "refused", and the cause. Limits the lines about strangers."""
        is_member = self.role is not None and self.role.is_member
        self._port.refusals.write(level, f"{action} {self.title}", self.remote, error, is_member=is_member)

    @property
    def title(self) -> str:
        """The connection's name in a sentence."""
        return self.role.title if self.role is not None else "a stranger"

    def turn_away(self, error: LockringError, *, request: RequestNumber = NO_REQUEST, hint: int = 0) -> None:
        """Refuse the connection as `refuse` does, and log that: as a warning if it had been admitted."""
        if self.role is None:
            self.log_refusal(logging.INFO, "refused", error)
        else:
            self.log_refusal(logging.WARNING, "closed the connection of", error)
        self.refuse(error, request=request, hint=hint)

    # ----------------------------------------------------------------------- FramedConnection

    def on_open(self) -> None:
        """Count the connection and start the deadline of its first message."""
        self._port.connections[self.number] = self
        self._port.emptied.clear()
        try:
            self._port.limits.count_open()
        except Overloaded as error:
            self.refuse(error)
            return
        self._deadline = asyncio.get_running_loop().call_later(HELLO_S_MAX, self._too_slow)

    def on_messages(self, messages: list[Message]) -> None:
        """Hand messages to the handler, or hold a client's until its turn. The first one decides the role."""
        if self._deadline is not None:  # the frame that it was for is complete
            self._cancel_deadline()
        role, turns = self.role, self._port.turns
        if role is None:
            self._greet(messages[0])
            return
        if role is CLIENT and turns.are_over:
            self.hold(messages)
        else:
            began_ns = monotonic_ns()
            try:
                ended_ns = self._port.handler.deliver(self, messages, began_ns)
            except LockringError as error:
                self.turn_away(error)
                return
            if role is CLIENT:
                took_ns = ended_ns - began_ns
                turns.count(took_ns)
                if took_ns > TURN_NS_MAX:
                    self.yield_turn()
        if self._reader.rest:
            self.on_partial_frame()

    def _greet(self, hello: Message) -> None:
        early, self._reader.rest = self._reader.rest, bytearray()
        try:
            self._port.handler.greet(self, hello)
        except LockringError as error:
            self.turn_away(error)
            return
        if early:
            self.data_received(bytes(early))

    def on_partial_frame(self) -> None:
        """Start the deadline of a frame that has begun, once there is a role; before that, the hello's own one runs."""
        if self._deadline is None and self.role is not None and self.is_open:
            self._deadline = asyncio.get_running_loop().call_later(FRAME_S_MAX, self._too_slow)

    def enqueue_turn(self) -> None:
        """Wait for the turn behind the other clients."""
        self._port.turns.enqueue(self)

    def on_garbage(self, error: ProtocolError) -> None:
        """Send the reason and end the connection."""
        self.log_refusal(logging.WARNING, "closed the connection of", error)
        self.refuse(error)

    def pause_writing(self) -> None:
        """End the connection: it has left too many answers unread. Called by the event loop."""
        super().pause_writing()
        log.warning(
            "cut the connection of %s at %s: it leaves its answers unread",
            self.title,
            self.remote,
            extra=event("connection-cut", client=self.title, remote=self.remote),
        )

    def on_end(self, reason: str) -> None:
        """Uncount the connection, and report its end to the handler if that had admitted it."""
        self._cancel_deadline()
        self._port.connections.pop(self.number, None)
        self._port.limits.count_closed(is_client=self.role is not None and not self.role.is_member)
        if not self._port.connections:
            self._port.emptied.set()
        if self.role is not None:
            self._port.handler.connection_closed(self, reason)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.role is None:
            self.on_garbage(ProtocolError(f"no complete hello arrived within {HELLO_S_MAX:g} s"))
        else:
            self.on_garbage(ProtocolError(f"a frame was still incomplete after {FRAME_S_MAX:g} s"))


def _not_a_hello(early: bytes, size: int) -> str:
    if early[:4] in (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PRI ", b"DELE", b"PATC"):
        return "this is a lockring port, which does not speak HTTP"
    if early[:2] == b"\x16\x03":
        return "this is a lockring port without TLS"
    return f"the first frame has {size} bytes; a hello has at most {HELLO_BYTES_MAX}"
