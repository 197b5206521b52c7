"""Refusals of requests for which an identity has no right, and of sessions that are not its own.

Rules:

- A node that checks no rights has clients without `access`; nothing here is asked about them.
- The frequent conditions are looked at in `dispatch`, without a call; what they find missing is refused here.
- A session belongs to the identity that has opened it. One that a copy has got from a node which knew no identities
  belongs to the first one that uses it.
- The id of a session is shown to its own identity and to admins; others see an id in its place that is of no use.
- Where rights are only tried out, a refusal is reported and the request goes on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.core.access import (
    Act,
    Condition,
    Grantee,
    MissingRight,
    Requirement,
    Verb,
    foreign_session,
    hidden_id,
    missing_right,
)
from lockring.core.effects import AuditEntry, denied_entry
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.locks import Session
from lockring.core.node.sessions import Sessions
from lockring.core.refusals import refusal_of
from lockring.errors import Overloaded
from lockring.ids import NO_REQUEST, ConnectionId, Generation, LockName, RequestNumber, SessionId
from lockring.protocol import GetEvents, List, LockRecord


def hides_ids(access: Grantee) -> bool:
    """Return whether the ids of others' sessions are hidden from an identity."""
    return access.is_enforced and not access.permissions.is_admin


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

    def refuses_session(
        self, connection: ConnectionId, access: Grantee, message: Any, session: Session
    ) -> bool:
        """Refuse a request in a session that is not the identity's, and return whether it was refused."""
        if not session.identity:
            session.identity = access.key
            return False
        return self._refuse(connection, access, message, foreign_session(access, message.session))

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

    def ends_watch(
        self, connection: ConnectionId, request: RequestNumber, access: Grantee, name: LockName
    ) -> bool:
        """Refuse to go on with a watch whose identity has lost the right to it, and return whether it was refused."""
        if access.permissions.tables[Verb.WATCH].allows(name) or not access.is_enforced:
            return False
        missing = missing_right(access, Requirement(Condition.NAME, Verb.WATCH), name)
        assert missing is not None
        self._context.outbox.add(denied_entry(access, missing, connection))
        self._context.outbox.send(connection, refusal_of(missing.error(), request))
        return True

    def allowed_entry(
        self, act: Act, connection: ConnectionId, verb: Verb, name: str, generation: Generation
    ) -> AuditEntry:
        """Return the entry for the audit log about a request that is carried out, with the rule that allows it."""
        client = self._clients.by_connection[connection]
        access = client.access
        rule = None if access is None else access.permissions.rule_for(verb, name)
        return AuditEntry(
            act,
            "ok",
            connection=connection,
            identity=None if access is None else access.identity,
            is_forwarded=client.is_forwarding,
            name=name,
            fencing_token=generation,
            right=verb.word,
            rule="" if rule is None else rule.text,
        )

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
        """Count a session that another primary has opened among those of its identity."""
        quota = session.totals.quota = access.quota
        quota.sessions += 1
        quota.acquisitions += session.totals.count

    # ------------------------------------------------------------------ views of locks

    def shown(self, record: LockRecord, access: Grantee | None) -> LockRecord:
        """Return a lock as an identity may see it: with the ids of its own sessions alone, unless it is an admin."""
        if access is None or not hides_ids(access):
            return record
        holders = [
            holder
            if self._is_own(holder.session, access)
            else msgspec.structs.replace(holder, session=hidden_id(holder.session))
            for holder in record.holders
        ]
        waiters = [
            waiter
            if self._is_own(waiter.session, access)
            else msgspec.structs.replace(waiter, session=hidden_id(waiter.session))
            for waiter in record.waiters
        ]
        return msgspec.structs.replace(record, holders=holders, waiters=waiters)

    def _is_own(self, session_id: SessionId, access: Grantee) -> bool:
        session = self._sessions.by_id.get(session_id)
        return session is not None and session.identity == access.key

    def _refuse(self, connection: ConnectionId, access: Grantee, message: Any, missing: MissingRight) -> bool:
        client = self._clients.by_connection[connection]
        entry = denied_entry(access, missing, connection, is_forwarded=client.is_forwarding)
        self._context.outbox.add(entry)
        if not access.is_enforced:
            return False
        error = missing.error()
        self._context.outbox.counters.refuse(type(message).__name__, error.code)
        request = getattr(message, "request", NO_REQUEST)
        if request != NO_REQUEST:  # a refusal without a number would be one of the connection
            self._context.outbox.send(connection, refusal_of(missing.error(), request))
        return True
