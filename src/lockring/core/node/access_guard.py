"""Refusals of requests for which an identity has no right, and of sessions that are not its own.

Rules:

- A node that checks no rights has clients without `access`; nothing here is asked about them.
- The frequent conditions are looked at in `dispatch`, without a call; what they find missing is refused here.
- A session belongs to the identity that has opened it. One that a copy has got from a node which knew no identities
  belongs to the first one that uses it.
- Where rights are only tried out, a refusal is reported and the request goes on.
"""

from __future__ import annotations

from typing import Any

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
from lockring.core.node.locks import Session
from lockring.core.refusals import refusal_of
from lockring.ids import NO_REQUEST, ConnectionId, LockName, RequestNumber
from lockring.protocol import List


class AccessGuard:
    """Refuses what clients may not do."""

    def __init__(self, context: NodeContext, clients: ConnectedClients) -> None:
        self._context = context
        self._clients = clients

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

    def refuses_list(self, connection: ConnectionId, access: Grantee, message: List) -> bool:
        """Refuse a list of which nothing may be shown, and return whether it was refused.

        Where rights are only tried out, a list of which a part would be left out is reported too.
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

    def _refuse(self, connection: ConnectionId, access: Grantee, message: Any, missing: MissingRight) -> bool:
        client = self._clients.by_connection[connection]
        entry = denied_entry(access, missing, connection, is_forwarded=client.is_forwarding)
        self._context.outbox.add(entry)
        if not access.is_enforced:
            return False
        request = getattr(message, "request", NO_REQUEST)
        if request != NO_REQUEST:  # a refusal without a number would be one of the connection
            self._context.outbox.send(connection, refusal_of(missing.error(), request))
        return True
