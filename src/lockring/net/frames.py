"""Frames: a 4-byte big-endian length, then one message in msgpack.

Both ends, blocking or not, cut their byte streams here. Many small frames usually arrive in one read, and are
decoded in place; a large frame is gathered in one buffer that grows once per read, so that
nothing is copied or looked at twice.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, Generic, TypeVar

import msgspec

from lockring.errors import ProtocolError
from lockring.protocol import FRAME_BYTES_MAX, Message

HEADER_BYTES: Final = 4

_encode = msgspec.msgpack.Encoder().encode
_length_at = Struct(">I").unpack_from

M = TypeVar("M")


def encode_frame(message: Message) -> bytes:
    """The frame of one message: header and body. Safe to call from any thread."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class FrameReader(Generic[M]):
    """Cuts one incoming byte stream into messages. Not thread-safe: one reader per connection and direction.

    After a `ProtocolError` the stream's position is lost: close the connection.

    Args:
        decoder: decodes one body; it says which messages are accepted.
        limit: longest body, in bytes; a longer one is refused by its header, before any of it is kept.

    Attributes:
        rest: bytes of a frame that has not fully arrived.
    """

    __slots__ = ("_decode", "_limit", "_needed", "rest")

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], limit: int = FRAME_BYTES_MAX) -> None:
        self._decode = decoder.decode
        self._limit = limit
        self.rest = bytearray()
        self._needed = HEADER_BYTES  # how long `rest` is to be until it is worth looking at again

    def feed(self, data: bytes | bytearray | memoryview) -> list[M]:
        """Take what was read and return the messages that it completes, in order.

        Raises:
            ProtocolError: a frame longer than the limit, or a body that is none of the accepted messages. What
                came before it in the same read is not returned.
        """
        rest = self.rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            # Take the gathered bytes over instead of copying them.
            data, self.rest = rest, bytearray()
        size = len(data)
        if size >= HEADER_BYTES and _length_at(data)[0] == size - HEADER_BYTES <= self._limit:
            self._needed = HEADER_BYTES
            return [
                self._decode_body(data[HEADER_BYTES:])
            ]  # one frame, as most reads bring while little is going on
        view = memoryview(data)
        start = 0
        needed = HEADER_BYTES
        messages: list[M] = []
        while size - start >= HEADER_BYTES:
            (length,) = _length_at(view, start)
            if length > self._limit:
                raise ProtocolError(f"a frame of {length} bytes; {self._limit} are the most")
            end = start + HEADER_BYTES + length
            if end > size:
                needed = HEADER_BYTES + length
                break
            messages.append(self._decode_body(view[start + HEADER_BYTES : end]))
            start = end
        self._needed = needed
        if start < size:
            self.rest += view[start:]
        return messages

    def _decode_body(self, body: Any) -> M:
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"not a message that is accepted here: {error}") from error
