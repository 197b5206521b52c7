"""Frames of HTTP/2, made by hand: whole ones, and such as no library would send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RESET: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GO_AWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 1
END_HEADERS: Final = 4

_STREAM_MASK: Final = 0x7FFF_FFFF


def frame(
    kind: int, stream: int, payload: bytes = b"", *, flags: int = 0, announced: int | None = None
) -> bytes:
    """Return a frame; it may announce another length than it has."""
    length = len(payload) if announced is None else announced
    head = length.to_bytes(3, "big") + bytes([kind & 0xFF, flags & 0xFF])
    return head + (stream & _STREAM_MASK).to_bytes(4, "big") + payload


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers that no table knows, uncompressed."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def call_headers(path: bytes, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the headers of a call of gRPC."""
    usual = (
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    return header_block((*usual, *more))


def message(body: bytes, *, is_compressed: bool = False, announced: int | None = None) -> bytes:
    """Return a message of gRPC; it may announce another length than it has."""
    length = len(body) if announced is None else announced
    return bytes([is_compressed]) + length.to_bytes(4, "big") + body


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    left, coded = len(text) - 127, bytearray(b"\x7f")
    while left >= 128:
        coded.append(left % 128 + 128)
        left //= 128
    coded.append(left)
    return bytes(coded) + text
