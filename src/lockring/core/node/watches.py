"""A node's watches: the updates that go to clients which watch a lock.

Rules:

- A watch begins with the lock as it is. From then on each `WatchNotice` has the events that lead from the last one to
  this one: all of them, in their order, or it says that some are missing (`gap`).
- News is sent at the end of a turn, and only while this node may serve the slot. Until then it is kept, up to a bound.
- Each notice is for an identity that has the right to watch the lock at that moment; without it the watch ends.
- A watch ends with the connection, and with the reign: nothing is kept for a client that is not connected. A client
  that watches again elsewhere knows by itself that it has missed something.
"""

from __future__ import annotations

from typing import Final

from lockring.core.access import Verb
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.clients import ConnectedClient, ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.lock_events import LockEvents, LockWatcher
from lockring.core.node.session_leases import SessionLeases
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest, Overloaded
from lockring.ids import ConnectionId, LockName, RequestNumber, SlotNumber
from lockring.protocol import Watch, WatchNotice
from lockring.slots import slot_of

WATCHES_MAX: Final = 10_000
"""Watches of one connection."""


class Watches:
    """The watches that are open at a node."""

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        events: LockEvents,
        leases: SessionLeases,
        *,
        guard: AccessGuard,
    ) -> None:
        self._context = context
        self._clients = clients
        self._events = events
        self._leases = leases
        self._guard = guard
        self._watched_in: dict[SlotNumber, dict[LockName, None]] = {}

    def watch(self, connection: ConnectionId, message: Watch, slot: NodeSlot, now_ns: int) -> None:
        """Send a lock at the end of this turn, and after each change."""
        name = message.name
        client = self._clients.by_connection[connection]
        watches = client.watches
        if watches.get(message.request, name) != name:
            raise InvalidRequest(f"request {message.request} is a watch of another lock already")
        if len(watches) >= WATCHES_MAX:
            raise Overloaded(f"one connection watches {WATCHES_MAX} locks at most")
        lock = slot.table.locks.get(name)
        if lock is not None:
            self._leases.expire_holders(slot, lock, now_ns)
        self._events.begin(name).watchers[connection, message.request] = LockWatcher(client.access)
        self._watched_in.setdefault(slot.number, {})[name] = None
        watches[message.request] = name
        self._events.changed[name] = None

    def unwatch(self, connection: ConnectionId, watch: RequestNumber) -> bool:
        """End a watch, and return whether there was one under this number."""
        name = self._clients.by_connection[connection].watches.pop(watch, None)
        if name is not None:
            self._forget(name, (connection, watch))
        return name is not None

    # ------------------------------------------------------------------ what ends watches

    def disconnected(self, connection: ConnectionId, client: ConnectedClient) -> None:
        """End the watches of a connection that is gone."""
        for request, name in client.watches.items():
            self._forget(name, (connection, request))

    def reign_ended(self, number: SlotNumber) -> None:
        """Send the watchers of a slot that is not served here any more to its new primary."""
        for name in list(self._watched_in.get(number, ())):
            for connection, watch in list(self._events.watched[name].watchers):
                del self._clients.by_connection[connection].watches[watch]
                self._forget(name, (connection, watch))
                self._clients.refuse_moved(connection, watch, name, "Watch")

    def _forget(self, name: LockName, watch: tuple[ConnectionId, RequestNumber]) -> None:
        watched = self._events.watched[name]
        del watched.watchers[watch]
        if not watched.watchers:
            number = slot_of(name)
            names = self._watched_in[number]
            del names[name]
            if not names:
                del self._watched_in[number]
            self._events.end_if_unused(name)

    # ------------------------------------------------------------------ news

    def send_news(self, now_ns: int) -> list[LockName]:
        """Send the locks that have changed to their watches, as far as this node may.

        Returns:
            The names of those that are locks of groups, in order: their groups may have other members.
        """
        context = self._context
        grouped: list[LockName] = []
        for name in list(self._events.changed):
            number = slot_of(name)
            if not context.rights.may_serve(number, now_ns=now_ns):
                continue
            del self._events.changed[name]
            watched = self._events.watched[name]
            if watched.grouped:
                grouped.append(name)
            events, watched.events = watched.events, []
            owners, watched.owners = watched.owners, []
            gap, watched.gap = watched.gap, False
            if not watched.watchers:
                continue
            table = context.slots[number].table
            lock = table.describe(name, context.replica.node, now_ns, expired=True)
            views = self._guard.views_of(lock, events, owners)
            for watch, watcher in list(watched.watchers.items()):
                connection, request = watch
                access = watcher.access
                if access is not None and self._guard.ends(
                    connection, request, access, name, Verb.WATCH, kind="Watch"
                ):
                    del self._clients.by_connection[connection].watches[request]
                    self._forget(name, watch)
                elif not watcher.has_begun:
                    watcher.has_begun = True
                    context.outbox.send(connection, WatchNotice(request, views.shown(access).lock, [], False))
                elif events or gap:
                    shown = views.shown(access)
                    context.outbox.send(connection, WatchNotice(request, shown.lock, shown.events, gap))
        return grouped
