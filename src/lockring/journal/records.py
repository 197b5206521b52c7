"""How the records of a segment are sealed; `codec` has the format, and reads them.

Apart from it, since a record is sealed on the path of every grant that is written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final
from zlib import crc32

BATCH_BYTES_MAX: Final = 256 * 1024 * 1024
"""Longest payload of a record. A node's batches are a small part of that; a longer one is refused at writing."""

PLAIN: Final = 0
ENDS_REWRITE: Final = 1
"""The kinds of records."""

# Bound once, since each step is felt in the time of a lone grant. Compiled code looks an imported name up by its text.
# It also keeps what is said to be a number as a machine's; these go from one library to the next as they are.
_crc32: Final[Callable[[bytes, object], object]] = crc32  # type: ignore[assignment]
_pack_sealed: Final[Callable[[int, int, int, int], bytes]] = struct.Struct(">IIQQ").pack
_pack_outside: Final[Callable[[object, object], bytes]] = struct.Struct(">II").pack


class Seal:
    """Makes the records of one segment. Stateless, so threads may share it.

    Args:
        salt: the segment's salt.

    Attributes:
        mark: the number with which each record begins.
        seed: the start of the records' CRC.
    """

    def __init__(self, salt: int) -> None:
        self.mark = salt & 0xFFFFFFFF or 1
        self.seed = crc32(salt.to_bytes(8, "big"))
        self._mark: object = self.mark
        self._seed: object = self.seed

    def record(self, payload: bytes, ordinal: int, durable: int, ends_rewrite: bool) -> bytes:
        """Return a record. `payload` is the encoded list of entries, at most `BATCH_BYTES_MAX` long."""
        kind = ENDS_REWRITE if ends_rewrite else PLAIN
        sealed = _pack_sealed(len(payload), kind, ordinal, durable) + payload
        return _pack_outside(self._mark, _crc32(sealed, self._seed)) + sealed
