"""Locks of a node whose names are like another name, for a client that may have mistyped it.

A node looks at names for some 2 ms in one turn, and says where to go on: a client asks again as long as it likes. Of a
slot whose names take longer than that, the rest is left out, and the answer says so.
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
EFFORT_MAX: Final = 3_500
"""How much is done for one answer, in the units of `Comparison.effort`: 2 ms for short names by the thousand."""
_EFFORT_OF_SLOT: Final = 1
_EFFORT_OF_RIGHTS: Final = 2


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
        effort, next_slot, is_partial = 0, SlotNumber(-1), False
        for number in all_slots()[message.from_slot :]:
            if effort >= EFFORT_MAX:
                next_slot = number
                break
            slot = self._context.slots.get(number)
            if slot is None or slot.reign is None or not slot.table.locks:
                continue
            before = effort
            effort += _EFFORT_OF_SLOT
            for name in slot.table.locks:
                if effort >= EFFORT_MAX:
                    break
                # Rights come first: no name that the client may not read is compared.
                if readable is not None:
                    effort += _EFFORT_OF_RIGHTS
                    if not readable.allows(name):
                        continue
                distance, comparing = pattern.compare(name)
                effort += comparing
                if distance is not None:
                    found.append((distance, name))
            else:
                continue
            if before:
                next_slot = number  # it is looked through as a whole by the next question
                break
            is_partial = True
        found.sort()
        names = [name for _, name in found[:SIMILAR_MAX]]
        self._context.outbox.send(connection, SimilarReply(message.request, names, next_slot, is_partial))
