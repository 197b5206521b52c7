"""The records of a lock table: locks with their holders and waiters, and the sessions to which these belong.

A session is a client's liveness: one deadline at each node, which every message of the client to that node extends.
Its acquisitions are kept per slot in a `Share`, so that a slot that starts or stops being served here moves in or out
of the session's totals in one step. A keepalive is compared with the totals, a count and a digest, which cover only
slots that this node serves as primary. Digests are folded lazily: an acquisition that begins and ends between two
keepalives never costs a hash.

Holders name their session and sessions their holders, so both are in one module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from lockring.core.access import Grantee, Quota
from lockring.core.digest import mix
from lockring.core.timing import up
from lockring.ids import (
    NO_GENERATION,
    NO_REQUEST,
    AcquisitionNumber,
    ConnectionId,
    Generation,
    LockName,
    RequestNumber,
    SessionId,
    SlotNumber,
)
from lockring.protocol import Acquire, Mode
from lockring.units import NS_PER_MS, ns_to_ms_floor

NO_DEADLINE: Final = -1
"""The deadline of a session that does not run at this node."""

_NOT_MIXED: Final = -1
"""The digest of a share whose slot is not served here. No keepalive is compared with it before the slot is served."""

_FRESH_MAX: Final = 1024
"""Bound of a session's acquisitions that are not folded into its digests yet."""

# An enumeration's member is looked up through its class, which takes as long as five calls.
_EXCLUSIVE: Final[int] = Mode.EXCLUSIVE.value
_SHARED: Final[int] = Mode.SHARED.value

HOLDERS_MAX: Final = 10_000
"""Bound of the shared holders of one lock; more wait. It lets a lock with all payloads fit into one message."""


class LockEntry:
    """One lock that is held or waited for.

    Attributes:
        name: its name.
        mode: of the holders, or of the last ones while it is only waited for.
        permits: how many clients may hold it in semaphore mode.
        generation: the generation of the last grant, 0 before the first one known here.
        seq: the number of mutations since that grant.
        waiters: in queue order, None if there are none.
        held: its holder, or the list of them where there were several at once; None while it is free.
    """

    # Nearly all locks have one holder, and a list of one takes 100 bytes. Hence the two shapes of `held`.
    __slots__ = ("generation", "held", "mode", "name", "permits", "seq", "waiters")

    def __init__(self, name: LockName) -> None:
        self.name = name
        self.mode = _EXCLUSIVE
        self.permits = 1
        self.generation = NO_GENERATION
        self.seq = 0
        self.held: LockHolder | list[LockHolder] | None = None
        self.waiters: list[LockWaiter] | None = None

    def admits(self, mode: int, permits: int) -> bool:
        """Return whether the present holders leave room for one more of this mode."""
        if self.held is None:
            return True
        if mode != self.mode or mode == _EXCLUSIVE:
            return False
        room = HOLDERS_MAX if mode == _SHARED else min(permits, self.permits, HOLDERS_MAX)
        return len(self.holders) < room

    @property
    def holders(self) -> Sequence[LockHolder]:
        """The lock's holders, in the order of their grants."""
        held = self.held
        if held is None:
            return ()
        return held if isinstance(held, list) else (held,)

    def add(self, holder: LockHolder, mode: int, permits: int) -> None:
        """Add a holder behind the others.

        The semaphore's permits are the fewest that any holder has asked for since the lock was free.
        """
        held = self.held
        self.mode = mode
        if held is None or permits < self.permits:
            self.permits = permits
        if held is None:
            self.held = holder
        elif isinstance(held, list):
            held.append(holder)
        else:
            self.held = [held, holder]

    def drop(self, holder: LockHolder) -> None:
        """Take out a holder that is there."""
        held = self.held
        if isinstance(held, list):
            held.remove(holder)
            if not held:
                self.held = None
        else:
            assert held is holder
            self.held = None


class LockHolder:
    """One grant.

    Attributes:
        lock: the lock that is held.
        session: the holder's session.
        acquisition: the session's number for it.
        generation: its fencing token.
        granted_at_ns: when it was granted, by this node's clock; for an inherited grant an estimate.
        broken: whether an operator ended it, so that it is not renewed any more.
    """

    # Nearly all grants have no payload. Those of the others are in `LockTable`, so that a grant without one costs
    # nothing for it.
    __slots__ = ("acquisition", "broken", "generation", "granted_at_ns", "lock", "session")

    def __init__(
        self,
        lock: LockEntry,
        session: Session,
        acquisition: AcquisitionNumber,
        generation: Generation,
        granted_at_ns: int,
    ) -> None:
        self.lock = lock
        self.session = session
        self.acquisition = acquisition
        self.generation = generation
        self.granted_at_ns = granted_at_ns
        self.broken = False


class OpenRequest:
    """An acquire that awaits its answer: the connection, the request, and the promise that it can carry.

    Attributes:
        connection: where to answer.
        request: which request to answer.
        arrived_ns: when it arrived.
        promise_ms: the TTL that could be promised then.
        access: the identity that asks, and its rights; None at a server that checks none.
        index: the mutation that the answer waits for, once it is granted; 0 for one that is inherited, and for one that
            was answered before.
    """

    __slots__ = ("access", "arrived_ns", "connection", "index", "promise_ms", "request")

    def __init__(
        self,
        connection: ConnectionId,
        request: RequestNumber,
        arrived_ns: int,
        promise_ms: int,
        access: Grantee | None,
    ) -> None:
        self.connection = connection
        self.request = request
        self.arrived_ns = arrived_ns
        self.promise_ms = promise_ms
        self.access = access
        self.index = 0


class LockWaiter:
    """One acquire that waits for a lock.

    Attributes:
        lock: the lock for which it waits.
        session: the waiting client's.
        acquisition: the session's number for it.
        mode: how it wants the lock.
        permits: the permits that it expects, in semaphore mode.
        since_ns: since when it waits, here or elsewhere, by this node's clock.
        place: its place in the queue's order: by `since_ns`, then by arrival.
        deadline_ns: when it is answered with a time-out, None for never, as at first.
        request: where to answer.
        payload: bytes to publish with its grant.
    """

    __slots__ = (
        "acquisition",
        "deadline_ns",
        "lock",
        "mode",
        "payload",
        "permits",
        "place",
        "request",
        "session",
        "since_ns",
    )

    def __init__(
        self,
        lock: LockEntry,
        session: Session,
        wanted: Acquire,
        request: OpenRequest,
        place: tuple[int, int],
    ) -> None:
        self.lock = lock
        self.session = session
        self.acquisition = wanted.acquisition
        self.mode = wanted.mode
        self.permits = wanted.permits
        self.since_ns = place[0]
        self.place = place
        self.deadline_ns: int | None = None
        self.request = request
        self.payload = wanted.payload


class PromiseBasis(NamedTuple):
    """The last keepalive of a session, from whose sending the promise of a later grant may count.

    Attributes:
        request: its number.
        promise_ms: what was promised with it.
        at_ns: when it was handled.
    """

    request: RequestNumber
    promise_ms: int
    at_ns: int


NO_BASIS: Final = PromiseBasis(NO_REQUEST, 0, 0)


class SessionTotals:
    """The totals of a session over the slots that a node serves, with which a keepalive is compared.

    Attributes:
        served: its shares in these slots, by slot.
        count: the number of acquisitions, held and waiting.
        quota: where they are counted for the session's identity too; None for an identity without limits.
    """

    __slots__ = ("_digest", "_fresh", "count", "quota", "served")

    def __init__(self) -> None:
        self.served: dict[SlotNumber, Share] = {}
        self.quota: Quota | None = None
        self.count = 0
        self._digest = 0
        self._fresh: dict[AcquisitionNumber, Share] = {}

    @property
    def digest(self) -> int:
        """The digest of the acquisitions that `count` counts."""
        if self._fresh:
            self._fold()
        return self._digest

    def add_share(self, share: Share) -> None:
        """Count a share whose slot is now served here."""
        self.count += share.count
        if self.quota is not None:
            self.quota.acquisitions += share.count
        # Not `^=`, which would read the own digest before the share's, and the share's brings both up to date.
        self._digest = self.digest ^ share.digest

    def remove_share(self, share: Share) -> None:
        """Stop counting a share whose slot is not served here any more."""
        self.count -= share.count
        if self.quota is not None:
            self.quota.acquisitions -= share.count
        self._digest = self.digest ^ share.digest

    def add(self, acquisition: AcquisitionNumber, share: Share) -> None:
        """Count one more in a share that is served."""
        self.count += 1
        if self.quota is not None:
            self.quota.acquisitions += 1
        fresh = self._fresh
        if len(fresh) >= _FRESH_MAX or acquisition in fresh:
            self._fold()
            fresh = self._fresh
        fresh[acquisition] = share

    def remove(self, acquisition: AcquisitionNumber, share: Share) -> bool:
        """Count one less in a share that is served, and return whether a digest had it already."""
        self.count -= 1
        if self.quota is not None:
            self.quota.acquisitions -= 1
        if self._fresh.get(acquisition) is share:
            del self._fresh[acquisition]
            return False
        self._digest ^= mix(acquisition)
        return True

    def peek(self, share: Share | None = None) -> int:
        """Return the digest, or that of one share that is counted here, and bring nothing up to date; for checks."""
        digest = self._digest if share is None else share.mixed
        for acquisition, place in self._fresh.items():
            if share is None or share is place:
                digest ^= mix(acquisition)
        return digest

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


class Session:
    """One session at this node.

    Attributes:
        id: the client's random id.
        owner: label for people.
        identity: the key of the identity to which it belongs, "" if that is not known.
        ttl_ms: its time to live.
        lifetime_ns: how long it lives here after each sign of life: the TTL, lengthened for the client's clock.
        deadline_ns: when it ends here, or `NO_DEADLINE` where it does not run (copies only).
        tables: how many slots' tables here, served or copied, have something of it.
        totals: what it has in the slots that are served here.
        connection: the client connection that it last used, or None.
        basis: its last keepalive.
        last_acquire: connection and request of its last acquire; request 0 if that repeated one that was granted.
    """

    __slots__ = (
        "basis",
        "connection",
        "deadline_ns",
        "id",
        "identity",
        "in_queue",
        "last_acquire",
        "lifetime_ns",
        "owner",
        "tables",
        "totals",
        "ttl_ms",
    )

    def __init__(self, session_id: SessionId, owner: str, ttl_ms: int, identity: str = "") -> None:
        self.id = session_id
        self.owner = owner
        self.identity = identity
        self.ttl_ms = ttl_ms
        self.lifetime_ns = up(ttl_ms * NS_PER_MS)
        self.deadline_ns = NO_DEADLINE
        self.tables = 0
        self.totals = SessionTotals()
        self.connection: ConnectionId | None = None
        self.basis = NO_BASIS
        self.last_acquire = (0, 0)
        self.in_queue = False

    def promise_ms(self, left_ns: int) -> int:
        """Return the TTL that can be promised with so much left of the coordinator's lease: never more than that."""
        return self.ttl_ms if self.ttl_ms * NS_PER_MS <= left_ns else ns_to_ms_floor(left_ns)

    def serve(self, number: SlotNumber, share: Share) -> None:
        """Count a share whose slot is now served here."""
        self.totals.served[number] = share
        self.totals.add_share(share)

    def unserve(self, number: SlotNumber) -> None:
        """Stop counting a share whose slot is not served here any more."""
        self.totals.remove_share(self.totals.served.pop(number))


class Share:
    """The acquisitions of one session in one slot.

    Attributes:
        session: that session.
        entries: holders and waiters by acquisition number; broken holders are still here, but not counted.
        count: how many a keepalive should agree on.
        mixed: digest of those of them that are in one already; meaningless until `digest` was asked for where the slot
            is not served.
    """

    __slots__ = ("count", "entries", "mixed", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.entries: dict[AcquisitionNumber, LockHolder | LockWaiter] = {}
        self.count = 0
        self.mixed = 0

    @property
    def digest(self) -> int:
        """Digest of what `count` counts."""
        self.session.totals.fold()
        if self.mixed == _NOT_MIXED:
            self.mixed = self.counted()[1]
        return self.mixed

    def counted(self) -> tuple[int, int]:
        """Return the number and the digest of what keepalives should agree on, counted one by one."""
        count = digest = 0
        for acquisition, entry in self.entries.items():
            if not (isinstance(entry, LockHolder) and entry.broken):
                count += 1
                digest ^= mix(acquisition)
        return count, digest

    def add(self, acquisition: AcquisitionNumber, entry: LockHolder | LockWaiter, served: bool) -> None:
        """Add an entry, counted in the session's totals if the slot is served here."""
        self.entries[acquisition] = entry
        self.count += 1
        if served:
            self.session.totals.add(acquisition, self)
        else:
            self.mixed = _NOT_MIXED

    def uncount(self, acquisition: AcquisitionNumber, served: bool) -> None:
        """Stop counting an entry: it was taken out, or broken, so that keepalives disagree on it."""
        self.count -= 1
        if not served:
            self.mixed = _NOT_MIXED
        elif self.session.totals.remove(acquisition, self):
            self.mixed ^= mix(acquisition)
