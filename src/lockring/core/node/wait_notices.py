"""Notices to clients whose acquires wait at this node: that they are in the queue, and later which holders are first.

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
"""After so long, a waiter's client learns the holders."""
_PATIENT_MAX: Final = 200_000
_NOTICES_MAX: Final = 1_000
"""Notices with holders that leave in one tick."""


class WaitNotices:
    """The notices to waiters that are still to be sent.

    Attributes:
        fresh: waiters since the last tick.
    """

    def __init__(self, context: NodeContext, blockers: Blockers) -> None:
        self._context = context
        self._blockers = blockers
        self.fresh: list[LockWaiter] = []
        # Since before the last tick, without a notice yet.
        self._unnoticed: list[LockWaiter] = []
        # Those whose clients have it, and when they will have waited for long: roughly in that order.
        self._patient: deque[tuple[int, LockWaiter]] = deque(maxlen=_PATIENT_MAX)

    def on_tick(self, now_ns: int) -> None:
        """Send the notices that are due."""
        unnoticed, self._unnoticed, self.fresh = self._unnoticed, self.fresh, []
        for waiter in unnoticed:
            slot = self._slot_of(waiter)
            if slot is None:
                continue
            if self._context.rights.may_serve(slot.number, now_ns=now_ns):
                self._context.outbox.send(waiter.request.connection, QueueNotice(waiter.request.request))
                self._patient.append((waiter.since_ns + LONG_WAIT_NS, waiter))
            else:
                self.fresh.append(waiter)
        patient = self._patient
        for _ in range(min(len(patient), _NOTICES_MAX)):
            due_ns, waiter = patient[0]
            if due_ns > now_ns:
                return
            patient.popleft()
            slot = self._slot_of(waiter)
            if slot is None:
                continue
            if not self._context.rights.may_serve(slot.number, now_ns=now_ns):
                patient.append((due_ns, waiter))  # its turn comes again once the node may say so
                continue
            request = waiter.request
            holders = self._blockers.of(waiter.lock, request.access)
            notice = QueueNotice(request.request, holders, slot.table.position_of(waiter))
            self._context.outbox.send(request.connection, notice)

    def _slot_of(self, waiter: LockWaiter) -> NodeSlot | None:
        """Return the slot in which a waiter waits, None if it does no more."""
        slot = self._context.slots.get(slot_of(waiter.lock.name))
        if slot is None or slot.table.find(waiter.session.id, waiter.acquisition) is not waiter:
            return None
        return slot
