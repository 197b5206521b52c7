"""The leases of clients' sessions at a node: how they are extended, and what ends with them."""

from __future__ import annotations

from typing import Final

from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.counters import TENTHS
from lockring.core.node.grants import NodeGrants
from lockring.core.node.locks import NO_DEADLINE, LockEntry, Session
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.core.node.validation import check_session
from lockring.errors import InvalidRequest, Overloaded
from lockring.ids import ConnectionId, SessionId
from lockring.protocol import Acquire, Keepalive

SESSIONS_MAX: Final = 250_000
"""Sessions at a node: about 200 MB."""

EXPIRED_PER_TURN_MAX: Final = 2_000
"""Locks that are freed in one turn when sessions run out: some 25 ms of work, so that others are served between."""

_NOTED_PER_TURN_MAX: Final = 5
"""Leases that run out in one turn and have a line each in the log. Beyond it they are only counted."""


class SessionLeases:
    """The running sessions of a node."""

    def __init__(
        self, context: NodeContext, clients: ConnectedClients, sessions: Sessions, grants: NodeGrants
    ) -> None:
        self._context = context
        self._clients = clients
        self._sessions = sessions
        self._grants = grants

    def touch(self, message: Acquire | Keepalive, connection: ConnectionId, now_ns: int) -> Session:
        """Extend the session that a message names by another TTL, and return it.

        A session that is not known starts with nothing, and so does one that has run out: what it had is dropped.

        Raises:
            InvalidRequest: no such session is possible, or it is known under another TTL, by which its copies go.
            Overloaded: it is new, and there are `SESSIONS_MAX`.
        """
        sessions = self._sessions
        session = sessions.by_id.get(message.session)
        if session is None:
            check_session(message, self._context.state.coordinator_lease_ms)
            if len(sessions) >= SESSIONS_MAX:
                raise Overloaded(f"node {self._context.replica.node} has {SESSIONS_MAX} sessions already")
            session = self._open(message, connection)
        elif session.ttl_ms != message.ttl_ms:
            raise InvalidRequest(f"the session's TTL is {session.ttl_ms} ms, not {message.ttl_ms} ms")
        elif NO_DEADLINE != session.deadline_ns <= now_ns and now_ns >= self._context.catching_up_until_ns:
            self._expire(session, now_ns)
            session = self._open(message, connection)
        session.connection = connection
        deadline_ns = now_ns + session.lifetime_ns
        if session.in_queue and deadline_ns > session.deadline_ns:
            session.deadline_ns = deadline_ns  # as `extend` does: no call for it with every request
        else:
            sessions.extend(session, deadline_ns)
        return session

    def tenths_left(self, session_id: SessionId, now_ns: int) -> int:
        """Return how much is left of a session's lease, in tenths, rounded up; 0 if it is over, or unknown here."""
        session = self._sessions.by_id.get(session_id)
        if session is None or session.deadline_ns <= now_ns:
            return 0
        return min(TENTHS, -(-TENTHS * (session.deadline_ns - now_ns) // session.lifetime_ns))

    def _open(self, message: Acquire | Keepalive, connection: ConnectionId) -> Session:
        access = self._clients.by_connection[connection].access
        if access is None:
            return self._sessions.open(message.session, message.owner, message.ttl_ms)
        is_counted = access.is_enforced and message.session not in self._sessions.by_id
        if is_counted:
            access.quota.add_session()
        session = self._sessions.open(message.session, message.owner, message.ttl_ms, access.key)
        if is_counted:
            session.totals.quota = access.quota
        return session

    def reign_began(self, slot: NodeSlot, now_ns: int) -> None:
        """Start the sessions that have something in a slot which is served here from now on.

        Each gets a whole TTL: what its client was promised by the former primary is not known here, and not longer.
        """
        for share in slot.table.shares.values():
            self._sessions.extend(share.session, now_ns + share.session.lifetime_ns)

    def expire_due(self, now_ns: int) -> None:
        """End the sessions that have run out: a bounded number of locks in a turn, the rest in the next ones."""
        room = EXPIRED_PER_TURN_MAX
        ended = 0
        while room > 0 and (session := self._sessions.pop_expired(now_ns)) is not None:
            dropped = self._grants.drop_session(session, now_ns, is_lost=True, at_most=room)
            room -= dropped
            if dropped:
                ended += 1
                if ended <= _NOTED_PER_TURN_MAX:
                    self._note_expired(session, dropped)
            if session.totals.served:
                self._sessions.requeue(session)
            else:
                self._sessions.stop(session)
        if ended > _NOTED_PER_TURN_MAX:
            self._context.outbox.note(
                "leases-expired",
                f"as many as {ended - _NOTED_PER_TURN_MAX} more leases have run out at the same moment",
            )

    def expire_holders(self, slot: NodeSlot, lock: LockEntry, now_ns: int) -> None:
        """End the grants of a lock whose sessions have run out, before their timer, so that none blocks an acquire."""
        if now_ns < self._context.catching_up_until_ns:
            return
        for holder in [holder for holder in lock.holders if holder.session.deadline_ns <= now_ns]:
            # The end of one may have granted the lock, or ended another.
            if holder.session.deadline_ns != NO_DEADLINE and holder in lock.holders:
                self._clients.notify_lost(holder, "expired")
                self._grants.drop_holder(slot, holder, now_ns, "expired")

    def close(self, session_id: SessionId, now_ns: int) -> bool:
        """End a session as its client wishes.

        Returns:
            Whether it had anything in the slots served here.
        """
        session = self._sessions.by_id.get(session_id)
        if session is None:
            return False
        dropped = self._grants.drop_session(session, now_ns, is_lost=False)
        self._sessions.stop(session)
        return dropped > 0

    def _expire(self, session: Session, now_ns: int) -> None:
        dropped = self._grants.drop_session(session, now_ns, is_lost=True)
        if dropped:
            self._note_expired(session, dropped)
        self._sessions.stop(session)

    def _note_expired(self, session: Session, dropped: int) -> None:
        what = "1 lock" if dropped == 1 else f"{dropped} locks"
        self._context.outbox.note(
            "lease-expired",
            f"the lease of {session.owner!r} (session {session.id}) has run out"
            f" after {session.ttl_ms / 1000:g} s of silence: it held or waited for {what}",
        )
