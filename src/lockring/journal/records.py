"""The records of a segment as bytes: how they are sealed, and recognised; `codec` has the format.

Apart from `codec`, since a record is sealed on the path of every grant that is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

BATCH_BYTES_MAX: Final = 256 * 1024 * 1024
"""Longest payload of a record. A node's batches are a small part of that; a longer one is refused at writing."""

_RECORD: Final = struct.Struct(">IIIIQQ")
_SEALED_OFFSET: Final = _RECORD.size - struct.calcsize(">IIQQ")

RECORD_HEAD_BYTES: Final = _RECORD.size

_PLAIN: Final = 0
_ENDS_REWRITE: Final = 1

# Bound once: each step is felt in the time of a lone grant.
_pack_sealed: Final[Callable[[int, int, int, int], bytes]] = struct.Struct(">IIQQ").pack
_pack_outside: Final[Callable[[int, int], bytes]] = struct.Struct(">II").pack


class Flaw(NamedTuple):
    """Bytes that are not what they should be.

    Attributes:
        kind: "cut" (the file ends first), "zeros" (nothing was written), "damaged" (anything else).
        needed: how many bytes from here on would tell more; 0 unless the kind is "cut".
    """

    kind: str
    needed: int = 0


class Record(NamedTuple):
    """A record whose checksum is right.

    Attributes:
        ordinal: counts the journal's records.
        durable: the last ordinal that had been answered for when this record was written.
        ends_rewrite: whether everything that is needed stands in this segment, up to here.
        payload: the encoded entries.
        end: offset of the byte after it in what it was decoded from.
    """

    ordinal: int
    durable: int
    ends_rewrite: bool
    payload: memoryview
    end: int


class Seal:
    """Makes and recognises the records of one segment. Stateless, so threads may share it.

    Args:
        salt: the segment's salt.

    Attributes:
        mark: the bytes with which each record begins.
    """

    def __init__(self, salt: int) -> None:
        number = salt & 0xFFFFFFFF or 1
        self.mark = number.to_bytes(4, "big")
        self._mark = number
        self._seed = crc32(salt.to_bytes(8, "big"))

    def record(self, payload: bytes, ordinal: int, durable: int, ends_rewrite: bool) -> bytes:
        """Return a record. `payload` is the encoded list of entries, at most `BATCH_BYTES_MAX` long."""
        kind = _ENDS_REWRITE if ends_rewrite else _PLAIN
        sealed = _pack_sealed(len(payload), kind, ordinal, durable) + payload
        return _pack_outside(self._mark, crc32(sealed, self._seed)) + sealed

    def read(self, data: memoryview, at: int) -> Record | Flaw:
        """Return the record that begins at an offset of `data`, or what stands there instead."""
        start = at + RECORD_HEAD_BYTES
        if start > len(data):
            return Flaw("cut", RECORD_HEAD_BYTES)
        mark, crc, length, kind, ordinal, durable = _RECORD.unpack_from(data, at)
        if mark != self._mark or length > BATCH_BYTES_MAX or kind > _ENDS_REWRITE:
            return Flaw("damaged" if any(data[at:start]) else "zeros")
        end = start + length
        if end > len(data):
            return Flaw("cut", RECORD_HEAD_BYTES + length)
        if crc32(data[at + _SEALED_OFFSET : end], self._seed) != crc:
            return Flaw("damaged")
        return Record(ordinal, durable, kind == _ENDS_REWRITE, data[start:end], end)
