"""All sessions of a node, and when they run out.

On a copy nothing runs out: sessions are there to name what the records belong to.
"""

from __future__ import annotations

from collections.abc import Callable

from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.node.locks import NO_BASIS, NO_DEADLINE, Session
from lockring.ids import SessionId


class Sessions:
    """All sessions of a node, by id, and the queue of their deadlines."""

    __slots__ = ("by_id", "queue")

    def __init__(self, wake: Callable[[int], None] | None = None) -> None:
        """Make a node without sessions.

        Args:
            wake: called with the time (ns) at which one may run out, for a node that must be called then.
        """
        self.by_id: dict[SessionId, Session] = {}
        self.queue: DeadlineQueue[Session] = DeadlineQueue(lambda session, _: session.in_queue, wake)

    def __len__(self) -> int:
        return len(self.by_id)

    def open(self, session_id: SessionId, owner: str, ttl_ms: int, identity: str = "") -> Session:
        """Open the session of this id unless it is open already, for an identity ("" if unknown), and return it."""
        session = self.by_id.get(session_id)
        if session is None:
            session = self.by_id[session_id] = Session(session_id, owner, ttl_ms, identity)
        return session

    def extend(self, session: Session, deadline_ns: int) -> None:
        """Extend a session to `deadline_ns`, unless it lasts longer already."""
        if deadline_ns > session.deadline_ns:
            session.deadline_ns = deadline_ns
            if not session.in_queue:
                session.in_queue = True
                self.queue.push(deadline_ns, session)

    def pop_expired(self, now_ns: int) -> Session | None:
        """Take a session whose deadline has passed off the queue, and return it to be ended; None if there is none."""
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

    def requeue(self, session: Session) -> None:
        """Requeue a session whose end was cut short by the bound of a turn."""
        session.in_queue = True
        self.queue.push(session.deadline_ns, session)

    def stop(self, session: Session) -> None:
        """End a session here, which has nothing in the slots served here. It is forgotten unless a copy needs it."""
        session.deadline_ns = NO_DEADLINE
        session.basis = NO_BASIS
        # Only what runs is in use; a copy may need the session for as long as another node serves it.
        quota, session.totals.quota = session.totals.quota, None
        if quota is not None:
            quota.drop_session()
        self.forget_if_unused(session)

    def forget_if_unused(self, session: Session) -> None:
        """Drop a session that does not run and that no table names."""
        if session.tables == 0 and session.deadline_ns == NO_DEADLINE:
            self.by_id.pop(session.id, None)
