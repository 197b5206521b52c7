"""What a lock table is made of: locks, their holders and their waiters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockring.core.node.sessions import Session
from lockring.protocol import Mode

HOLDERS_MAX: Final = 10_000
"""Shared holders of one lock; more wait. So what is told of a lock fits into a message, payloads and all."""


class LockEntry:
    """One lock that is held or waited for.

    Attributes:
        name: its name.
        mode: of the holders, or of the last ones while it is only waited for.
        permits: how many may hold it in semaphore mode.
        generation: of the last grant, 0 before the first one known here.
        seq: mutations since that grant.
        waiters: in queue order, None if there are none.
    """

    __slots__ = ("_held", "generation", "mode", "name", "permits", "seq", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode: int = Mode.EXCLUSIVE
        self.permits = 1
        self.generation = 0
        self.seq = 0
        self._held: LockHolder | list[LockHolder] | None = None
        self.waiters: list[LockWaiter] | None = None

    def admits(self, mode: int, permits: int) -> bool:
        """Whether the present holders leave room for one more of this mode."""
        if self._held is None:
            return True
        if mode != self.mode or mode == Mode.EXCLUSIVE:
            return False
        room = HOLDERS_MAX if mode == Mode.SHARED else min(permits, self.permits, HOLDERS_MAX)
        return len(self.holders) < room

    # Nearly all locks have one holder, and a list of one takes 100 bytes. Hence the two shapes.

    @property
    def holders(self) -> Sequence[LockHolder]:
        """Who holds it, in the order of the grants."""
        held = self._held
        if held is None:
            return ()
        return held if isinstance(held, list) else (held,)

    @property
    def is_free(self) -> bool:
        """Whether nobody holds it."""
        return self._held is None

    def add(self, holder: LockHolder, mode: int, permits: int) -> None:
        """Add a holder behind those that are there. Of permits the fewest count that any has asked for since it was free."""
        held = self._held
        self.mode = mode
        if held is None or permits < self.permits:
            self.permits = permits
        if held is None:
            self._held = holder
        elif isinstance(held, list):
            held.append(holder)
        else:
            self._held = [held, holder]

    def drop(self, holder: LockHolder) -> None:
        """Take out a holder that is there."""
        held = self._held
        if isinstance(held, list):
            held.remove(holder)
            if not held:
                self._held = None
        else:
            assert held is holder
            self._held = None


class LockHolder:
    """One grant.

    Attributes:
        lock: what is held.
        session: by whom.
        acquisition: the session's number for it.
        generation: its fencing token.
        granted_at_ns: when, by this node's clock; for inherited ones when it was as far as known.
        broken: whether an operator ended it: it is not renewed any more.
        payload: what the client left with it for others to see.
    """

    __slots__ = ("acquisition", "broken", "generation", "granted_at_ns", "lock", "session")

    payload: bytes = b""

    def __init__(
        self, lock: LockEntry, session: Session, acquisition: int, generation: int, granted_at_ns: int
    ) -> None:
        self.lock = lock
        self.session = session
        self.acquisition = acquisition
        self.generation = generation
        self.granted_at_ns = granted_at_ns
        self.broken = False


class LockHolderWithPayload(LockHolder):
    """A grant that something was left with; only such ones pay for the room."""

    __slots__ = ("payload",)

    def __init__(
        self,
        lock: LockEntry,
        session: Session,
        acquisition: int,
        generation: int,
        granted_at_ns: int,
        payload: bytes,
    ) -> None:
        super().__init__(lock, session, acquisition, generation, granted_at_ns)
        self.payload = payload


class OpenRequest:
    """An acquire that is to be answered: where, and what can be promised.

    Attributes:
        connection: where to answer.
        request: which request to answer.
        arrived_ns: when it arrived.
        promise_ms: the TTL that could be promised then.
        index: the mutation that the answer waits for, once it is granted; 0 for one that is inherited.
    """

    __slots__ = ("arrived_ns", "connection", "index", "promise_ms", "request")

    def __init__(self, connection: int, request: int, arrived_ns: int, promise_ms: int) -> None:
        self.connection = connection
        self.request = request
        self.arrived_ns = arrived_ns
        self.promise_ms = promise_ms
        self.index = 0


class LockWaiter:
    """One acquire that waits for a lock.

    Attributes:
        lock: what it waits for.
        session: who waits.
        acquisition: the session's number for it.
        mode: how it wants the lock.
        permits: of the semaphore, in that mode.
        since_ns: since when it waits, here or elsewhere, by this node's clock.
        place: what the queue is sorted by: since when, and then the order of arrival.
        deadline_ns: when it is answered with a time-out, None for never.
        request: where to answer.
        payload: what it wants to leave with its grant.
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
        acquisition: int,
        mode: int,
        permits: int,
        since_ns: int,
        deadline_ns: int | None,
        request: OpenRequest,
        arrival: int,
        payload: bytes,
    ) -> None:
        self.lock = lock
        self.session = session
        self.acquisition = acquisition
        self.mode = mode
        self.permits = permits
        self.since_ns = since_ns
        self.place = (since_ns, arrival)
        self.deadline_ns = deadline_ns
        self.request = request
        self.payload = payload
