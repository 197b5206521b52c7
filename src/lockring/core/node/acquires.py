"""Acquire and release, as a node answers them.

An acquire either repeats an acquisition that is known here, and then only says where to answer, or it is decided:
granted, queued or refused.
"""

from __future__ import annotations

from typing import Final

from lockring.core.node.blockers import Blockers
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.grants import NodeGrants, why_not_granted
from lockring.core.node.locks import LockEntry, LockHolder, LockWaiter, OpenRequest
from lockring.core.node.session_leases import SessionLeases
from lockring.core.node.slot import NodeSlot
from lockring.core.node.trouble import Troubles
from lockring.errors import InvalidRequest
from lockring.ids import ConnectionId
from lockring.protocol import WAIT_FOREVER, Acquire, Refusal, Release, ReleaseReply
from lockring.units import NS_PER_MS, ms_to_ns

WAITERS_MAX: Final = 200_000
"""Waiters at a node: about 100 MB."""


class Acquisitions:
    """Acquires and releases at a node."""

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        troubles: Troubles,
        grants: NodeGrants,
        leases: SessionLeases,
        *,
        blockers: Blockers,
    ) -> None:
        self._context = context
        self._clients = clients
        self._troubles = troubles
        self._grants = grants
        self._leases = leases
        self._blockers = blockers

    def acquire(self, connection: ConnectionId, message: Acquire, slot: NodeSlot, now_ns: int) -> None:
        """Grant, queue or refuse an acquire. A repeated one gets the acquisition's present state as its answer."""
        session = self._leases.touch(message, connection, now_ns)
        # Counted from now, and never longer than the coordinator's lease: what a lone primary promises must have ended
        # before its slots are given away.
        left_ns = self._context.rights.coordinator_lease.until_ns - now_ns
        access = self._clients.by_connection[connection].access
        request = OpenRequest(connection, message.request, now_ns, session.promise_ms(left_ns), access)
        deadline_ns = None if message.wait_ms == WAIT_FOREVER else now_ns + message.wait_ms * NS_PER_MS
        session.last_acquire = (connection, message.request)
        table = slot.table
        share = table.shares.get(session.id)
        if share is not None:
            entry = share.entries.get(message.acquisition)
            if entry is not None:
                self._repeat(slot, entry, message, request, deadline_ns)
                return
        lock = table.locks.get(message.name)
        if lock is not None:
            self._leases.expire_holders(slot, lock, now_ns)
            lock = table.locks.get(message.name)
        quota = session.totals.quota
        if quota is not None and quota.limits.locks is not None:
            quota.check_lock()
        if lock is None or (lock.waiters is None and lock.admits(message.mode, message.permits)):
            if self._grants.grant(slot, message.name, session, message, request, now_ns=now_ns):
                return
        if message.wait_ms == 0:
            self._refuse_at_once(request, message, lock, slot, now_ns)
            return
        if self._grants.waiters >= WAITERS_MAX:
            text = f"{WAITERS_MAX} requests wait at this node already"
            self._grants.count_failed_wait(message.name, message.mode, "refused", 0)
            self._clients.refuse(connection, message, "overloaded", text)
            return
        if quota is not None and quota.limits.waiters is not None:
            quota.check_waiter()
        since_ns = now_ns - ms_to_ns(message.waited_ms)
        self._grants.enqueue(slot, session, message, request, since_ns=since_ns, deadline_ns=deadline_ns)

    def _repeat(
        self,
        slot: NodeSlot,
        entry: LockHolder | LockWaiter,
        message: Acquire,
        request: OpenRequest,
        deadline_ns: int | None,
    ) -> None:
        if entry.lock.name != message.name:
            raise _of_another_lock(entry, message)
        if isinstance(entry, LockHolder):
            # An answer to this grant may be on its way already: a withdrawal of this request must not end the grant.
            entry.session.last_acquire = (request.connection, 0)
            self._grants.answer_again(slot, entry, request)
        else:
            self._grants.wait_again(entry, request, deadline_ns)

    def _refuse_at_once(
        self, request: OpenRequest, message: Acquire, lock: LockEntry | None, slot: NodeSlot, now_ns: int
    ) -> None:
        """Refuse an acquire that may not wait: its lock is held, or it is unknown here whether it is."""
        connection = request.connection
        if lock is not None and self._context.rights.may_serve(slot.number, now_ns=now_ns):
            self._grants.count_failed_wait(message.name, message.mode, "timeout", 0)
            self._context.outbox.counters.refuse("Acquire", "timeout")
            refusal = Refusal(
                message.request,
                "timeout",
                why_not_granted(lock, message),
                name=message.name,
                holders=self._blockers.of(lock, request.access),
                position=len(lock.waiters or ()) + 1,
            )
            self._context.outbox.send(connection, refusal)
            return
        self._troubles.look(self._context.now_ns)
        text = self._troubles.why_not_served(slot.number)
        self._grants.count_failed_wait(message.name, message.mode, "refused", 0)
        self._clients.refuse(connection, message, "unavailable", text)

    def release(self, connection: ConnectionId, message: Release, slot: NodeSlot, now_ns: int) -> None:
        """Drop an acquisition, held or waiting, and answer at once.

        Its copies hear of the end with the next grant: a client repeats its latest releases should a crash undo them.
        """
        share = slot.table.shares.get(message.session)
        entry = None if share is None else share.entries.get(message.acquisition)
        if entry is not None:
            if entry.lock.name != message.name:
                raise _of_another_lock(entry, message)
            # A withdrawal of an acquire (`message.acquire`) says that its sender wants no answer to it any more. If
            # that was not the last request of the acquisition, another has repeated it since, and may want, or have,
            # an answer.
            if message.acquire and entry.session.last_acquire != (connection, message.acquire):
                entry = None
            elif isinstance(entry, LockHolder):
                self._grants.drop_holder(slot, entry, now_ns, asked_by=connection)
            else:
                self._grants.withdraw(entry, "cancelled")
        self._context.outbox.send(connection, ReleaseReply(message.request, entry is not None))


def _of_another_lock(entry: LockHolder | LockWaiter, message: Acquire | Release) -> InvalidRequest:
    """Return the error of a request whose acquisition is of another lock than the one that it names."""
    return InvalidRequest(
        f"acquisition {message.acquisition} is one of {entry.lock.name!r}, not of {message.name!r}"
    )
