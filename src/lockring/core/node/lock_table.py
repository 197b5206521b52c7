"""The locks of one slot: holders, first-come-first-served waiters, and the rules by which they are granted.

Rules:

- A lock exists while it has a holder or a waiter; a free lock costs nothing.
- A grant is a `Put`, its end a `Remove`: primary and copies apply the same mutations to the same kind of table. A view
  of a group is an `AdvanceGeneration`: nothing but its number. A `Revoke` says that an operator has ended the renewal
  of a grant.
- `(generation, seq)` of a lock only rises: `generation` at each grant, `seq` at each mutation within one.
- Waiters stand in the order of the time since when they wait, which for new ones is the order of arrival.
- The first waiter is granted when the holders admit it; none passes it, so readers never starve a writer.
- Waiters are the primary's alone: they are open requests, and clients repeat them elsewhere after a failover.

The table knows nothing of rights, time-outs or replication; the node does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from operator import attrgetter

from lockring.core.node.counters import MODES
from lockring.core.node.locks import (
    HOLDERS_MAX,
    NO_DEADLINE,
    LockEntry,
    LockHolder,
    LockWaiter,
    OpenRequest,
    Session,
    Share,
)
from lockring.core.node.sessions import Sessions
from lockring.core.timing import up
from lockring.ids import (
    FIRST_GENERATION,
    NO_GENERATION,
    AcquisitionNumber,
    Generation,
    LockName,
    NodeId,
    SessionId,
    SlotNumber,
)
from lockring.protocol import (
    SEQ_FREE,
    Acquire,
    HolderRecord,
    LockRecord,
    Mode,
    Mutation,
    Put,
    Remove,
    Revoke,
    WaiterRecord,
)
from lockring.units import NS_PER_MS, ns_to_ms_floor

_place = attrgetter("place")


class LockTable:
    """The locks of one slot at one node.

    Attributes:
        slot: its number.
        locks: by name.
        broken: the holders that are not renewed any more.
        shares: by session id.
        highest: highest generation ever seen in this slot since its base.
        many: holders by mode, and behind them locks by mode, of all modes but the exclusive one.
        inherited: no grant before the present reign had a higher generation.
        served: whether this node serves the slot, so that sessions count what is here.
    """

    __slots__ = (
        "_arrivals",
        "_payloads",
        "_sessions",
        "broken",
        "highest",
        "inherited",
        "locks",
        "many",
        "served",
        "shares",
        "slot",
    )

    def __init__(self, slot: SlotNumber, sessions: Sessions) -> None:
        self.slot = slot
        self.locks: dict[LockName, LockEntry] = {}
        self.broken: dict[LockHolder, None] = {}
        self.shares: dict[SessionId, Share] = {}
        self.many = [0] * 6
        self.highest = NO_GENERATION
        self.inherited = NO_GENERATION
        self.served = False
        self._sessions = sessions
        self._arrivals = 0
        # Of the few holders that have one.
        self._payloads: dict[LockHolder, bytes] = {}

    # ------------------------------------------------------------------ looking

    def find(self, session_id: SessionId, acquisition: AcquisitionNumber) -> LockHolder | LockWaiter | None:
        """Return the holder or waiter of this acquisition, None if there is none."""
        share = self.shares.get(session_id)
        return None if share is None else share.entries.get(acquisition)

    def payload_of(self, holder: LockHolder) -> bytes:
        """Return the bytes that a holder's client has published with its grant."""
        return self._payloads.get(holder, b"")

    def holders(self) -> Iterator[LockHolder]:
        """Return every holder, lock by lock."""
        for lock in self.locks.values():
            yield from lock.holders

    # ------------------------------------------------------------------ holders

    def put(self, mutation: Put, now_ns: int) -> LockHolder:
        """Add a holder. The same acquisition put twice gives the holder that is there."""
        # Written out, since a start on a journal, and a new copy, do this for every lock that is held.
        share = self.shares.get(mutation.session)
        if share is None:
            session = self._sessions.by_id.get(mutation.session)
            if session is None:
                session = self._sessions.open(
                    mutation.session, mutation.owner, mutation.ttl_ms, mutation.identity
                )
            elif not session.identity:
                session.identity = mutation.identity
            share = self._open_share(session)
        acquisition, generation, name = mutation.acquisition, mutation.generation, mutation.name
        there = share.entries.get(acquisition)
        if there is not None:
            if isinstance(there, LockHolder):
                return there
            self._dequeue(there, share)
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = LockEntry(name)
        if generation > lock.generation:
            lock.generation = generation
        if generation > self.highest:
            self.highest = generation
        lock.seq = mutation.seq
        holder = LockHolder(
            lock, share.session, acquisition, generation, now_ns - mutation.age_ms * NS_PER_MS
        )
        if mutation.payload:
            self._payloads[holder] = mutation.payload
        if mutation.mode:
            self._add_to_many(lock, mutation.mode)
        lock.add(holder, mutation.mode, mutation.permits)
        share.add(acquisition, holder, self.served)
        return holder

    def grant(
        self,
        name: LockName,
        session: Session,
        wanted: Acquire | LockWaiter,
        generation: Generation,
        now_ns: int,
    ) -> LockHolder:
        """Add a new holder with a generation above all in the slot: what `put` of the same mutation does, for a primary
        that has looked up already what that looks up. A waiter under this acquisition becomes the holder."""
        assert generation > self.highest
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = LockEntry(name)
        acquisition, payload = wanted.acquisition, wanted.payload
        share = self.shares.get(session.id)
        if share is None:
            share = self._open_share(session)
        else:
            waiter = share.entries.get(acquisition)
            if waiter is not None:
                assert waiter is wanted
                self._dequeue(waiter, share)
        lock.seq = 0
        lock.generation = self.highest = generation
        holder = LockHolder(lock, session, acquisition, generation, now_ns)
        if payload:
            self._payloads[holder] = payload
        if wanted.mode:
            self._add_to_many(lock, wanted.mode)
        lock.add(holder, wanted.mode, wanted.permits)
        share.add(acquisition, holder, self.served)
        return holder

    def remove(self, session_id: SessionId, acquisition: AcquisitionNumber) -> LockHolder | None:
        """Take a holder out; None if it is not there (a late or repeated removal changes nothing)."""
        share = self.shares.get(session_id)
        holder = None if share is None else share.entries.get(acquisition)
        if not isinstance(holder, LockHolder):
            return None
        self.remove_holder(holder)
        return holder

    def remove_holder(self, holder: LockHolder) -> None:
        """Take out a holder that is there."""
        share, acquisition = self.shares[holder.session.id], holder.acquisition
        del share.entries[acquisition]
        if not holder.broken:
            share.uncount(acquisition, self.served)
        if self.broken:
            self.broken.pop(holder, None)
        if self._payloads:
            self._payloads.pop(holder, None)
        lock = holder.lock
        lock.drop(holder)
        if lock.mode:
            self.many[lock.mode] -= 1
            self.many[MODES + lock.mode] -= lock.held is None
        lock.seq += 1
        self._tidy(lock, share)

    def touch(self, generation: Generation) -> None:
        """Note that a generation was used: every later one is greater."""
        self.highest = max(self.highest, generation)

    def apply(self, mutation: Mutation, now_ns: int) -> None:
        """Apply a primary's mutation, on a copy."""
        if isinstance(mutation, Put):
            self.put(mutation, now_ns)
        elif isinstance(mutation, Remove):
            self.remove(mutation.session, mutation.acquisition)
        elif isinstance(mutation, Revoke):
            holder = self.find(mutation.session, mutation.acquisition)
            if isinstance(holder, LockHolder):
                self.break_holder(holder)
        else:
            self.touch(mutation.generation)

    def apply_all(self, mutations: Sequence[Mutation], now_ns: int) -> None:
        """Apply a primary's mutations, in their order."""
        put, remove, apply = self.put, self.remove, self.apply
        for mutation in mutations:
            if type(mutation) is Put:
                put(mutation, now_ns)
            elif type(mutation) is Remove:
                remove(mutation.session, mutation.acquisition)
            else:
                apply(mutation, now_ns)

    def break_holder(self, holder: LockHolder) -> None:
        """Let no keepalive renew this holder."""
        if not holder.broken:
            holder.broken = True
            self.broken[holder] = None
            self.shares[holder.session.id].uncount(holder.acquisition, self.served)

    # ------------------------------------------------------------------ waiters

    def enqueue(
        self, session: Session, wanted: Acquire, request: OpenRequest, *, since_ns: int
    ) -> LockWaiter:
        """Add a waiter, without a deadline, behind all waiters that have waited longer."""
        name = wanted.name
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = LockEntry(name)
        self._arrivals += 1
        waiter = LockWaiter(lock, session, wanted, request, (since_ns, self._arrivals))
        if lock.waiters is None:
            lock.waiters = [waiter]
        elif lock.waiters[-1].place < waiter.place:
            lock.waiters.append(waiter)
        else:
            insort(lock.waiters, waiter, key=_place)
        share = self.shares.get(session.id) or self._open_share(session)
        share.add(waiter.acquisition, waiter, self.served)
        return waiter

    def dequeue(self, waiter: LockWaiter) -> None:
        """Take a waiter out, granted or not."""
        share = self.shares[waiter.session.id]
        self._dequeue(waiter, share)
        self._tidy(waiter.lock, share)

    def position_of(self, waiter: LockWaiter) -> int:
        """Return the place of a waiter in its queue, from 1."""
        waiters = waiter.lock.waiters
        assert waiters is not None
        return bisect_left(waiters, waiter.place, key=_place) + 1

    def next_grantable(self, lock: LockEntry) -> LockWaiter | None:
        """Return the waiter that can be granted now: the first, if the holders admit it; else None."""
        if lock.waiters and lock.admits(lock.waiters[0].mode, lock.waiters[0].permits):
            return lock.waiters[0]
        return None

    def _add_to_many(self, lock: LockEntry, mode: int) -> None:
        self.many[mode] += 1
        self.many[MODES + mode] += lock.held is None

    def held(self) -> list[int]:
        """Return how many holders there are by mode, and behind them how many locks by mode."""
        found = list(self.many)
        found[0] = found[MODES] = len(self.locks) - found[MODES + 1] - found[MODES + 2]
        return found

    # ------------------------------------------------------------------ serving or not

    def start_serving(self, generation_from: Generation = FIRST_GENERATION) -> None:
        """Let sessions count their acquisitions in this table from now on.

        Args:
            generation_from: where the generations of this reign begin, if it goes not on in those of the one before.
        """
        self.served = True
        self.inherited = Generation(max(self.highest, generation_from - 1))
        for share in self.shares.values():
            share.session.serve(self.slot, share)

    def stop_serving(self) -> list[LockWaiter]:
        """Stop counting this table's acquisitions in their sessions. Returns the waiters, which are taken out."""
        waiters = [waiter for lock in self.locks.values() if lock.waiters for waiter in lock.waiters]
        for waiter in waiters:
            self.dequeue(waiter)
        for share in self.shares.values():
            share.session.unserve(self.slot)
        self.served = False
        return waiters

    def clear(self) -> None:
        """Forget everything; only for a slot that is not served."""
        assert not self.served
        for share in self.shares.values():
            share.session.tables -= 1
            self._sessions.forget_if_unused(share.session)
        self.locks = {}
        self.broken = {}
        self.shares = {}
        self.many = [0] * 6
        self.highest = NO_GENERATION
        self._payloads = {}

    # ------------------------------------------------------------------ describing

    def snapshot(self, now_ns: int) -> list[Put | Revoke]:
        """Return every holder as a mutation, and then which are revoked, in an order that the history alone decides."""
        found: list[Put | Revoke] = [self._put_of(holder, now_ns) for holder in self.holders()]
        found += [revoke_of(holder) for holder in self.broken]
        return found

    def describe(
        self,
        name: LockName,
        primary: NodeId,
        now_ns: int,
        *,
        expired: bool = False,
        most: int | None = None,
    ) -> LockRecord:
        """Return a lock for people and observers, held or free; an expired holder is shown only on demand.

        With `most`, only so many holders and waiters are in it, the first ones.

        Descriptions of one lock never decrease in the order of `(generation, seq)`. The table keeps no record of free
        locks, so the highest generation of the slot stands for that of the lock's last grant, which is never greater.
        """
        lock = self.locks.get(name)
        if lock is None:
            lock = LockEntry(name)  # free, and not kept
        holders = [
            record_of(holder, now_ns, self.payload_of(holder))
            for holder in lock.holders[:most]
            if expired or holder.session.deadline_ns > now_ns
        ]
        waiters = [
            WaiterRecord(
                owner=waiter.session.owner,
                session=waiter.session.id,
                acquisition=waiter.acquisition,
                waited_ms=ns_to_ms_floor(now_ns - waiter.since_ns),
                mode=waiter.mode,
            )
            for waiter in (lock.waiters or ())[:most]
        ]
        generation, seq = lock.generation, lock.seq
        if lock.held is None:
            generation, seq = max(self.highest, self.inherited), SEQ_FREE
        elif lock.mode != Mode.EXCLUSIVE:
            # A copy that was filled by a snapshot knows the present holders of a shared lock, not those that let go
            # before.
            generation = max(generation, self.inherited)
        return LockRecord(
            name=name,
            slot=self.slot,
            primary=primary,
            mode=lock.mode,
            permits=lock.permits,
            generation=generation,
            seq=seq,
            holders=holders,
            waiters=waiters,
        )

    def check_invariants(self) -> None:
        """Assert that locks and shares agree."""
        entries = 0
        for name, lock in self.locks.items():
            assert lock.name == name
            assert lock.holders or lock.waiters, f"free lock {name!r} is kept"
            assert lock.mode != Mode.EXCLUSIVE or len(lock.holders) <= 1, f"{name!r} has two holders"
            assert len(lock.holders) <= HOLDERS_MAX, f"{name!r} has too many holders"
            everyone: list[LockHolder | LockWaiter] = [*lock.holders, *(lock.waiters or ())]
            for entry in everyone:
                assert self.find(entry.session.id, entry.acquisition) is entry
                assert entry.lock is lock
            for holder in lock.holders:
                assert holder.generation <= self.highest
            entries += len(everyone)
        assert entries == sum(len(share.entries) for share in self.shares.values())
        for holder in self.broken:
            assert holder.broken
            assert self.find(holder.session.id, holder.acquisition) is holder
        for holder in self._payloads:
            assert self.find(holder.session.id, holder.acquisition) is holder
        for session_id, share in self.shares.items():
            assert share.entries, f"empty share of session {session_id}"
            assert share.session.id == session_id
            assert (share.session.totals.served.get(self.slot) is share) == self.served

    # ------------------------------------------------------------------ inner

    def _put_of(self, holder: LockHolder, now_ns: int) -> Put:
        """Return the mutation that adds this holder."""
        lock, session = holder.lock, holder.session
        return Put(
            name=lock.name,
            mode=lock.mode,
            permits=lock.permits,
            session=session.id,
            acquisition=holder.acquisition,
            owner=session.owner,
            ttl_ms=session.ttl_ms,
            generation=holder.generation,
            seq=lock.seq,
            age_ms=ns_to_ms_floor(now_ns - holder.granted_at_ns),
            payload=self.payload_of(holder),
            identity=session.identity,
        )

    def _open_share(self, session: Session) -> Share:
        """Open the share of a session that has had nothing here, and return it."""
        share = self.shares[session.id] = Share(session)
        session.tables += 1
        if self.served:
            session.totals.served[self.slot] = share
        return share

    def _dequeue(self, waiter: LockWaiter, share: Share) -> None:
        waiters = waiter.lock.waiters
        assert waiters is not None
        if waiters[0] is waiter:
            del waiters[0]
        else:
            at = bisect_left(waiters, waiter.place, key=_place)
            assert waiters[at] is waiter
            del waiters[at]
        if not waiters:
            waiter.lock.waiters = None
        del share.entries[waiter.acquisition]
        share.uncount(waiter.acquisition, self.served)

    def _tidy(self, lock: LockEntry, share: Share) -> None:
        if lock.held is None and not lock.waiters:
            self.locks.pop(lock.name, None)
        session = share.session
        if not share.entries and self.shares.pop(session.id, None) is not None:
            session.tables -= 1
            if self.served:
                del session.totals.served[self.slot]
            if session.deadline_ns == NO_DEADLINE:
                self._sessions.forget_if_unused(session)


def _left_ms(session: Session, now_ns: int) -> int:
    """Return what is left of a TTL as its client counts it: the node waits longer, since clocks differ."""
    ttl_ns = session.ttl_ms * NS_PER_MS
    margin_ns = up(ttl_ns) - ttl_ns
    return min(session.ttl_ms, ns_to_ms_floor(session.deadline_ns - margin_ns - now_ns))


def record_of(holder: LockHolder, now_ns: int, payload: bytes = b"") -> HolderRecord:
    """Return a holder for people, with this payload."""
    session = holder.session
    renewed_ms = -1
    if session.deadline_ns != NO_DEADLINE:
        renewed_ms = ns_to_ms_floor(now_ns - (session.deadline_ns - session.lifetime_ns))
    return HolderRecord(
        owner=session.owner,
        session=session.id,
        acquisition=holder.acquisition,
        generation=holder.generation,
        held_ms=ns_to_ms_floor(now_ns - holder.granted_at_ns),
        ttl_ms=session.ttl_ms,
        left_ms=_left_ms(session, now_ns),
        payload=payload,
        renewed_ms=renewed_ms,
        broken=holder.broken,
    )


def revoke_of(holder: LockHolder) -> Revoke:
    """Return the mutation that ends the renewal of this holder."""
    return Revoke(holder.session.id, holder.acquisition)
