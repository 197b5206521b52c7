"""A node's grants and queues: what becomes of an acquire once it is admitted, until its end.

A grant is recorded at once and answered later: when its copies and the journal have it, and only if the node may then
still serve the slot, on the clock of that moment (`answer_grants`). Recording without the right to serve does no harm,
since no client has heard of it.

A waiter is judged by its identity's rights twice: when it comes, and when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockring.core.access import Quota, Verb
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.effects import lock_entry
from lockring.core.events import LOST
from lockring.core.histograms import NOTED_MAX
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.blockers import Blockers
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.counters import BROKEN, ENDINGS, EXPIRED, OUTCOMES
from lockring.core.node.generations import Generations
from lockring.core.node.lock_events import LockEvents
from lockring.core.node.locks import LockEntry, LockHolder, LockWaiter, OpenRequest, Session
from lockring.core.node.slot import EndedReign, NodeSlot
from lockring.core.node.trouble import Troubles
from lockring.core.node.wait_notices import WaitNotices
from lockring.core.refusals import refusal_of
from lockring.errors import Overloaded
from lockring.ids import ConnectionId, Generation, LockName, SlotNumber
from lockring.protocol import Acquire, GrantReply, LockEventKind, Mode, Put, Refusal, Remove
from lockring.slots import slot_of
from lockring.units import NS_PER_MS

# Bound once, for each grant that is recorded: compiled code looks an imported name up in a dictionary.
_new_put: Final = Put
_new_removal: Final = Remove


class NodeGrants:
    """A node's grants, their answers, and the waiters for them.

    Attributes:
        waiters: how many wait at this node.
        unanswered: slots with grants that are not answered yet.
        timeouts: when waits time out.
    """

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        troubles: Troubles,
        generations: Generations,
        events: LockEvents,
        *,
        guard: AccessGuard,
        blockers: Blockers,
    ) -> None:
        self._context = context
        self._guard = guard
        self._clients = clients
        self._troubles = troubles
        self._generations = generations
        self._events = events
        self._counters = context.outbox.counters
        self._blockers = blockers
        self.unanswered: dict[SlotNumber, None] = {}
        self.timeouts: DeadlineQueue[LockWaiter] = DeadlineQueue(self._is_waiting, context.outbox.wake)
        self.waiters = 0
        self._notices = WaitNotices(context, blockers)

    # ------------------------------------------------------------------ granting

    def grant(
        self,
        slot: NodeSlot,
        name: LockName,
        session: Session,
        wanted: Acquire | LockWaiter,
        request: OpenRequest,
        *,
        now_ns: int,
    ) -> bool:
        """Grant a lock, to be answered once its copies and the journal have the grant.

        Returns:
            Whether it was granted; False if the slot has no generation left at present.
        """
        reign = slot.reign
        assert reign is not None
        generation = self._generations.reserve(slot)
        if generation is None:
            self._generations.exhausted(slot.number)
            return False
        holder = slot.table.grant(name, session, wanted, generation, now_ns)
        if reign.streams or reign.journal is not None:
            reign.record(_put(name, session, wanted, generation), now_ns, urgent=True)
        else:
            reign.count()
        request.index = reign.index
        reign.unanswered[holder] = request
        self.unanswered[slot.number] = None
        if name in self._events.watched:
            self._events.add(LockEventKind.GRANTED, holder)
        return True

    def answer_again(self, slot: NodeSlot, holder: LockHolder, request: OpenRequest) -> None:
        """Answer an acquire that was granted before, as soon as that grant may be answered."""
        assert slot.reign is not None
        if holder.broken:
            self._refuse_broken(holder, request)
            return
        before = slot.reign.unanswered.get(holder)
        if before is not None and _is_superseded(request, before):
            return
        request.index = 0 if before is None else before.index
        slot.reign.unanswered[holder] = request
        self.unanswered[slot.number] = None

    def answer_grants(self, now_ns: int) -> None:
        """Send every grant that its copies and the journal have, and that this node may still give."""
        context = self._context
        sync = context.state.replication == "sync"
        for number in list(self.unanswered):
            reign = context.slots[number].reign
            if reign is None or not reign.unanswered:
                del self.unanswered[number]
                continue
            if sync and reign.streams:
                acknowledged = reign.acknowledged_index()
            else:
                acknowledged = reign.index if reign.journal is None else reign.journal.acked
            may_answer = False
            for holder, request in list(reign.unanswered.items()):
                if request.index > acknowledged:
                    continue
                if not may_answer:
                    may_answer = context.rights.may_serve(number, now_ns=now_ns)
                    if not may_answer:
                        break
                del reign.unanswered[holder]
                if holder.broken:
                    self._refuse_broken(holder, request)
                else:
                    if context.outbox.audits:
                        self._audit_grant(holder, request, context.slots[number])
                    self._send_grant(holder, request, now_ns)
            if not reign.unanswered:
                del self.unanswered[number]

    def serve_slot(self, slot: NodeSlot, now_ns: int) -> None:
        """Grant all that can be granted in a slot that has got new generations."""
        self._generations.extended(slot.number)
        for lock in [lock for lock in slot.table.locks.values() if lock.waiters]:
            self._serve_lock(slot, lock, now_ns)

    def _serve_lock(self, slot: NodeSlot, lock: LockEntry, now_ns: int) -> None:
        while (waiter := slot.table.next_grantable(lock)) is not None:
            request = waiter.request
            access = request.access
            if access is not None and self._guard.ends(
                request.connection, request.request, access, lock.name, Verb.ACQUIRE, kind="Acquire"
            ):
                self._take_out(slot, waiter, "cancelled", is_refused=True)
                continue
            quota = waiter.session.totals.quota
            if quota is not None and quota.limits.locks is not None and self._refuse_if_over(quota, waiter):
                self._take_out(slot, waiter, "cancelled", is_refused=True)
                continue
            if not self.grant(slot, lock.name, waiter.session, waiter, request, now_ns=now_ns):
                return
            self._forget_waiter(waiter)

    def _refuse_if_over(self, quota: Quota, waiter: LockWaiter) -> bool:
        """Refuse a waiter whose identity holds as many locks as it may, and return whether it was refused."""
        try:
            quota.check_lock()
        except Overloaded as error:
            self._counters.refuse_by("Acquire", error)
            request = waiter.request
            refusal = refusal_of(error, request.request, name=waiter.lock.name)
            self._context.outbox.send(request.connection, refusal)
            return True
        return False

    def _send_grant(self, holder: LockHolder, request: OpenRequest, now_ns: int) -> None:
        lock = holder.lock
        if request.index:  # not one that was answered before; written out, since each call is felt here
            granted_at_ns, counters = holder.granted_at_ns, self._counters
            locks = counters.all if counters.by_prefix is None else counters.of(lock.name)
            noted = locks.answered[lock.mode]
            noted.append(now_ns - granted_at_ns)
            if len(noted) >= NOTED_MAX:
                locks.answers[lock.mode].count_noted()
            if granted_at_ns > request.arrived_ns:
                locks.waits[lock.mode].observe(granted_at_ns - request.arrived_ns)
        if request.connection not in self._clients.by_connection:
            return
        session = holder.session
        request_number, promise_ms = request.request, request.promise_ms
        basis = session.basis
        # An acquire that waited for long would promise little, counted from its sending. A keepalive that came since
        # promises more; a quarter of a TTL is what makes the difference worth a look at another request.
        if basis.at_ns > request.arrived_ns and now_ns - request.arrived_ns > session.ttl_ms * NS_PER_MS // 4:
            request_number, promise_ms = basis.request, basis.promise_ms
        self._context.outbox.send(
            request.connection, GrantReply(request.request, holder.generation, promise_ms, request_number)
        )

    def _audit_grant(self, holder: LockHolder, request: OpenRequest, slot: NodeSlot) -> None:
        """Report a grant for the audit log when it is answered for the first time, be its client still there or not.

        Nothing here says whether a former primary has reported what it granted: such a grant is reported as that.
        """
        is_inherited = holder.generation <= slot.table.inherited
        if not request.index and not is_inherited:
            return  # its client has asked again
        entry = lock_entry(
            "acquire",
            holder.lock.name,
            holder.generation,
            connection=request.connection,
            access=request.access,
            is_forwarded=self._clients.is_forwarded(request.connection, request.access),
            owner=holder.session.identity,
            verb=Verb.ACQUIRE,
            reason="granted by a former primary, and answered again here" if is_inherited else "",
        )
        self._context.outbox.add(entry)

    def _audit_end(self, holder: LockHolder, reason: str, asked_by: ConnectionId | None) -> None:
        """Report the end of a grant for the audit log."""
        client = None if asked_by is None or reason else self._clients.by_connection.get(asked_by)
        access = None if client is None else client.access
        entry = lock_entry(
            "lost" if reason else "release",
            holder.lock.name,
            holder.generation,
            connection=None if client is None else asked_by,
            access=access,
            is_forwarded=client is not None and client.own is not access,
            owner=holder.session.identity,
            reason=reason,
        )
        self._context.outbox.add(entry)

    def _refuse_broken(self, holder: LockHolder, request: OpenRequest) -> None:
        self._counters.refuse("Acquire", "not-held")
        text = "this acquisition was broken by an operator"
        refusal = Refusal(request.request, "not-held", text, holder.lock.name)
        self._context.outbox.send(request.connection, refusal)

    # ------------------------------------------------------------------ waiting

    def enqueue(
        self,
        slot: NodeSlot,
        session: Session,
        message: Acquire,
        request: OpenRequest,
        *,
        since_ns: int,
        deadline_ns: int | None,
    ) -> None:
        """Let an acquire wait.

        Args:
            slot: of its lock.
            session: of its client.
            message: what it asks for.
            request: where to answer.
            since_ns: since when it has been waiting, here or elsewhere.
            deadline_ns: when it times out, None for never.
        """
        waiter = slot.table.enqueue(session, message, request, since_ns=since_ns)
        waiter.deadline_ns = deadline_ns
        self.waiters += 1
        self._counters.of(message.name).waiting[waiter.mode] += 1
        if session.totals.quota is not None:
            session.totals.quota.waiters += 1
        self._notices.fresh.append(waiter)
        self._clients.by_connection[request.connection].waiters[waiter] = None
        if deadline_ns is not None:
            self.timeouts.push(deadline_ns, waiter)
        if message.name in self._events.watched:
            self._events.add(LockEventKind.WAITING, waiter)

    def wait_again(self, waiter: LockWaiter, request: OpenRequest, deadline_ns: int | None) -> None:
        """Answer a waiting acquire to another request of its client from now on."""
        if _is_superseded(request, waiter.request):
            return
        client = self._clients.by_connection.get(waiter.request.connection)
        if client is not None:
            client.waiters.pop(waiter, None)
        self._clients.by_connection[request.connection].waiters[waiter] = None
        waiter.request = request
        self._notices.fresh.append(waiter)
        if waiter.deadline_ns is not None:
            self.timeouts.abandon()
        waiter.deadline_ns = deadline_ns
        if deadline_ns is not None:
            self.timeouts.push(deadline_ns, waiter)

    def on_tick(self, now_ns: int) -> None:
        """Send the notices that are due now and then, and ask again for generations."""
        self._generations.ask_again()
        self._notices.on_tick(now_ns)

    def time_out_due(self, now_ns: int) -> None:
        """Refuse the waiters whose time is up."""
        while (due := self.timeouts.pop_due(now_ns)) is not None:
            waiter = due[1]
            if self._is_waiting(waiter, due[0]):
                self._time_out(waiter, now_ns)

    def _time_out(self, waiter: LockWaiter, now_ns: int) -> None:
        name, number = waiter.lock.name, slot_of(waiter.lock.name)
        request = waiter.request
        if self._context.rights.may_serve(number, now_ns=now_ns):
            refusal = Refusal(
                request.request,
                "timeout",
                why_not_granted(waiter.lock, waiter),
                name=name,
                holders=self._blockers.of(waiter.lock, request.access),
                position=self._context.slots[number].table.position_of(waiter),
            )
        else:
            self._troubles.look(self._context.now_ns)
            refusal = Refusal(request.request, "unavailable", self._troubles.why_not_served(number), name)
        waiter.deadline_ns = None
        self._counters.refuse("Acquire", refusal.code)
        self.withdraw(waiter, "timeout")
        self._context.outbox.send(request.connection, refusal)

    def _is_waiting(self, waiter: LockWaiter, at_ns: int) -> bool:
        slot = self._context.slots[slot_of(waiter.lock.name)]
        return (
            waiter.deadline_ns == at_ns and slot.table.find(waiter.session.id, waiter.acquisition) is waiter
        )

    # ------------------------------------------------------------------ ends

    def drop(
        self,
        slot: NodeSlot,
        entry: LockHolder | LockWaiter,
        now_ns: int,
        *,
        reason: str = "",
        asked_by: ConnectionId | None = None,
    ) -> None:
        """Drop a holder or a waiter, and grant the lock to the waiters that it blocked.

        Args:
            slot: of its lock.
            entry: the holder or waiter.
            now_ns: the time.
            reason: why it was lost; "" if its client gave it up.
            asked_by: the connection on which its client gave it up, None if it did not.
        """
        if isinstance(entry, LockHolder):
            self.drop_holder(slot, entry, now_ns, reason, asked_by=asked_by)
        else:
            self.withdraw(entry, reason or "cancelled")

    def drop_holder(
        self,
        slot: NodeSlot,
        holder: LockHolder,
        now_ns: int,
        reason: str = "",
        *,
        asked_by: ConnectionId | None = None,
    ) -> None:
        """End a grant as `drop` does."""
        reign = slot.reign
        assert reign is not None
        if holder.lock.name in self._events.watched:
            self._events.add_end(holder, reason)
        if reason:
            self._context.outbox.events.lock_ended(
                LOST,
                holder.lock.name,
                holder.session.owner,
                holder.generation,
                reason="broken" if holder.broken else reason,
                now_ns=now_ns,
            )
        if self._context.outbox.audits:
            self._audit_end(holder, "broken" if holder.broken else reason, asked_by)
        lock, counters = holder.lock, self._counters
        locks = counters.all if counters.by_prefix is None else counters.of(lock.name)
        place = lock.mode * ENDINGS
        if reason or holder.broken:
            place += EXPIRED if reason == "expired" else BROKEN
        noted = locks.ended[place]
        noted.append(now_ns - holder.granted_at_ns)
        if len(noted) >= NOTED_MAX:
            locks.holds[place].count_noted()
        slot.table.remove_holder(holder)
        holder.broken = False
        reign.unanswered.pop(holder, None)
        if reign.streams or reign.journal is not None:
            removal = _new_removal(holder.lock.name, holder.session.id, holder.acquisition)
            reign.record(removal, now_ns, urgent=False)
        else:
            reign.count()
        if holder.lock.waiters:
            self._serve_lock(slot, holder.lock, now_ns)

    def drop_session(
        self,
        session: Session,
        now_ns: int,
        *,
        is_lost: bool,
        at_most: int | None = None,
        asked_by: ConnectionId | None = None,
    ) -> int:
        """Drop a session's acquisitions in the slots served here.

        A session may wait behind itself, so that dropping one of its holders grants it another: hence the repetition,
        and waiters first.

        Args:
            session: whose holders and waiters end.
            now_ns: the time.
            is_lost: whether its client is notified, since it did not give them up.
            at_most: end after so many.
            asked_by: the connection on which its client gave them up, None if it did not.

        Returns:
            How many were dropped.
        """
        dropped = 0
        for number in list(session.totals.served):
            slot = self._context.slots[number]
            while (share := slot.table.shares.get(session.id)) is not None:
                entries = sorted(share.entries.values(), key=lambda entry: isinstance(entry, LockHolder))
                for entry in entries:
                    if at_most is not None and dropped >= at_most:
                        return dropped
                    if slot.table.find(session.id, entry.acquisition) is entry:
                        if is_lost:
                            self._clients.notify_lost(entry, "expired")
                        reason = "expired" if is_lost else ""
                        self.drop(slot, entry, now_ns, reason=reason, asked_by=asked_by)
                        dropped += 1
        return dropped

    def withdraw(self, waiter: LockWaiter, reason: str) -> None:
        """Take a waiter out of its queue, and grant the lock to the waiters that it blocked."""
        slot = self._context.slots[slot_of(waiter.lock.name)]
        self._take_out(slot, waiter, reason)
        self._serve_lock(slot, waiter.lock, self._context.now_ns)

    def withdraw_all(self, waiters: Iterable[LockWaiter]) -> None:
        """Take waiters out of their queues, and only then grant the locks, so that none goes to one of them."""
        locks: dict[LockEntry, NodeSlot] = {}
        for waiter in waiters:
            slot = locks[waiter.lock] = self._context.slots[slot_of(waiter.lock.name)]
            self._take_out(slot, waiter, "disconnected")
        for lock, slot in locks.items():
            self._serve_lock(slot, lock, self._context.now_ns)

    def _take_out(self, slot: NodeSlot, waiter: LockWaiter, reason: str, *, is_refused: bool = False) -> None:
        """Let a waiter leave its queue; `reason` is for watches, to which a refusal is one more end of the wait."""
        waited_ns = self._context.now_ns - waiter.since_ns
        outcome = "refused" if is_refused else reason
        self.count_failed_wait(waiter.lock.name, waiter.mode, outcome, waited_ns)
        slot.table.dequeue(waiter)
        self._forget_waiter(waiter)
        if waiter.lock.name in self._events.watched:
            self._events.add(LockEventKind.LEFT, waiter, reason)

    def count_failed_wait(self, name: LockName, mode: int, reason: str, waited_ns: int) -> None:
        """Count an acquire that ends without a grant.

        Args:
            name: of the lock.
            mode: in which it was wanted.
            reason: "timeout"; "cancelled" and "disconnected", by its client; or another, by this node.
            waited_ns: for how long it waited.
        """
        outcome = 0 if reason == "timeout" else 1 if reason in ("cancelled", "disconnected") else 2
        self._counters.of(name).failed_waits[mode * len(OUTCOMES) + outcome].observe(max(0, waited_ns))

    def reign_ended(self, ended: EndedReign) -> None:
        """Refuse all waiting acquires in a slot that is not served here any more."""
        for waiter in ended.waiters:
            waited_ns = self._context.now_ns - waiter.since_ns
            self.count_failed_wait(waiter.lock.name, waiter.mode, "moved", waited_ns)
            self._forget_waiter(waiter)
            self._clients.refuse_moved(
                waiter.request.connection, waiter.request.request, waiter.lock.name, "Acquire"
            )
        for holder, request in ended.reign.unanswered.items():
            self._clients.refuse_moved(request.connection, request.request, holder.lock.name, "Acquire")
        self.unanswered.pop(ended.number, None)
        self._generations.extended(ended.number)

    def _forget_waiter(self, waiter: LockWaiter) -> None:
        """Let nothing name a waiter that was taken out of its table."""
        self.waiters -= 1
        self._counters.of(waiter.lock.name).waiting[waiter.mode] -= 1
        quota = waiter.session.totals.quota
        if quota is not None:
            quota.waiters -= 1
        if waiter.deadline_ns is not None:
            self.timeouts.abandon()
        client = self._clients.by_connection.get(waiter.request.connection)
        if client is not None:
            client.waiters.pop(waiter, None)


def _put(name: LockName, session: Session, wanted: Acquire | LockWaiter, generation: Generation) -> Put:
    """Return the mutation of a new grant.

    By position: with keywords the constructor takes 0.20 µs instead of 0.13 (CPython 3.11), on the path of every
    replicated grant.
    """
    return _new_put(
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
        session.identity,
    )


def _is_superseded(request: OpenRequest, by: OpenRequest) -> bool:
    """Return whether the client has asked again since.

    Parked requests are not looked at in the order in which they came, and a client listens for the answer to its last
    one only.
    """
    return request.connection == by.connection and request.request < by.request


def why_not_granted(lock: LockEntry, wanted: Acquire | LockWaiter) -> str:
    """Return a sentence on the holders or earlier waiters that block an acquire."""
    owners = ", ".join(repr(holder.session.owner) for holder in lock.holders[:3])
    first = lock.waiters[0] if lock.waiters else None
    if not owners:
        return f"lock {lock.name!r} has others waiting"
    if wanted.mode == lock.mode == Mode.SHARED and first is not None and first.mode != Mode.SHARED:
        return (
            f"lock {lock.name!r} is shared by {owners},"
            f" and {first.session.owner!r} waits before you to hold it alone"
        )
    return f"lock {lock.name!r} is held by {owners}"
