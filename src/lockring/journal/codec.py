"""The format of a journal's files, as bytes; `records` seals records by it. Nothing here touches a disk.

A segment is a header, padded to a block of its own, and records up to its end. A record holds one batch.

    header   magic, format version, length, CRC, msgpack of `SegmentHeader`, zeros up to `HEADER_BYTES`
    record    mark, CRC, length, kind, ordinal, durable, msgpack of a list of entries
    position ordinal, segment closed, CRC; twice, in sectors of their own, which are written in turn; then, in a third
             sector, length, CRC, msgpack of the `FileIdentity` of this very file

- *A record belongs to one segment.* Its CRC is seeded with the segment's salt, and its mark is a part of the salt.
  So remains of another file, or of an older copy of the same one, are not taken for records of this one.
  The mark also finds the records behind a damaged one.
- *A record says what was durable when it was written.* A bad record may be torn, with no answer that waited for it.
  It is damage if a good record behind it calls it durable.
- *Ordinals number the records of a journal over all its lives.*
- *The first bytes of a header stay as they are in every format version*, so that a release recognises a later one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from lockring.core.journal import JournalEntry
from lockring.ids import NodeId
from lockring.journal.records import BATCH_BYTES_MAX, ENDS_REWRITE, Seal

FORMAT_VERSION: Final = 1
"""Raised when a reader of an older format would misunderstand a newer one."""

HEADER_BYTES: Final = 4096
"""A header has a block of its own: damage in it is known from damage behind it."""

_MAGIC: Final = b"lockring"
_PRELUDE: Final = struct.Struct(">8sIII")
_RECORD: Final = struct.Struct(">IIIIQQ")
_SEALED_OFFSET: Final = _RECORD.size - struct.calcsize(">IIQQ")
_POSITION: Final = struct.Struct(">QI")
_NAMEPLATE: Final = struct.Struct(">II")
_CRC_BYTES: Final = 4

RECORD_HEAD_BYTES: Final = _RECORD.size
POSITION_BYTES: Final = _POSITION.size + _CRC_BYTES
POSITION_OFFSETS: Final = (0, 512)
"""Where the two stamps of the position file stand. One that is torn leaves the other, a lower bound as well."""
POSITION_NAMEPLATE_OFFSET: Final = 1024
"""Where the position file says which file it is."""
POSITION_NAMEPLATE_BYTES: Final = 64
POSITION_FILE_BYTES: Final = POSITION_NAMEPLATE_OFFSET + POSITION_NAMEPLATE_BYTES

_encoder = msgspec.msgpack.Encoder()
_entries = msgspec.msgpack.Decoder(list[JournalEntry])


class FileIdentity(msgspec.Struct, array_like=True, frozen=True):
    """The numbers by which a file differs from a copy of it.

    Attributes:
        device: the file system's number; it may differ after a boot, and for some file systems after a mount.
        inode: the file's number there, which another file may get once this one is deleted.
        edition: tells such files apart, 0 where the file system does not say.
    """

    device: int
    inode: int
    edition: int


class SegmentHeader(msgspec.Struct, array_like=True, frozen=True):
    """The word of a segment about itself.

    Attributes:
        number: of the segment, as in its name.
        first: ordinal of its first record.
        follows: the last record before this segment that counts; those after it, up to `first`, never happened.
        durable: the last record that was answered for when the segment was made.
        continues: whether the segments before count; if not, the journal begins afresh here.
        salt: random; seeds the CRC of its records.
        node: the node's id.
        boot: id of the machine's boot in which it was written, "" if unknown.
        machine: id of that machine, "" if unknown.
        is_synced: whether answers waited for a sync, rather than for a write.
        lock: identity of the directory's lock file.
        itself: identity of this file.
    """

    number: int
    first: int
    follows: int
    durable: int
    continues: bool
    salt: int
    node: NodeId
    boot: str
    machine: str
    is_synced: bool
    lock: FileIdentity
    itself: FileIdentity


_headers = msgspec.msgpack.Decoder(SegmentHeader)
_identities = msgspec.msgpack.Decoder(FileIdentity)


class OtherFormat(NamedTuple):
    """A whole header of a format that this release does not read.

    Attributes:
        number: of the format version.
    """

    number: int


class Flaw(NamedTuple):
    """Bytes that are not what they should be.

    Attributes:
        kind: "cut" (the file ends first), "zeros" (nothing was written), "damaged" (anything else).
        needed: how many bytes from here on would tell more; 0 unless the kind is "cut".
    """

    kind: str
    needed: int = 0


def encode_header(header: SegmentHeader) -> bytes:
    """Encode a header as the first block of a segment."""
    body = _encoder.encode(header)
    crc = crc32(body, crc32(struct.pack(">II", FORMAT_VERSION, len(body))))
    block = _PRELUDE.pack(_MAGIC, FORMAT_VERSION, len(body), crc) + body
    assert len(block) <= HEADER_BYTES, "ids are bounded, and the rest are numbers"
    return block.ljust(HEADER_BYTES, b"\0")


def decode_header(block: bytes) -> SegmentHeader | OtherFormat | Flaw:
    """Decode the first block of a segment."""
    if not block.strip(b"\0"):
        return Flaw("zeros" if len(block) >= HEADER_BYTES else "cut")
    if len(block) < _PRELUDE.size:
        return Flaw("cut")
    magic, version, length, crc = _PRELUDE.unpack_from(block)
    body = block[_PRELUDE.size : _PRELUDE.size + length]
    if magic != _MAGIC or crc32(body, crc32(struct.pack(">II", version, length))) != crc:
        return Flaw("damaged" if len(block) >= HEADER_BYTES else "cut")
    if version != FORMAT_VERSION:
        return OtherFormat(version)
    try:
        return _headers.decode(body)
    except msgspec.MsgspecError:
        return Flaw("damaged")


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


def read_record(seal: Seal, data: memoryview, at: int) -> Record | Flaw:
    """Return the record of a segment that begins at an offset of `data`, or what stands there instead."""
    start = at + RECORD_HEAD_BYTES
    if start > len(data):
        return Flaw("cut", RECORD_HEAD_BYTES)
    mark, crc, length, kind, ordinal, durable = _RECORD.unpack_from(data, at)
    if mark != seal.mark or length > BATCH_BYTES_MAX or kind > ENDS_REWRITE:
        return Flaw("damaged" if any(data[at:start]) else "zeros")
    end = start + length
    if end > len(data):
        return Flaw("cut", RECORD_HEAD_BYTES + length)
    if crc32(data[at + _SEALED_OFFSET : end], seal.seed) != crc:
        return Flaw("damaged")
    return Record(ordinal, durable, kind == ENDS_REWRITE, data[start:end], end)


encode_entries: Final[Callable[[list[JournalEntry]], bytes]] = _encoder.encode
"""Encode the payload of a record."""


def decode_entries(payload: memoryview) -> list[JournalEntry] | None:
    """Decode the payload of a record; None if it has entries that this release does not know."""
    try:
        return _entries.decode(payload)
    except msgspec.MsgspecError:
        return None


class DurablePosition(NamedTuple):
    """A lower bound of what was answered for.

    Attributes:
        ordinal: of the last record that is surely durable.
        closed: the segment with which the journal was closed in order, after a sync; 0 while it is in use.
    """

    ordinal: int
    closed: int = 0


def encode_position(ordinal: int, closed: int = 0) -> bytes:
    """Encode one stamp of the position file: the fields of a `DurablePosition`."""
    body = _POSITION.pack(ordinal, closed)
    return body + crc32(body).to_bytes(_CRC_BYTES, "big")


def decode_positions(data: bytes) -> tuple[DurablePosition | None, int]:
    """Decode the content of the position file.

    Returns:
        The higher of its stamps, None if both are damaged; and which of the two it is.
    """
    first, second = (_decoded(data[offset : offset + POSITION_BYTES]) for offset in POSITION_OFFSETS)
    if first is None or (second is not None and second > first):
        return second, 1
    return first, 0


def encode_nameplate(itself: FileIdentity) -> bytes:
    """Encode what a position file says of itself, for `POSITION_NAMEPLATE_OFFSET`."""
    body = _encoder.encode(itself)
    block = _NAMEPLATE.pack(len(body), crc32(body)) + body
    assert len(block) <= POSITION_NAMEPLATE_BYTES, "an identity is three numbers of 64 bits"
    return block.ljust(POSITION_NAMEPLATE_BYTES, b"\0")


def decode_nameplate(data: bytes) -> FileIdentity | None:
    """Decode from the content of a position file which file it is; None if that is missing or damaged."""
    block = data[POSITION_NAMEPLATE_OFFSET:POSITION_FILE_BYTES]
    if len(block) < _NAMEPLATE.size:
        return None
    length, crc = _NAMEPLATE.unpack_from(block)
    body = block[_NAMEPLATE.size : _NAMEPLATE.size + length]
    if crc32(body) != crc:
        return None
    try:
        return _identities.decode(body)
    except msgspec.MsgspecError:
        return None


def _decoded(stamp: bytes) -> DurablePosition | None:
    body, crc = stamp[: _POSITION.size], stamp[_POSITION.size :]
    if len(stamp) != POSITION_BYTES or crc32(body).to_bytes(_CRC_BYTES, "big") != crc:
        return None
    return DurablePosition(*_POSITION.unpack(body))
