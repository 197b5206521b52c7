"""Refusals of requests for which an identity has no right, and of sessions that are not its own.

Rules:

- A node that checks no rights has clients without `access`; nothing here is asked about them.
- The frequent conditions are looked at in `dispatch`, without a call; what they find missing is refused here.
- A session belongs to the identity that has opened it. One that a copy has got from a node which knew no identities
  belongs to the first one that uses it.
- Without the right of an admin, a session of another identity looks like one that does not exist, so that its id cannot
  be probed for: the answer is the same, and only the audit log knows. An acquire alone is refused, for there is no lock
  to be had in it.
- The id of a session is shown to its own identity and to admins; others see an id in its place that is of no use.
- Where rights are only tried out, a refusal is reported and the request goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lockring.core.access import (
    Condition,
    Grantee,
    MissingRight,
    Requirement,
    Verb,
    foreign_session,
    missing_right,
)
from lockring.core.effects import denied_entry
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.lock_views import LockViews, hides_ids
from lockring.core.node.locks import LockWaiter, Session
from lockring.core.node.sessions import Sessions
from lockring.core.refusals import refusal_of
from lockring.errors import Overloaded
from lockring.ids import NO_REQUEST, NO_SESSION, ConnectionId, LockName, RequestNumber, SessionId
from lockring.protocol import Acquire, GetEvents, Keepalive, List, LockEvent, LockRecord


def rights_for(access: Grantee | None, name: LockName) -> tuple[list[str], str]:
    """Return the verbs that an identity may use on a lock, and the identity in one text, "" where none is checked."""
    verbs = [each for each in Verb if each is not Verb.DRAIN]
    if access is None:
        return [each.word for each in verbs], ""
    permissions = access.permissions
    found = [each.word for each in verbs if permissions.tables[each].allows(name) or not access.is_enforced]
    return found, str(access.identity)


class AccessGuard:
    """Refuses what clients may not do."""

    def __init__(self, context: NodeContext, clients: ConnectedClients, sessions: Sessions) -> None:
        self._context = context
        self._clients = clients
        self._sessions = sessions

    def refuses(
        self, connection: ConnectionId, access: Grantee, message: Any, requirement: Requirement
    ) -> bool:
        """Refuse a request that lacks what it needs, and return whether it was refused."""
        missing = missing_right(
            access, requirement, getattr(message, "name", "") or getattr(message, "node", "")
        )
        return missing is not None and self._refuse(connection, access, message, missing)

    def refuses_name(self, connection: ConnectionId, access: Grantee, message: Any, verb: Verb) -> bool:
        """Refuse a request that lacks a right for the name that it names, and return whether it was refused."""
        requirement = Requirement(Condition.NAME, verb)
        missing = missing_right(access, requirement, message.name)
        return missing is not None and self._refuse(connection, access, message, missing)

    def in_session(self, connection: ConnectionId, access: Grantee, message: Any, session: Session) -> Any:
        """Judge a request in a session that is not known to be the identity's.

        Returns:
            The request as it goes on, in no session if it may not use this one; None if it was refused.
        """
        if not session.identity:
            session.identity = access.key
            return message
        missing = foreign_session(access, message.session)
        if not access.is_enforced or access.permissions.is_admin or isinstance(message, Acquire):
            return None if self._refuse(connection, access, message, missing) else message
        self._report(connection, access, missing)
        # A keepalive begins a session that does not exist: `SessionLeases.stand_in` sees to it.
        if isinstance(message, Keepalive):
            return message
        return msgspec.structs.replace(message, session=NO_SESSION)

    def refuses_list(self, connection: ConnectionId, access: Grantee, message: List | GetEvents) -> bool:
        """Refuse a list that would be empty for lack of a right, and return whether it was refused.

        Where rights are only tried out, a list that would leave something out is reported too.
        """
        is_partly = access.permissions.tables[Verb.READ].allows_some(message.prefix)
        if is_partly and access.is_enforced:
            return False
        prefix = f"{message.prefix}*"
        missing = MissingRight(
            f"{access.identity} may not read {'all of ' if is_partly else ''}{prefix!r}",
            Verb.READ.word,
            prefix,
        )
        return self._refuse(connection, access, message, missing)

    def ends(
        self,
        connection: ConnectionId,
        request: RequestNumber,
        access: Grantee,
        name: LockName,
        verb: Verb,
        *,
        kind: str,
    ) -> bool:
        """Refuse an open request whose identity has lost the right to it since it came, and return whether it did.

        Where rights are only tried out, the request goes on without a report: it had its own when it came.

        Args:
            connection: where it came.
            request: its number.
            access: the identity for which it is open, which may not be the one for which the connection asks now.
            name: the lock.
            verb: the right.
            kind: of the request.
        """
        if not access.is_enforced or access.permissions.tables[verb].allows(name):
            return False
        missing = missing_right(access, Requirement(Condition.NAME, verb), name)
        assert missing is not None
        self._report(connection, access, missing)
        error = missing.error()
        self._context.outbox.counters.refuse(kind, error.code)
        self._context.outbox.send(connection, refusal_of(error, request))
        return True

    # ------------------------------------------------------------------ limits

    def throttles(self, connection: ConnectionId, access: Grantee, message: Any, now_ns: int) -> bool:
        """Refuse a request that comes too soon, and return whether it was refused."""
        try:
            access.quota.check_request(now_ns)
        except Overloaded as error:
            self._context.outbox.counters.refuse_by(type(message).__name__, error)
            request = getattr(message, "request", NO_REQUEST)
            if request != NO_REQUEST:
                self._context.outbox.send(
                    connection, refusal_of(error, request, name=getattr(message, "name", ""))
                )
            return True
        return False

    def adopt(self, session: Session, access: Grantee) -> None:
        """Count a session that runs, and that another primary has opened, among those of its identity."""
        totals = session.totals
        quota = totals.quota = access.quota
        quota.sessions += 1
        quota.acquisitions += totals.count
        entries = (entry for share in totals.served.values() for entry in share.entries.values())
        quota.waiters += sum(isinstance(entry, LockWaiter) for entry in entries)

    # ------------------------------------------------------------------ views of locks

    def shown(self, record: LockRecord, access: Grantee | None) -> LockRecord:
        """Return a lock as an identity may see it: with the ids of its own sessions alone, unless it is an admin."""
        return record if access is None or not hides_ids(access) else self.views_of(record).shown(access).lock

    def views_of(
        self, record: LockRecord, events: Sequence[LockEvent] = (), owners: Sequence[str] = ()
    ) -> LockViews:
        """Return a lock, and what has happened to it, for any number of identities.

        Args:
            record: the lock as an admin may see it.
            events: its events, in order.
            owners: of each event, the key of the identity to which its session belongs.
        """
        return LockViews(record, events, owners, self._owner_of)

    def _owner_of(self, session_id: SessionId) -> str:
        session = self._sessions.by_id.get(session_id)
        return "" if session is None else session.identity

    def _report(self, connection: ConnectionId, access: Grantee, missing: MissingRight) -> None:
        is_forwarded = self._clients.is_forwarded(connection, access)
        self._context.outbox.add(denied_entry(access, missing, connection, is_forwarded=is_forwarded))

    def _refuse(self, connection: ConnectionId, access: Grantee, message: Any, missing: MissingRight) -> bool:
        self._report(connection, access, missing)
        if not access.is_enforced:
            return False
        error = missing.error()
        self._context.outbox.counters.refuse(type(message).__name__, error.code)
        request = getattr(message, "request", NO_REQUEST)
        if request != NO_REQUEST:  # a refusal without a number would be one of the connection
            self._context.outbox.send(connection, refusal_of(error, request))
        return True
