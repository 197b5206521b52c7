"""Locks of a node whose names are like another name, for a client that may have mistyped it.

A node looks at some thousand names in one turn, and says where to go on: a client asks again as long as it likes.
"""

from __future__ import annotations

from typing import Final

from lockring.core.access import Verb
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.similar_names import NamePattern
from lockring.errors import InvalidRequest
from lockring.ids import ConnectionId, SlotNumber
from lockring.names import check_lock_name
from lockring.protocol import FindSimilar, SimilarReply
from lockring.slots import SLOTS, all_slots

SIMILAR_MAX: Final = 10
"""Names in one answer."""
SCAN_MAX: Final = 5_000
"""Names looked at for one answer, rounded up to whole slots of some thousands."""
_SLOT_SCAN_MAX: Final = 20_000
"""Names looked at in one slot; the rest of a larger one is left out."""


class SimilarNames:
    """Finds locks by names that are nearly right."""

    def __init__(self, context: NodeContext, clients: ConnectedClients, *, guard: AccessGuard) -> None:
        self._context = context
        self._clients = clients
        self._guard = guard

    def find(self, connection: ConnectionId, message: FindSimilar, now_ns: int) -> None:
        """Send the names of locks in use here that are most like another name, among those that the client may read."""
        if not 0 <= message.from_slot < SLOTS:
            raise InvalidRequest(f"the slots are 0 to {SLOTS - 1}")
        check_lock_name(message.name)
        access = self._clients.by_connection[connection].access
        readable = None
        if access is not None and not access.permissions.tables[Verb.READ].allows_all(""):
            if not access.permissions.tables[Verb.READ].allows_some(""):
                if self._guard.refuses_name(connection, access, message, Verb.READ):
                    return
            if access.is_enforced:
                readable = access.permissions.tables[Verb.READ]
        pattern = NamePattern(message.name)
        found: list[tuple[int, str]] = []
        scanned, next_slot = 0, SlotNumber(-1)
        for number in all_slots()[message.from_slot :]:
            if scanned >= SCAN_MAX:
                next_slot = number
                break
            slot = self._context.slots.get(number)
            if slot is None or slot.reign is None:
                continue
            for place, name in enumerate(slot.table.locks):
                if place >= _SLOT_SCAN_MAX:
                    break
                distance = pattern.distance(name)
                if distance is not None and (readable is None or readable.allows(name)):
                    found.append((distance, name))
            scanned += len(slot.table.locks)
        found.sort()
        names = [name for _, name in found[:SIMILAR_MAX]]
        self._context.outbox.send(connection, SimilarReply(message.request, names, next_slot))
