"""A node's locks for clients: acquire, wait, grant, release.

A grant is recorded at once and answered later: when its copies have it, and if the node may then still serve the slot,
on the clock of that moment (`answer_grants`). Recording without the right to serve does no harm, since nobody
has been told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from lockring.cluster_state import GENERATION_MAX
from lockring.core.deadlines import DeadlineQueue
from lockring.core.node.locks import LockEntry, LockHolder, LockWaiter, OpenRequest
from lockring.core.node.sessions import Session
from lockring.core.node.slot import NodeSlot
from lockring.core.node.validation import check_acquire
from lockring.errors import InvalidRequest
from lockring.protocol import (
    WAIT_FOREVER,
    Acquire,
    GrantReply,
    LockEventKind,
    Mode,
    Put,
    QueueNotice,
    Refusal,
    Release,
    ReleaseReply,
    Remove,
)
from lockring.slots import checked_slot_of, slot_of
from lockring.units import NS_PER_MS, ms_to_ns

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore
    from lockring.core.node.dispatch import ClientRequests

WAITERS_MAX: Final = 200_000
"""Waiters at a node: about 100 MB."""

GENERATIONS_MARGIN: Final = 100_000
"""More are asked for when fewer than this are left: at 5,000 grants a second, 20 s before the end."""


class Acquisitions:
    """Acquires and releases at a node.

    Attributes:
        waiters: how many wait here.
        unanswered: slots with grants that are not answered yet.
        timeouts: when waits time out.
    """

    def __init__(self, node: NodeCore, service: ClientRequests) -> None:
        self._node = node
        self._service = service
        self.unanswered: dict[int, None] = {}
        self._exhausted: dict[int, None] = {}
        self.timeouts: DeadlineQueue[LockWaiter] = DeadlineQueue(self._is_waiting)
        self.waiters = 0
        # Waiters whose clients have not been told that they are in the queue: since the last tick, and since before it.
        self._fresh: list[LockWaiter] = []
        self._untold: list[LockWaiter] = []

    def time_out_due(self, now_ns: int) -> None:
        """Answer the waiters whose time is up."""
        while (due := self.timeouts.pop_due(now_ns)) is not None:
            waiter = due[1]
            if self._is_waiting(waiter, due[0]):
                self._time_out(waiter, now_ns)

    def answer_grants(self, now_ns: int) -> None:
        """Send every grant that its copies have, and that this node may still give."""
        node = self._node
        sync = node.state.replication == "sync"
        for slot in list(self.unanswered):
            reign = node.slots[slot].reign
            if reign is None or not reign.unanswered:
                del self.unanswered[slot]
                continue
            if not node.may_serve(slot, now_ns=now_ns):
                continue
            acknowledged = reign.acknowledged() if sync and reign.streams else reign.index
            for holder, request in list(reign.unanswered.items()):
                if request.index > acknowledged:
                    continue
                del reign.unanswered[holder]
                if holder.broken:
                    self._refuse_broken(holder, request)
                else:
                    self._send_grant(holder, request, now_ns)
            if not reign.unanswered:
                del self.unanswered[slot]

    def reign_ended(self, data: NodeSlot) -> None:
        """A slot is not served here any more: whoever waits for an answer is told to go elsewhere."""
        reign = data.reign
        assert reign is not None
        for waiter in data.table.stop_serving():
            self.forget_waiter(waiter)
            self._service.refuse_moved(waiter.request.connection, waiter.request.request, waiter.lock.name)
        for holder, request in reign.unanswered.items():
            self._service.refuse_moved(request.connection, request.request, holder.lock.name)
        reign.unanswered.clear()
        self.unanswered.pop(data.number, None)
        self._exhausted.pop(data.number, None)

    def serve_slot(self, data: NodeSlot, now_ns: int) -> None:
        """Grant what can be granted in a slot, after there were no generations for a while."""
        self._exhausted.pop(data.number, None)
        for lock in [lock for lock in data.table.locks.values() if lock.waiters]:
            self._serve_lock(data, lock, now_ns)

    def on_tick(self, now_ns: int) -> None:
        """Do what is done now and then: tell who waits that it does, and ask again for generations.

        An acquire is told that it is in the queue only if it waits for longer than a tick: most are granted before, and the
        news would cost a client that waits for nothing else a wake-up.
        """
        for slot in self._exhausted:  # the last question may have been lost
            self._node.ask_for_generations(slot)
        untold, self._untold, self._fresh = self._untold, self._fresh, []
        for waiter in untold:
            slot = slot_of(waiter.lock.name)
            data = self._node.slots.get(slot)
            if data is None or data.table.find(waiter.session.id, waiter.acquisition) is not waiter:
                continue
            if self._node.may_serve(slot, now_ns=now_ns):
                self._node.send(waiter.request.connection, QueueNotice(waiter.request.request))
            else:
                self._fresh.append(waiter)

    def acquire(self, connection: int, message: Acquire, now_ns: int) -> None:
        """Grant, queue or park an acquire; the same acquisition again only says where to answer."""
        name, acquisition = message.name, message.acquisition
        slot = checked_slot_of(name)
        check_acquire(message)
        node = self._node
        data = node.slots.get(slot)
        left_ns = node.coordinator_lease.until_ns - now_ns
        if data is None or data.reign is None or left_ns <= 0:
            self._service.elsewhere(connection, message, slot, now_ns)
            return
        session = self._service.keeping.touch(message, connection, now_ns)
        request = OpenRequest(connection, message.request, now_ns, session.promise_ms(left_ns))
        table = data.table
        deadline_ns = None if message.wait_ms == WAIT_FOREVER else now_ns + message.wait_ms * NS_PER_MS
        entry = table.find(session.id, acquisition)
        session.asked_on, session.asked = connection, message.request
        if entry is not None:
            if entry.lock.name != name:
                raise InvalidRequest(
                    f"acquisition {acquisition} is one of {entry.lock.name!r}, not of {name!r}"
                )
            if isinstance(entry, LockHolder):
                session.asked = 0  # somebody else may have been told of this grant
                self._acquire_again(data, entry, request)
            else:
                self._wait_again(entry, request, deadline_ns)
            return
        lock = table.locks.get(name)
        if lock is not None:
            self._service.keeping.expire_holders(lock, now_ns)
            lock = table.locks.get(name)
        if lock is None or (lock.waiters is None and lock.admits(message.mode, message.permits)):
            if self._grant(data, name, session, message, request, now_ns):
                return
        if message.wait_ms == 0:
            self._refuse_try(connection, message, lock, slot, now_ns)
            return
        if self.waiters >= WAITERS_MAX:
            self._service.refuse(
                connection, message, "overloaded", f"{WAITERS_MAX} requests wait at this node already"
            )
            return
        waiter = data.table.enqueue(
            name,
            session,
            message.acquisition,
            mode=message.mode,
            permits=message.permits,
            since_ns=now_ns - ms_to_ns(message.waited_ms),
            deadline_ns=deadline_ns,
            request=request,
            payload=message.payload,
        )
        self.waiters += 1
        self._fresh.append(waiter)
        self._service.connections[connection].waiters[waiter] = None
        if deadline_ns is not None:
            self.timeouts.push(deadline_ns, waiter)
        self._service.watching.note(LockEventKind.WAITING, waiter)

    def _acquire_again(self, data: NodeSlot, holder: LockHolder, request: OpenRequest) -> None:
        assert data.reign is not None
        if holder.broken:
            self._refuse_broken(holder, request)
            return
        before = data.reign.unanswered.get(holder)
        if before is not None and _is_superseded(request, before):
            return
        request.index = 0 if before is None else before.index
        data.reign.unanswered[holder] = request
        self.unanswered[data.number] = None

    def _refuse_broken(self, holder: LockHolder, request: OpenRequest) -> None:
        text = "this acquisition was broken by an operator"
        self._node.send(request.connection, Refusal(request.request, "not-held", text, holder.lock.name))

    def _wait_again(self, waiter: LockWaiter, request: OpenRequest, deadline_ns: int | None) -> None:
        if _is_superseded(request, waiter.request):
            return
        client = self._service.connections.get(waiter.request.connection)
        if client is not None:
            client.waiters.pop(waiter, None)
        self._service.connections[request.connection].waiters[waiter] = None
        waiter.request = request
        self._fresh.append(waiter)
        if waiter.deadline_ns is not None:
            self.timeouts.abandon()
        waiter.deadline_ns = deadline_ns
        if deadline_ns is not None:
            self.timeouts.push(deadline_ns, waiter)

    def _grant(
        self,
        data: NodeSlot,
        name: str,
        session: Session,
        wanted: Acquire | LockWaiter,
        request: OpenRequest,
        now_ns: int,
    ) -> bool:
        """Grant the lock, to be answered once its copies have it. False if there is no generation left at present."""
        reign = data.reign
        assert reign is not None
        generation = self.fresh_generation(data)
        if generation is None:
            self._exhausted[data.number] = None
            return False
        holder = data.table.grant(name, session, wanted, generation, now_ns)
        if reign.streams:
            reign.record(
                Put(
                    name,
                    wanted.mode,
                    wanted.permits,
                    session.id,
                    wanted.acquisition,
                    session.owner,
                    session.ttl_ms,
                    generation,
                    0,
                    0,
                    wanted.payload,
                ),
                now_ns,
            )
        else:
            reign.count()
        request.index = reign.index
        reign.unanswered[holder] = request
        self.unanswered[data.number] = None
        self._service.watching.note(LockEventKind.GRANTED, holder)
        return True

    def fresh_generation(self, data: NodeSlot) -> int | None:
        """A generation that the slot has not used; None if it has none left at present. More are asked for in time."""
        state = self._node.state.slots[data.number]
        generation = data.table.highest + 1
        if generation < state.generation_from:
            generation = state.generation_from
        if generation + GENERATIONS_MARGIN >= state.generation_below:
            self._node.ask_for_generations(data.number)
            if generation >= min(state.generation_below, GENERATION_MAX):
                return None
        return generation

    def _send_grant(self, holder: LockHolder, request: OpenRequest, now_ns: int) -> None:
        if request.connection not in self._service.connections:
            return
        session = holder.session
        basis, promise_ms = request.request, request.promise_ms
        if (
            session.basis_at_ns > request.arrived_ns
            and now_ns - request.arrived_ns > session.ttl_ms * NS_PER_MS // 4
        ):
            basis, promise_ms = session.basis, session.basis_promise_ms
        self._node.send(request.connection, GrantReply(request.request, holder.generation, promise_ms, basis))

    def _serve_lock(self, data: NodeSlot, lock: LockEntry, now_ns: int) -> None:
        while (waiter := data.table.next_grantable(lock)) is not None:
            if not self._grant(data, lock.name, waiter.session, waiter, waiter.request, now_ns):
                return
            self.forget_waiter(waiter)

    def release(self, connection: int, message: Release, now_ns: int) -> None:
        """Drop an acquisition, held or waiting, and answer once that is done here."""
        name = message.name
        slot = checked_slot_of(name)
        data = self._node.slots.get(slot)
        if data is None or not self._node.may_serve(slot, now_ns=now_ns):
            self._service.elsewhere(connection, message, slot, now_ns)
            return
        entry = data.table.find(message.session, message.acquisition)
        if entry is not None and entry.lock.name != name:
            raise InvalidRequest(
                f"acquisition {message.acquisition} is one of {entry.lock.name!r}, not of {name!r}"
            )
        if entry is not None and message.acquire:
            # Its sender wants no answer to that acquire any more. Whoever has repeated it may want, or have, one.
            if (entry.session.asked_on, entry.session.asked) != (connection, message.acquire):
                entry = None
        if entry is not None:
            self.drop(data, entry, now_ns)
        self._node.send(connection, ReleaseReply(message.request, entry is not None))

    def drop(self, data: NodeSlot, entry: LockHolder | LockWaiter, now_ns: int, why: str = "") -> None:
        """Drop a holder or a waiter, and grant whom that lets in; `why` is "" if its client wanted that."""
        if isinstance(entry, LockHolder):
            self.drop_holder(data, entry, now_ns, why)
        else:
            self.withdraw(entry, why or "cancelled")

    def drop_holder(self, data: NodeSlot, holder: LockHolder, now_ns: int, why: str = "") -> None:
        """End a grant, and grant whom that lets in; `why` it was lost, "" if it was released."""
        reign = data.reign
        assert reign is not None
        self._service.watching.note_end(holder, why)
        data.table.remove_holder(holder)
        holder.broken = False
        reign.unanswered.pop(holder, None)
        if reign.streams:
            reign.record(Remove(holder.lock.name, holder.session.id, holder.acquisition), now_ns)
        else:
            reign.count()
        if holder.lock.waiters:
            self._serve_lock(data, holder.lock, now_ns)

    def withdraw(self, waiter: LockWaiter, why: str) -> None:
        """Take a waiter out of its queue, and grant whom it stood before."""
        data = self._node.slots[slot_of(waiter.lock.name)]
        data.table.dequeue(waiter)
        self.forget_waiter(waiter)
        self._service.watching.note(LockEventKind.LEFT, waiter, why)
        self._serve_lock(data, waiter.lock, self._node.now_ns)

    def withdraw_all(self, waiters: Iterable[LockWaiter]) -> None:
        """Take waiters out of their queues, and only then grant whom they stood before: none of themselves."""
        locks: dict[LockEntry, NodeSlot] = {}
        for waiter in waiters:
            lock = waiter.lock
            data = locks[lock] = self._node.slots[slot_of(lock.name)]
            data.table.dequeue(waiter)
            self.forget_waiter(waiter)
            self._service.watching.note(LockEventKind.LEFT, waiter, "disconnected")
        for lock, data in locks.items():
            self._serve_lock(data, lock, self._node.now_ns)

    def forget_waiter(self, waiter: LockWaiter) -> None:
        """A waiter was taken out of its table: let nothing else name it."""
        self.waiters -= 1
        if waiter.deadline_ns is not None:
            self.timeouts.abandon()
        client = self._service.connections.get(waiter.request.connection)
        if client is not None:
            client.waiters.pop(waiter, None)

    def _time_out(self, waiter: LockWaiter, now_ns: int) -> None:
        name, slot = waiter.lock.name, slot_of(waiter.lock.name)
        request = waiter.request
        if self._node.may_serve(slot, now_ns=now_ns):
            refused = Refusal(request.request, "timeout", _who_holds(waiter.lock, waiter), name)
        else:
            refused = Refusal(request.request, "unavailable", self._service.not_served(slot), name)
        waiter.deadline_ns = None
        self.withdraw(waiter, "timeout")
        self._node.send(request.connection, refused)

    def _is_waiting(self, waiter: LockWaiter, at_ns: int) -> bool:
        data = self._node.slots[slot_of(waiter.lock.name)]
        return (
            waiter.deadline_ns == at_ns and data.table.find(waiter.session.id, waiter.acquisition) is waiter
        )

    def _refuse_try(
        self, connection: int, message: Acquire, lock: LockEntry | None, slot: int, now_ns: int
    ) -> None:
        if lock is not None and self._node.may_serve(slot, now_ns=now_ns):
            self._service.refuse(connection, message, "timeout", _who_holds(lock, message))
        else:
            self._service.refuse(connection, message, "unavailable", self._service.not_served(slot))


def _is_superseded(request: OpenRequest, by: OpenRequest) -> bool:
    """Whether the client has asked again since: parked requests are not looked at in the order in which they came, and a
    client listens for the answer to its last one only."""
    return request.connection == by.connection and request.request < by.request


def _who_holds(lock: LockEntry, wanted: Acquire | LockWaiter) -> str:
    """Why an acquire was not granted: who holds the lock, or who waits before it."""
    owners = ", ".join(repr(holder.session.owner) for holder in lock.holders[:3])
    first = lock.waiters[0] if lock.waiters else None
    if not owners:
        return f"lock {lock.name!r} has others waiting"
    if wanted.mode == lock.mode == Mode.SHARED and first is not None and first.mode != Mode.SHARED:
        return f"lock {lock.name!r} is shared by {owners}, and {first.session.owner!r} waits before you to hold it alone"
    return f"lock {lock.name!r} is held by {owners}"
