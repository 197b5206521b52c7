"""Notices to clients that wait: that their acquire is in the queue, and later the holders that they wait for.

A client learns that its acquire is in the queue only once it has waited for longer than a tick: most are granted
before, and the notice would cost a client that waits for nothing else a wake-up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lockring.core.node.blockers import Blockers
from lockring.core.node.context import NodeContext
from lockring.core.node.locks import LockWaiter
from lockring.core.node.slot import NodeSlot
from lockring.protocol import QueueNotice
from lockring.slots import slot_of
from lockring.units import NS_PER_S

LONG_WAIT_NS: Final = 5 * NS_PER_S
"""After so long, a waiter's client gets the names of the holders."""
_PATIENT_MAX: Final = 200_000
_NOTICES_MAX: Final = 1_000
"""Of these notices, in one tick."""


class QueueNotices:
    """The notices that are due at later ticks. Not safe for use by several threads."""

    def __init__(self, context: NodeContext, blockers: Blockers) -> None:
        self._context = context
        self._blockers = blockers
        # Waiters whose clients have no notice yet that they are in the queue: since the last tick, and since before it.
        self._fresh: list[LockWaiter] = []
        self._unnoticed: list[LockWaiter] = []
        # Those whose clients have it, and when they will have waited for long: roughly in that order.
        self._patient: deque[tuple[int, LockWaiter]] = deque(maxlen=_PATIENT_MAX)

    def add(self, waiter: LockWaiter) -> None:
        """Notify a waiter's client at one of the next ticks, if it waits then."""
        self._fresh.append(waiter)

    def on_tick(self, now_ns: int) -> None:
        """Send the notices that are due."""
        unnoticed, self._unnoticed, self._fresh = self._unnoticed, self._fresh, []
        context = self._context
        for waiter in unnoticed:
            slot = self._slot_of(waiter)
            if slot is None:
                continue
            if context.rights.may_serve(slot.number, now_ns=now_ns):
                context.outbox.send(waiter.request.connection, QueueNotice(waiter.request.request))
                self._patient.append((waiter.since_ns + LONG_WAIT_NS, waiter))
            else:
                self._fresh.append(waiter)
        self._name_holders(now_ns)

    def _name_holders(self, now_ns: int) -> None:
        """Name the holders to clients that have waited for long, to some of them in each tick."""
        patient = self._patient
        for _ in range(min(len(patient), _NOTICES_MAX)):
            due_ns, waiter = patient[0]
            if due_ns > now_ns:
                return
            patient.popleft()
            slot = self._slot_of(waiter)
            if slot is not None and self._context.rights.may_serve(slot.number, now_ns=now_ns):
                request = waiter.request
                holders = self._blockers.of(waiter.lock, waiter.session, request.connection)
                position = slot.table.position_of(waiter)
                self._context.outbox.send(request.connection, QueueNotice(request.request, holders, position))

    def _slot_of(self, waiter: LockWaiter) -> NodeSlot | None:
        """Return the slot in which it still waits, None if it waits no more."""
        slot = self._context.slots.get(slot_of(waiter.lock.name))
        if slot is None or slot.table.find(waiter.session.id, waiter.acquisition) is not waiter:
            return None
        return slot
