"""Requests that wait until they can be answered.

A request is parked rather than refused if its slot is about to be this node's, or if its sender knows a newer cluster
state than this node: so no client has to poll.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lockring.core.access import Grantee
from lockring.ids import ConnectionId, SlotNumber
from lockring.protocol import Acquire
from lockring.units import DURATION_MS_MAX, ms_to_ns, ns_to_ms_floor

PARKED_MAX: Final = 100_000
"""Requests that may be parked at a node."""

PARKED_NS: Final = 5_000_000_000
"""How long a request may be parked: longer than any failover with the default leases takes."""


class ParkedRequest:
    """A request that waits until it can be answered.

    Attributes:
        connection: where it came.
        message: the request.
        number: of its slot.
        access: the identity that asks, and its rights; None at a server that checks none.
        arrived_ns: when it came, however often it was tried again since.
    """

    __slots__ = ("access", "arrived_ns", "connection", "message", "number")

    def __init__(
        self,
        connection: ConnectionId,
        message: Any,
        number: SlotNumber,
        access: Grantee | None,
        *,
        arrived_ns: int,
    ) -> None:
        self.connection = connection
        self.message = message
        self.number = number
        self.access = access
        self.arrived_ns = arrived_ns

    def since_ns(self) -> int:
        """Return since when its sender has been waiting, here and elsewhere."""
        waited_ms = self.message.waited_ms if isinstance(self.message, Acquire) else 0
        return self.arrived_ns - ms_to_ns(waited_ms)

    def message_at(self, now_ns: int) -> Any:
        """Return the request as if it came only now: to an acquire, the time here is a part of its wait.

        The clients of a dead primary learn of the next one at different times. Counted from the retry, the waits of
        those that came first would be the shortest, and they would stand last in the queue.
        """
        if not isinstance(self.message, Acquire):
            return self.message
        waited_ms = ns_to_ms_floor(now_ns - self.since_ns())
        return msgspec.structs.replace(self.message, waited_ms=min(waited_ms, DURATION_MS_MAX))


class ParkedRequests:
    """All parked requests of a node.

    Attributes:
        by_slot: in the order of their arrival; no slot without any.
    """

    def __init__(self) -> None:
        self.by_slot: dict[SlotNumber, list[ParkedRequest]] = {}
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether no more can be parked."""
        return self._count >= PARKED_MAX

    def add(self, request: ParkedRequest) -> None:
        """Park a request, or park it again."""
        self.by_slot.setdefault(request.number, []).append(request)
        self._count += 1

    def take(self, number: SlotNumber) -> list[ParkedRequest]:
        """Take out the requests of a slot: those first whose senders have waited longest."""
        requests = self.by_slot.pop(number)
        self._count -= len(requests)
        return sorted(requests, key=ParkedRequest.since_ns)
