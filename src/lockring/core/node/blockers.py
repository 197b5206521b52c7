"""The holders that keep an acquire from its lock, as its client may see them; and where holders' processes are.

A client learns them when its wait is refused, and once while it waits for long. It sees the owners, tokens and times of
the holders in any case: a client that may acquire a lock sees by waiting that it is held. Host and process are shown to
identities that may read the lock, ids of sessions as the guard shows them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.core.access import Grantee, Verb, hidden_id
from lockring.core.node.access_guard import hides_ids
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.lock_table import record_of
from lockring.core.node.locks import LockEntry, LockHolder, Session
from lockring.ids import ConnectionId, LockName
from lockring.protocol import HolderRecord
from lockring.units import ns_to_ms_floor

BLOCKERS_MAX: Final = 8
"""Holders that one refusal or notice names."""


class Blockers:
    """Names the holders of locks to the clients that wait for them."""

    def __init__(self, context: NodeContext, clients: ConnectedClients) -> None:
        self._context = context
        self._clients = clients

    def of(self, lock: LockEntry, session: Session, connection: ConnectionId) -> list[HolderRecord]:
        """Return the first holders of a lock, as a client may see them that waits for it.

        Args:
            lock: the lock.
            session: of the client.
            connection: the client's.
        """
        now_ns = self._context.now_ns
        client = self._clients.by_connection.get(connection)
        access = None if client is None else client.access
        # A connection that forwards may have begun to ask for another identity since.
        is_known = access is None or access.key == session.identity
        found = []
        for holder in lock.holders[:BLOCKERS_MAX]:
            record = record_of(holder, now_ns)
            if access is None or (is_known and _may_read(access, lock.name)):
                record = self.located(record, holder)
            if access is not None and hides_ids(access):
                if not is_known or holder.session.identity != access.key:
                    record = msgspec.structs.replace(record, session=hidden_id(record.session))
            found.append(record)
        return found

    def located(self, record: HolderRecord, holder: LockHolder) -> HolderRecord:
        """Return a holder with the place of its process, and since when its connection is gone."""
        place = self._clients.place_of(holder.session.connection)
        if place is None or not place.host:
            return record
        away_ms = -1
        if place.ended_at_ns is not None:
            away_ms = ns_to_ms_floor(self._context.now_ns - place.ended_at_ns)
        return msgspec.structs.replace(record, host=place.host, pid=place.pid, away_ms=away_ms)


def _may_read(access: Grantee, name: LockName) -> bool:
    return not access.is_enforced or access.permissions.tables[Verb.READ].allows(name)
