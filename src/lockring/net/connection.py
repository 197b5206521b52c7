"""One TCP connection that carries frames, whichever side opened it.

Writes are collected in an `Outbox` and leave as one write per connection when the outbox is flushed, once per turn
of the event loop. Unread data is bounded: above `write_bytes_max` the connection is cut, since a queue that only
grows helps neither side.

Closing is gentle: pending writes are delivered first, and for a moment incoming bytes are read and dropped.
Otherwise the system would answer them with a reset, which would destroy the last words (the reason of a refusal)
on their way.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import msgspec

from lockring.addresses import format_address
from lockring.errors import ProtocolError
from lockring.net.frames import FrameReader, encode_frame
from lockring.net.sockets import end_writing, tune
from lockring.protocol import Message

LINGER_S: Final = 2.0
"""How long a closed connection may take to deliver its last words until it is cut."""


class Outbox:
    """The connections of one event loop with pending writes. Not thread-safe.

    Attributes:
        waiting: these connections.
    """

    def __init__(self) -> None:
        self.waiting: list[FramedConnection] = []

    def flush(self) -> None:
        """Write each connection's pending frames, in one write each."""
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for connection in waiting:
                connection.write_out()


class FramedConnection:
    """Frames in, frames out. Subclasses handle them by overriding the `on_…` methods.

    It has the methods of `asyncio.Protocol`, and not that base: the compiled build makes a class with a base of Python
    a slow one.

    Args:
        outbox: holds pending writes until the owner of the loop calls `Outbox.flush`.
        decoder: decodes the messages that may come in.
        frame_bytes_max: length of the longest frame that the other side may send.
        write_bytes_max: how much may wait for the other side to read it.
    """

    def __init__(
        self,
        outbox: Outbox,
        decoder: msgspec.msgpack.Decoder[Any],
        *,
        frame_bytes_max: int,
        write_bytes_max: int,
    ) -> None:
        self._outbox = outbox
        self._decoder = decoder
        self._reader = FrameReader(decoder, frame_bytes_max)
        self._write_bytes_max = write_bytes_max
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._held: list[Message] = []
        self._awaits_turn = False
        self._closing = False  # incoming bytes are dropped
        self._end_reason = ""
        self.remote = "?"

    # ----------------------------------------------------------------------- for the owner

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent and are still handled."""
        return self._transport is not None and not self._closing

    @property
    def certificate(self) -> Any:
        """The other side's verified certificate, a `PeerCertificate`; None if it has shown none, and after the end."""
        return None if self._transport is None else self._transport.get_extra_info("peer_certificate")

    def send(self, message: Message) -> None:
        """Send a message with the next flush. Dropped if the connection is closed."""
        self.send_frame(encode_frame(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame with the next flush; for one frame to many connections."""
        if self._transport is None or self._closing:
            return
        out = self._out
        if not out:
            self._outbox.waiting.append(self)
        elif self._out_bytes > self._write_bytes_max:
            self.write_out()  # ends the connection unless the other side reads as fast
            if not self.is_open:
                return
            out = self._out
            self._outbox.waiting.append(self)
        out.append(frame)
        self._out_bytes += len(frame)

    def write_out(self) -> None:
        """Write the pending frames. Called by the outbox."""
        out, self._out = self._out, []
        self._out_bytes = 0
        if self._transport is not None and out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def close(self, reason: str) -> None:
        """Deliver the pending frames, then end the connection. Does nothing on an ended one."""
        if self._transport is None or self._closing:
            return
        self.write_out()
        self._closing = True
        self._end_reason = self._end_reason or reason
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            end_writing(transport)
        asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def abort(self, reason: str) -> None:
        """End the connection at once; pending frames are lost."""
        self._closing = True
        self._end_reason = self._end_reason or reason
        if self._transport is not None:
            self._transport.abort()

    def yield_turn(self) -> None:
        """Stop reading until the event loop has served the other connections.

        Without this, it would read on for as long as there is data, many times in a row.
        """
        if self._awaits_turn or self._transport is None or self._transport.is_closing():
            return
        self._awaits_turn = True
        self._transport.pause_reading()
        self.enqueue_turn()

    def hold(self, messages: list[Message]) -> None:
        """Keep the rest of the messages that `on_messages` got, and pass them to it again on the next turn."""
        assert not self._held, "nothing is read while messages are held"
        self._held = messages
        self.yield_turn()

    def resume(self) -> None:
        """Handle the held messages, and read again. Called when it is this connection's turn."""
        self._awaits_turn = False
        held, self._held = self._held, []
        if held and self.is_open:
            self.on_messages(held)
        if not self._awaits_turn and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def expect(
        self, decoder: msgspec.msgpack.Decoder[Any], *, frame_bytes_max: int, write_bytes_max: int
    ) -> None:
        """Set the accepted messages and the limits, from the next read on."""
        self._reader = FrameReader(decoder, frame_bytes_max)
        self._write_bytes_max = write_bytes_max
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=write_bytes_max)

    # ----------------------------------------------------------------------- to be overridden

    def enqueue_turn(self) -> None:
        """Arrange for `resume` to be called once the event loop has served the other connections."""
        asyncio.get_running_loop().call_soon(self.resume)

    def on_open(self) -> None:
        """Handle the start of the connection."""

    def on_messages(self, messages: list[Message]) -> None:
        """Handle messages, in the order of their arrival."""
        raise NotImplementedError

    def on_partial_frame(self) -> None:
        """Handle a read that has completed no message."""

    def on_garbage(self, error: ProtocolError) -> None:
        """Handle bytes that are not a message, by closing or aborting the connection."""
        raise NotImplementedError

    def on_end(self, reason: str) -> None:
        """Handle the end of the connection. Called exactly once, whatever the cause."""

    # ----------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare the socket. Called by the event loop."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        transport.set_write_buffer_limits(high=self._write_bytes_max)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self.remote = _address_text(transport.get_extra_info("peername"))
        self.on_open()

    def data_received(self, data: bytes) -> None:
        """Cut bytes into messages and pass these on. Called by the event loop."""
        if self._closing:
            return
        try:
            messages = self._reader.feed(data)
        except ProtocolError as error:
            self.on_garbage(error)
            return
        if messages:
            self.on_messages(messages)
        else:
            self.on_partial_frame()

    def eof_received(self) -> bool:
        """Close too: the other side will send no more. Called by the event loop."""
        return False

    def pause_writing(self) -> None:
        """Cut the connection: more than `write_bytes_max` is unread. Called by the event loop."""
        self.abort(f"it left more than {self._write_bytes_max // 2**20} MiB unread")

    def resume_writing(self) -> None:
        """Do nothing: the connection was cut. Called by the event loop."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end. Called by the event loop."""
        self._transport = None
        self._closing = True
        self._out.clear()
        reason = self._end_reason or (f"{exc}" if exc is not None else "") or "the other side closed it"
        self.on_end(reason)


def _address_text(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return format_address(str(address[0]), int(address[1]))
    return str(address) if address else "?"
