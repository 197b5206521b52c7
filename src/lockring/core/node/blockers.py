"""The holders that keep an acquire from its lock, as its client may see them; and where holders' processes are.

A client learns them when its wait is refused, and once while it waits for long. It sees the owners, tokens and times of
the holders in any case: a client that may acquire a lock sees by waiting that it is held. Host and process are shown to
identities that may read the lock, ids of sessions as the guard shows them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.core.access import Grantee, Verb, hidden_id
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.lock_table import record_of
from lockring.core.node.lock_views import hides_ids
from lockring.core.node.locks import LockEntry, LockHolder
from lockring.protocol import HolderRecord
from lockring.units import ns_to_ms_floor

BLOCKERS_MAX: Final = 8
"""Holders that one refusal or notice names."""


class Blockers:
    """Names the holders of locks to the clients that wait for them."""

    def __init__(self, context: NodeContext, clients: ConnectedClients) -> None:
        self._context = context
        self._clients = clients

    def of(self, lock: LockEntry, access: Grantee | None) -> list[HolderRecord]:
        """Return the first holders of a lock, as the identity may see them that waits for it.

        Args:
            lock: the lock.
            access: the identity, None at a server that checks none.
        """
        now_ns = self._context.now_ns
        may_read, hidden_but = True, None
        if access is not None and access.is_enforced:
            may_read = access.permissions.tables[Verb.READ].allows(lock.name)
            hidden_but = access.key if hides_ids(access) else None
        found = []
        for holder in lock.holders[:BLOCKERS_MAX]:
            record = record_of(holder, now_ns)
            if may_read:
                record = self.located(record, holder)
            if hidden_but is not None and holder.session.identity != hidden_but:
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
