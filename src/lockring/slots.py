"""Slots: the parts that the circle is cut into. Each lock name belongs to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast
from zlib import crc32

from lockring.ids import SlotNumber
from lockring.names import LOCK_NAME_BYTES_MAX, check_lock_name

SLOTS: Final = 4096
"""Number of slots. Fixed, because every client and every node computes a name's slot by itself."""


def all_slots() -> Sequence[SlotNumber]:
    """Return all slots, in order."""
    return cast("Sequence[SlotNumber]", range(SLOTS))  # born here


def slot_of(name: str) -> SlotNumber:
    """Return the slot of a lock name: CRC32 of its UTF-8 bytes modulo `SLOTS`."""
    return crc32(name.encode()) % SLOTS  # type: ignore[return-value]  # born here


def checked_slot_of(name: str) -> SlotNumber:
    """Return the slot of an unchecked lock name. The check and the slot share one encoding of the name.

    Raises:
        InvalidRequest: as `check_lock_name`.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if not 0 < len(encoded) <= LOCK_NAME_BYTES_MAX:
        check_lock_name(name)
    return crc32(encoded) % SLOTS  # type: ignore[return-value]  # born here
