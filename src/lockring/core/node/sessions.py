"""What a node knows of clients' sessions.

A session is a client's liveness: one deadline at each node, started afresh by whatever the client sends
there. Its acquisitions are kept per slot in a `Share`, so that a slot that starts or stops being served
here moves in or out of the session's totals in one step. The totals (a count and a digest) are what a
keepalive is compared with; they cover only slots that this node serves as primary. Digests are folded lazily: what comes and
goes between two keepalives never costs a hash.

On a copy nothing runs out: sessions are there to name what the records belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockring.core.deadlines import DeadlineQueue
from lockring.core.digest import mix
from lockring.core.timing import up
from lockring.units import NS_PER_MS, ms_to_ns, ns_to_ms_floor

if TYPE_CHECKING:
    from lockring.core.node.locks import LockHolder, LockWaiter

NO_DEADLINE: Final = -1

_FRESH_MAX: Final = 1024
"""Acquisitions of a session that may be in no digest yet."""


class Session:
    """One session at this node.

    Attributes:
        id: the client's random id.
        owner: label for people.
        ttl_ms: its time to live.
        lifetime_ns: how long it lives here after each sign of life: the TTL, lengthened for the client's clock.
        deadline_ns: when it ends here, or `NO_DEADLINE` where it does not run (copies only).
        tables: how many slots' tables here, served or copied, have something of it.
        served: its shares in the slots that are served here, by slot.
        count: acquisitions, held and waiting, in the served slots.
        connection: the client connection that it last used, or None.
        basis: number of its last keepalive, from whose sending a later grant's promise may count.
        basis_promise_ms: what was promised with it.
        basis_at_ns: when it was handled.
        asked_on: the connection of its last acquire.
        asked: number of that acquire; 0 if it repeated one that had been granted.
    """

    __slots__ = (
        "_digest",
        "_fresh",
        "asked",
        "asked_on",
        "basis",
        "basis_at_ns",
        "basis_promise_ms",
        "connection",
        "count",
        "deadline_ns",
        "id",
        "in_queue",
        "lifetime_ns",
        "owner",
        "served",
        "tables",
        "ttl_ms",
    )

    def __init__(self, session_id: str, owner: str, ttl_ms: int) -> None:
        self.id = session_id
        self.owner = owner
        self.ttl_ms = ttl_ms
        self.lifetime_ns = up(ms_to_ns(ttl_ms))
        self.deadline_ns = NO_DEADLINE
        self.tables = 0
        self.served: dict[int, Share] = {}
        self.count = 0
        self._digest = 0
        self._fresh: dict[int, Share] = {}
        self.connection: int | None = None
        self.basis = 0
        self.basis_promise_ms = 0
        self.basis_at_ns = 0
        self.asked_on = 0
        self.asked = 0
        self.in_queue = False

    @property
    def digest(self) -> int:
        """Digest of what `count` counts."""
        if self._fresh:
            self._fold()
        return self._digest

    def promise_ms(self, left_ns: int) -> int:
        """The TTL that can be promised while so much is left of the coordinator's lease: never more than that."""
        return self.ttl_ms if self.ttl_ms * NS_PER_MS <= left_ns else ns_to_ms_floor(left_ns)

    def serve(self, slot: int, share: Share) -> None:
        """Count a share whose slot is now served here."""
        self.served[slot] = share
        self.count += share.count
        self._digest ^= share.digest

    def unserve(self, slot: int) -> None:
        """Stop counting a share whose slot is not served here any more."""
        share = self.served.pop(slot)
        self.count -= share.count
        self._digest = self.digest ^ share.digest

    # ------------------------------------------------------------------ for shares

    def counted(self, acquisition: int, share: Share) -> None:
        """A share that is served has one more."""
        self.count += 1
        fresh = self._fresh
        if len(fresh) >= _FRESH_MAX or acquisition in fresh:
            self._fold()
            fresh = self._fresh
        fresh[acquisition] = share

    def uncounted(self, acquisition: int, share: Share) -> bool:
        """A share that is served has one less; False if that was in no digest yet."""
        self.count -= 1
        if self._fresh.get(acquisition) is share:
            del self._fresh[acquisition]
            return False
        self._digest ^= mix(acquisition)
        return True

    def fold(self) -> None:
        """Bring all digests up to date."""
        if self._fresh:
            self._fold()

    def _fold(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for acquisition, share in fresh.items():
            number = mix(acquisition)
            share.mixed ^= number
            self._digest ^= number


class Share:
    """What one session has in one slot.

    Attributes:
        session: whose it is.
        entries: holders and waiters by acquisition number; broken holders are still here, but not counted.
        count: how many a keepalive should agree on.
        mixed: digest of those of them that are in one already.
    """

    __slots__ = ("count", "entries", "mixed", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.entries: dict[int, LockHolder | LockWaiter] = {}
        self.count = 0
        self.mixed = 0

    @property
    def digest(self) -> int:
        """Digest of what `count` counts."""
        self.session.fold()
        return self.mixed

    def add(self, acquisition: int, entry: LockHolder | LockWaiter, served: bool) -> None:
        """Add an entry, counted in the session's totals if the slot is served here."""
        self.entries[acquisition] = entry
        self.count += 1
        if served:
            self.session.counted(acquisition, self)
        else:
            self.mixed ^= mix(acquisition)

    def discard(self, acquisition: int, counted: bool, served: bool) -> None:
        """Take an entry out."""
        del self.entries[acquisition]
        if counted:
            self.uncount(acquisition, served)

    def uncount(self, acquisition: int, served: bool) -> None:
        """Keep an entry but let keepalives disagree on it (it was broken)."""
        self.count -= 1
        if not served or self.session.uncounted(acquisition, self):
            self.mixed ^= mix(acquisition)


class Sessions:
    """All sessions of a node, by id, and the queue of their deadlines."""

    __slots__ = ("by_id", "queue")

    def __init__(self) -> None:
        self.by_id: dict[str, Session] = {}
        self.queue: DeadlineQueue[Session] = DeadlineQueue(lambda session, _: session.in_queue)

    def __len__(self) -> int:
        return len(self.by_id)

    def named(self, session_id: str, owner: str, ttl_ms: int) -> Session:
        """The session of this id, made if it is not known."""
        session = self.by_id.get(session_id)
        if session is None:
            session = self.by_id[session_id] = Session(session_id, owner, ttl_ms)
        return session

    def extend(self, session: Session, deadline_ns: int) -> None:
        """Let a session live at least until `deadline_ns`."""
        if deadline_ns > session.deadline_ns:
            session.deadline_ns = deadline_ns
            if not session.in_queue:
                session.in_queue = True
                self.queue.push(deadline_ns, session)

    def pop_expired(self, now_ns: int) -> Session | None:
        """Take a session whose deadline has passed off the queue; the caller ends it."""
        while (due := self.queue.pop_due(now_ns)) is not None:
            session = due[1]
            session.in_queue = False
            if session.deadline_ns == NO_DEADLINE:
                continue
            if session.deadline_ns > now_ns:
                session.in_queue = True
                self.queue.push(session.deadline_ns, session)
                continue
            return session
        return None

    def look_again(self, session: Session) -> None:
        """Put a session that `pop_expired` gave back: its end is not finished."""
        session.in_queue = True
        self.queue.push(session.deadline_ns, session)

    def stop(self, session: Session) -> None:
        """The session runs here no more; forget it unless a copy still has something of it."""
        session.deadline_ns = NO_DEADLINE
        session.basis = session.basis_promise_ms = 0
        self.forget_if_unused(session)

    def forget_if_unused(self, session: Session) -> None:
        """Drop a session that does not run and that no table names."""
        if session.tables == 0 and session.deadline_ns == NO_DEADLINE:
            self.by_id.pop(session.id, None)
