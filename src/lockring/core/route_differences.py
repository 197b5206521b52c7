"""The digest of routes, by which a client proves that it has applied a difference right.

A server that has sent a client its routes sends only what has changed since. The client takes that on exactly the
version from which it leads, and asks for all routes otherwise, or if its digest is another one than the server's.

The digest follows a change of one slot, or of one member, in O(1): see `core.digest.slot_factors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import mul
from struct import Struct
from typing import Final
from zlib import crc32

import msgspec

from lockring.cluster_state import Replica
from lockring.core.digest import mix, slot_factors
from lockring.errors import ProtocolError
from lockring.ids import SlotNumber, Version
from lockring.protocol import RoutesDifference
from lockring.slots import SLOTS

DIGEST_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Digests have 64 bits."""

_PAIR: Final = Struct("<HH")
NO_PLACE: Final = 0xFFFF
"""Stands for no primary, where a place among primaries or members is expected."""

_encode = msgspec.msgpack.Encoder().encode


def mark_of_primary(primary: Replica | None) -> int:
    """Return the checksum of a slot's primary."""
    return 0 if primary is None else crc32(_encode(primary))


def mark_of_member(replica: Replica, address: str) -> int:
    """Return the checksum of a member with its address."""
    return mix(crc32(_encode((replica, address))))


def content_of_routes(primaries: Sequence[Replica | None], members: Iterable[tuple[Replica, str]]) -> int:
    """Return the digest of primaries and members. It takes about a millisecond.

    Args:
        primaries: of all slots, in order.
        members: with their addresses.
    """
    marks: dict[Replica | None, int] = {None: 0}
    of_slots: list[int] = []
    for primary in primaries:
        mark = marks.get(primary)
        if mark is None:
            marks[primary] = mark = mark_of_primary(primary)
        of_slots.append(mark)
    content: int = sum(map(mul, of_slots, slot_factors()))
    return (content + sum([mark_of_member(replica, address) for replica, address in members])) & DIGEST_MASK


def digest_of_routes(version: Version, coordinator: str, content: int) -> int:
    """Return the digest of whole routes.

    Args:
        version: of the routes.
        coordinator: the coordinator's address in them.
        content: what `content_of_routes` returns for the rest, or what changes have made of that.
    """
    return (content + mix(crc32(_encode((version, coordinator))))) & DIGEST_MASK


def packed_slots(slots: Sequence[tuple[SlotNumber, int]]) -> bytes:
    """Return slots with places among primaries as a `RoutesDifference` has them."""
    return b"".join([_PAIR.pack(number, place) for number, place in slots])


def slots_in(difference: RoutesDifference) -> list[tuple[SlotNumber, Replica | None]]:
    """Return the slots that a difference changes, with their new primaries.

    Raises:
        ProtocolError: it is malformed.
    """
    primaries: list[Replica | None] = [Replica(*each) for each in difference.primaries]
    slots: list[tuple[SlotNumber, Replica | None]] = []
    if len(difference.slots) % _PAIR.size:
        raise ProtocolError("a difference of routes has slots of four bytes each")
    for number, place in _PAIR.iter_unpack(difference.slots):
        if number >= SLOTS or (place >= len(primaries) and place != NO_PLACE):
            raise ProtocolError(f"a difference of routes has no slot {number}, or no primary {place}")
        slots.append((SlotNumber(number), None if place == NO_PLACE else primaries[place]))
    return slots
