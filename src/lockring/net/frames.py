"""Frames: a 4-byte big-endian length, then one message in msgpack.

Both ends, blocking or not, cut their byte streams here. Usually many small frames arrive in one read and are
decoded in place. A large frame is gathered in one buffer that grows once per read, so that no byte is copied or
scanned twice.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Generic, TypeVar

import msgspec

from lockring.errors import ProtocolError
from lockring.protocol import FRAME_BYTES_MAX, Message

HEADER_BYTES: Final = 4

_encode = msgspec.msgpack.Encoder().encode
_length_at = Struct(">I").unpack_from

M = TypeVar("M")


def encode_frame(message: Message) -> bytes:
    """Encode one message as a frame: header and body. Safe to call from any thread."""
    body = _encode(message)
    return len(body).to_bytes(4, "big") + body


class FrameReader(Generic[M]):
    """Cuts one incoming byte stream into messages. Not thread-safe: one reader per connection and direction.

    After a `ProtocolError` the position in the stream is lost: close the connection.

    Args:
        decoder: decodes one body, and so defines the accepted messages.
        limit: longest body, in bytes; a longer one is refused by its header, before any of it is buffered.

    Attributes:
        rest: bytes of an incomplete frame.
    """

    __slots__ = ("_decode", "_limit", "_needed", "rest")

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], limit: int = FRAME_BYTES_MAX) -> None:
        self._decode = decoder.decode
        self._limit = limit
        self.rest = bytearray()
        self._needed = HEADER_BYTES  # length of `rest` that is worth another look

    def feed(self, data: bytes | bytearray | memoryview) -> list[M]:
        """Add the bytes of one read and return the messages that they complete, in order.

        Raises:
            ProtocolError: a frame is longer than the limit, or a body is not an accepted message. Messages before it in
                the same read are not returned.
        """
        rest = self.rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            # Take over the gathered bytes instead of copying them.
            data, self.rest = rest, bytearray()
            self._needed = HEADER_BYTES
        size = len(data)
        try:
            if size >= HEADER_BYTES and _length_at(data)[0] == size - HEADER_BYTES <= self._limit:
                # Most reads bring exactly one frame while little is going on.
                return [self._decode(data[HEADER_BYTES:])]
            return self._cut(memoryview(data), size)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"not an accepted message: {error}") from error

    def _cut(self, view: memoryview, size: int) -> list[M]:
        """Return the messages of all whole frames, and keep the rest."""
        start = 0
        needed = HEADER_BYTES
        messages: list[M] = []
        while size - start >= HEADER_BYTES:
            (length,) = _length_at(view, start)
            if length > self._limit:
                raise ProtocolError(f"frame of {length} bytes exceeds the limit of {self._limit}")
            end = start + HEADER_BYTES + length
            if end > size:
                needed = HEADER_BYTES + length
                break
            messages.append(self._decode(view[start + HEADER_BYTES : end]))
            start = end
        self._needed = needed
        if start < size:
            self.rest += view[start:]
        return messages
