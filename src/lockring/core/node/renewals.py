"""A node's part in keeping sessions alive: what is renewed, what has run out, and where client and node differ.

A keepalive renews acquisitions, not a session: what is said of a session speaks only of locks in slots that this node may
serve now. Where the two sides' digests agree, one promise covers all; where not, they compare slot by slot, then one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockring.core.node.locks import LockEntry, LockHolder, LockWaiter
from lockring.core.node.sessions import NO_DEADLINE, Session, Sessions
from lockring.core.node.validation import check_session
from lockring.errors import InvalidRequest, Overloaded
from lockring.protocol import Acquire, CloseSession, Keepalive, KeepaliveReply, ReleaseReply, Verdict
from lockring.slots import SLOTS, slot_of

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore
    from lockring.core.node.dispatch import ClientRequests


SESSIONS_MAX: Final = 250_000
"""Sessions at a node: about 200 MB."""

EXPIRED_PER_TURN_MAX: Final = 2_000
"""Locks that are freed in one turn when sessions run out: some 25 ms of work, so that others are served between."""

_NOTED_PER_TURN_MAX: Final = 5
"""Leases that have run out in one turn and have a line each in the log; where a crowd is gone, the others are counted."""


class Renewals:
    """Sessions at a node, as clients see them."""

    def __init__(self, node: NodeCore, service: ClientRequests, sessions: Sessions) -> None:
        self._node = node
        self._service = service
        self._sessions = sessions

    def expire_due(self, now_ns: int) -> None:
        """End the sessions that have run out: a bounded number of locks in a turn, the rest in the next ones."""
        room = EXPIRED_PER_TURN_MAX
        ended = 0
        while room > 0 and (session := self._sessions.pop_expired(now_ns)) is not None:
            dropped = self._drop_all(session, now_ns, tell=True, at_most=room)
            room -= dropped
            if dropped:
                ended += 1
                if ended <= _NOTED_PER_TURN_MAX:
                    self._note_expired(session, dropped)
            if session.served:
                self._sessions.look_again(session)
            else:
                self._sessions.stop(session)
        if ended > _NOTED_PER_TURN_MAX:
            self._node.note(
                f"as many as {ended - _NOTED_PER_TURN_MAX} more leases have run out at the same moment"
            )

    def touch(self, message: Acquire | Keepalive, connection: int, now_ns: int) -> Session:
        """The session that a message is of, which now lives for another TTL. If it had run out, it starts with nothing.

        Raises:
            InvalidRequest: no such session is possible, or it is known under another TTL, by which its copies go.
            Overloaded: it is new, and there are `SESSIONS_MAX`.
        """
        sessions = self._sessions
        session = sessions.by_id.get(message.session)
        if session is None:
            check_session(message, self._node.state.coordinator_lease_ms)
            if len(sessions) >= SESSIONS_MAX:
                raise Overloaded(f"node {self._node.replica.node} has {SESSIONS_MAX} sessions already")
            session = sessions.named(message.session, message.owner, message.ttl_ms)
        elif session.ttl_ms != message.ttl_ms:
            raise InvalidRequest(f"the session's TTL is {session.ttl_ms} ms, not {message.ttl_ms} ms")
        elif NO_DEADLINE != session.deadline_ns <= now_ns and not self._node.is_catching_up(now_ns):
            self.expire(session, now_ns)
            session = sessions.named(message.session, message.owner, message.ttl_ms)
        session.connection = connection
        sessions.extend(session, now_ns + session.lifetime_ns)
        return session

    def expire(self, session: Session, now_ns: int) -> None:
        """A session has run out: what it has in the slots served here is free."""
        dropped = self._drop_all(session, now_ns, tell=True)
        if dropped:
            self._note_expired(session, dropped)
        self._sessions.stop(session)

    def _note_expired(self, session: Session, dropped: int) -> None:
        what = "1 lock" if dropped == 1 else f"{dropped} locks"
        self._node.note(
            f"the lease of {session.owner!r} (session {session.id}) has run out after {session.ttl_ms / 1000:g} s without"
            f" a word: it held or waited for {what}"
        )

    def _drop_all(self, session: Session, now_ns: int, *, tell: bool, at_most: int | None = None) -> int:
        """Drop everything (or that many) that a session has in the slots served here, and return how many it were.

        A session may wait behind itself, so that dropping one of its holders grants it another: hence the repetition,
        and waiters first.
        """
        dropped = 0
        for slot in list(session.served):
            data = self._node.slots[slot]
            while (share := data.table.shares.get(session.id)) is not None:
                entries = sorted(share.entries.values(), key=lambda entry: isinstance(entry, LockHolder))
                for entry in entries:
                    if at_most is not None and dropped >= at_most:
                        return dropped
                    if data.table.find(session.id, entry.acquisition) is entry:
                        if tell:
                            self._service.tell_lost(entry, "expired")
                        self._service.locking.drop(data, entry, now_ns, "expired" if tell else "")
                        dropped += 1
        return dropped

    def expire_holders(self, lock: LockEntry, now_ns: int) -> None:
        """Let no holder stand in the way whose session has run out."""
        if self._node.is_catching_up(now_ns):
            return
        data = self._node.slots[slot_of(lock.name)]
        for holder in [holder for holder in lock.holders if holder.session.deadline_ns <= now_ns]:
            if holder.session.deadline_ns != NO_DEADLINE and holder in lock.holders:
                self._service.tell_lost(holder, "expired")
                self._service.locking.drop_holder(data, holder, now_ns, "expired")

    def keepalive(self, connection: int, message: Keepalive, now_ns: int) -> None:
        """Renew what client and node agree on, and find out what they do not."""
        left_ns = self._node.coordinator_lease_left_ns(now_ns)
        if left_ns <= 0:
            self._service.refuse(
                connection, message, "unavailable", f"{self._node.replica} has no lease of the coordinator"
            )
            return
        session = self.touch(message, connection, now_ns)
        promise_ms = session.promise_ms(left_ns)
        if message.request > session.basis or session.basis_at_ns == 0:
            session.basis, session.basis_promise_ms, session.basis_at_ns = message.request, promise_ms, now_ns
        agreed = False
        slots: list[tuple[int, int]] = []
        acquisitions: list[tuple[int, int, int]] = []
        if message.listed:
            if len({slot for slot, _ in message.listed}) < len(message.listed):
                raise InvalidRequest("a keepalive lists a slot once")
            for slot, listed in message.listed:
                acquisitions += self._compare_list(session, slot, listed, message.through, now_ns)
        elif message.slots:
            if len(message.slots) > SLOTS:
                raise InvalidRequest(f"a keepalive compares {SLOTS} slots at the most")
            slots = self._compare_slots(session, message.slots, now_ns)
        else:
            agreed = (
                message.count == session.count
                and message.digest == session.digest
                and self._node.may_serve_everything(now_ns)
            )
        self._node.send(connection, KeepaliveReply(message.request, promise_ms, agreed, slots, acquisitions))

    def _compare_slots(
        self, session: Session, told: list[tuple[int, int, int]], now_ns: int
    ) -> list[tuple[int, int]]:
        verdicts: list[tuple[int, int]] = []
        named: dict[int, None] = {}
        for slot, count, digest in told:
            named[slot] = None
            verdict = self._verdict_of_slot(slot, now_ns)
            if verdict is Verdict.HELD:
                share = session.served.get(slot)
                here = (0, 0) if share is None else (share.count, share.digest)
                if here != (count, digest):
                    verdict = Verdict.DIFFERS
            verdicts.append((slot, verdict))
        verdicts += [
            (slot, Verdict.DIFFERS)
            for slot in session.served
            if slot not in named and self._node.may_serve(slot, now_ns=now_ns)
        ]
        return verdicts

    def _compare_list(
        self, session: Session, slot: int, listed: list[tuple[int, str]], through: int, now_ns: int
    ) -> list[tuple[int, int, int]]:
        verdict = self._verdict_of_slot(slot, now_ns)
        if verdict is not Verdict.HELD:
            return [(acquisition, verdict, 0) for acquisition, _ in listed]
        data = self._node.slots[slot]
        assert data.reign is not None
        share = session.served.get(slot)
        known = {} if share is None else dict(share.entries)
        answers: list[tuple[int, int, int]] = []
        for acquisition, name in listed:
            entry = known.pop(acquisition, None)
            if entry is None or entry.lock.name != name or (isinstance(entry, LockHolder) and entry.broken):
                answers.append((acquisition, Verdict.LOST, 0))
            elif isinstance(entry, LockWaiter) or entry in data.reign.unanswered:
                answers.append((acquisition, Verdict.WAITING, 0))
            else:
                answers.append((acquisition, Verdict.HELD, entry.generation))
        for acquisition, entry in known.items():
            if acquisition <= through and data.table.find(session.id, acquisition) is entry:
                self._service.locking.drop(data, entry, now_ns)
        return answers

    def _verdict_of_slot(self, slot: int, now_ns: int) -> Verdict:
        if not 0 <= slot < SLOTS:
            raise InvalidRequest(f"there is no slot {slot}")
        if self._node.state.slots[slot].primary != self._node.replica:
            return Verdict.MOVED
        return Verdict.HELD if self._node.may_serve(slot, now_ns=now_ns) else Verdict.RETRY

    def close_session(self, connection: int, message: CloseSession, now_ns: int) -> None:
        """End a session here, and all it has in the slots served here."""
        session = self._sessions.by_id.get(message.session)
        dropped = False
        if session is not None:
            dropped = self._drop_all(session, now_ns, tell=False) > 0
            self._sessions.stop(session)
        self._node.send(connection, ReleaseReply(message.request, dropped))
