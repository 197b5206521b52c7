"""One TCP connection that carries frames, whichever side opened it.

Writes are collected in an `Outbox` and leave as one write per connection when the outbox is flushed: once
per turn of the event loop. What the other side does not read is bounded: above `write_bytes_max` the
connection is cut, since a queue that only grows helps nobody.

Closing is gentle: what was sent is delivered first, and what still arrives is read and thrown away for
a moment. Otherwise the system would answer it with a reset, and the last words (why the connection was
refused) would be lost with it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import msgspec

from lockring.addresses import format_address
from lockring.errors import ProtocolError
from lockring.net.frames import FrameReader, encode_frame
from lockring.net.sockets import tune
from lockring.protocol import Message

LINGER_S: Final = 2.0
"""How long a closed connection may take to deliver its last words before it is cut."""


class Outbox:
    """The connections of one event loop that have something to write. Not thread-safe.

    Attributes:
        waiting: these connections.
    """

    def __init__(self) -> None:
        self.waiting: list[FramedConnection] = []

    def flush(self) -> None:
        """Write what was sent on every connection, one write each."""
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for connection in waiting:
                connection.write_out()


class FramedConnection(asyncio.Protocol):
    """Frames in, frames out. Subclasses say what to do with them by overriding the `on_…` methods.

    Args:
        outbox: where to wait for the flush; the owner of the loop calls `Outbox.flush`.
        decoder: for the messages that may come in.
        frame_bytes_max: length of the longest frame that the other side may send.
        write_bytes_max: how much may wait to be read by the other side.
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
        self._deaf = False  # closing: nothing that still arrives is looked at
        self._end_reason = ""
        self.remote = "?"

    # ----------------------------------------------------------------------- for the owner

    @property
    def is_open(self) -> bool:
        """Whether messages may still be sent and are still listened to."""
        return self._transport is not None and not self._deaf

    def send(self, message: Message) -> None:
        """Send a message with the next flush. On a closed connection it is thrown away."""
        if self._transport is not None and not self._deaf:
            self.send_frame(encode_frame(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame with the next flush: for one that goes to many connections."""
        if self._transport is None or self._deaf:
            return
        if self._out_bytes > self._write_bytes_max:
            self.write_out()  # ends the connection unless the other side reads that fast
            if not self.is_open:
                return
        if not self._out:
            self._outbox.waiting.append(self)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def write_out(self) -> None:
        """Write what was sent. Called by the outbox."""
        out, self._out = self._out, []
        self._out_bytes = 0
        if self._transport is not None and out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def close(self, reason: str) -> None:
        """Deliver what was sent, then end the connection. Harmless on one that has ended."""
        if self._transport is None or self._deaf:
            return
        self.write_out()
        self._deaf = True
        self._end_reason = self._end_reason or reason
        transport = self._transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def abort(self, reason: str) -> None:
        """End the connection at once; what was sent and not yet delivered is lost."""
        self._deaf = True
        self._end_reason = self._end_reason or reason
        if self._transport is not None:
            self._transport.abort()

    def let_others_read(self) -> None:
        """Read no more until the event loop has looked at the other connections. It would go on for as long as there
        is something to read, many times in a row."""
        if self._awaits_turn or self._transport is None or self._transport.is_closing():
            return
        self._awaits_turn = True
        self._transport.pause_reading()
        self.await_turn()

    def hold(self, messages: list[Message]) -> None:
        """Give these, the rest of what `on_messages` was given, to it again after the other connections' turn."""
        assert not self._held, "nothing is read while something is held"
        self._held = messages
        self.let_others_read()

    def take_turn(self) -> None:
        """The other connections have had theirs: go on with what was held, and read again."""
        self._awaits_turn = False
        held, self._held = self._held, []
        if held and self.is_open:
            self.on_messages(held)
        if not self._awaits_turn and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def expect(
        self, decoder: msgspec.msgpack.Decoder[Any], *, frame_bytes_max: int, write_bytes_max: int
    ) -> None:
        """Set what may come in, and the bounds, from the next read on."""
        self._reader = FrameReader(decoder, frame_bytes_max)
        self._write_bytes_max = write_bytes_max
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=write_bytes_max)

    # ----------------------------------------------------------------------- to be overridden

    def await_turn(self) -> None:
        """See to it that `take_turn` is called once the event loop has looked at the other connections."""
        asyncio.get_running_loop().call_soon(self.take_turn)

    def on_open(self) -> None:
        """The connection is there."""

    def on_messages(self, messages: list[Message]) -> None:
        """Messages arrived, in their order."""
        raise NotImplementedError

    def on_garbage(self, error: ProtocolError) -> None:
        """Bytes arrived that are no message; the connection must be closed or aborted here."""
        raise NotImplementedError

    def on_end(self, reason: str) -> None:
        """The connection has ended, for whatever reason. Called exactly once."""

    # ----------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        transport.set_write_buffer_limits(high=self._write_bytes_max)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self.remote = _address_text(transport.get_extra_info("peername"))
        self.on_open()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._deaf:
            return
        try:
            messages = self._reader.feed(data)
        except ProtocolError as error:
            self.on_garbage(error)
            return
        if messages:
            self.on_messages(messages)

    def eof_received(self) -> bool:
        """Called by the event loop: the other side will send no more. Then neither do we."""
        return False

    def pause_writing(self) -> None:
        """Called by the event loop: more than `write_bytes_max` waits to be read by the other side."""
        self.abort(f"it left more than {self._write_bytes_max // 2**20} MiB unread")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        self._deaf = True
        self._out.clear()
        reason = self._end_reason or (f"{exc}" if exc is not None else "") or "the other side closed it"
        self.on_end(reason)


def _address_text(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return format_address(str(address[0]), int(address[1]))
    return str(address) if address else "?"
