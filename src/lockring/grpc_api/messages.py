"""The messages of one call, cut from the bytes of its stream: each has a flag for compression and its length before it.

A message is bounded by what it announces, before its bytes come, and by what it becomes when it is decompressed.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from lockring.errors import InvalidRequest
from lockring.grpc_api.status import CallEnded, Code

MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Longest request: room for a KeepAlive of 1,000 locks with long names."""

ENCODINGS: Final = {"identity": 0, "gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""How requests may be compressed, with the parameter of the decompressor. Responses never are."""

_HEAD: Final = struct.Struct(">BI")


def framed(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return _HEAD.pack(0, len(message)) + message


class MessageReader:
    """Cuts bytes into messages. Not thread-safe.

    Args:
        encoding: one of `ENCODINGS`.

    Attributes:
        rest: the beginning of a message whose end has not come yet.
    """

    def __init__(self, encoding: str) -> None:
        self._bits = ENCODINGS[encoding]
        self.rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that these bytes complete.

        Raises:
            CallEnded: a message is too long, or compressed as it may not be.
            InvalidRequest: a message cannot be decompressed.
        """
        rest = self.rest
        rest += data
        found: list[bytes] = []
        at = 0
        while len(rest) - at >= _HEAD.size:
            flag, length = _HEAD.unpack_from(rest, at)
            if length > MESSAGE_BYTES_MAX:
                raise _too_long(length)
            if flag > 1:
                raise InvalidRequest(
                    "the request is not a message of gRPC: its first byte is neither 0 nor 1"
                )
            end = at + _HEAD.size + length
            if len(rest) < end:
                break
            body = bytes(rest[at + _HEAD.size : end])
            found.append(self._decompressed(body) if flag else body)
            at = end
        del rest[:at]
        return found

    def _decompressed(self, body: bytes) -> bytes:
        if not self._bits:
            raise CallEnded(
                Code.INTERNAL, "a request is compressed, and its `grpc-encoding` does not say how"
            )
        inflater = zlib.decompressobj(self._bits)
        try:
            found = inflater.decompress(body, MESSAGE_BYTES_MAX + 1)
        except zlib.error as error:
            raise InvalidRequest("the request cannot be decompressed") from error
        if len(found) > MESSAGE_BYTES_MAX:
            raise _too_long(len(found))
        if not inflater.eof:
            raise InvalidRequest("the request cannot be decompressed: its end is missing")
        return found


def _too_long(length: int) -> CallEnded:
    return CallEnded(
        Code.RESOURCE_EXHAUSTED,
        f"the request has {length} bytes or more; it may have {MESSAGE_BYTES_MAX}: send it in parts",
    )
