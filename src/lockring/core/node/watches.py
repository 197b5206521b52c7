"""What a node tells those who watch a lock.

Rules:

- A watch begins with the lock as it is. From then on each `WatchNotice` has the events that lead from the last one to this one: all of
  them, in their order, or it says that some are missing (`gap`).
- News is sent at the end of a turn, and only while this node may serve the slot. Until then it is kept, up to a bound.
- A watch ends with the connection, and with the reign: what happens where nobody listens is not kept for it. A client that
  watches again elsewhere knows by itself that it has missed something.
- A lock that nobody watches costs a look into a dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockring.core.node.locks import LockHolder, LockWaiter
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest, Overloaded
from lockring.names import check_lock_name
from lockring.protocol import LockEvent, LockEventKind, ReleaseReply, Unwatch, Watch, WatchNotice
from lockring.slots import slot_of

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore
    from lockring.core.node.dispatch import ClientRequests

WATCHES_MAX: Final = 10_000
"""Watches of one connection."""

EVENTS_MAX: Final = 1_000
"""Events of one lock that are kept for those who watch it; with more, they are told of a gap."""


class WatchedLock:
    """A lock that somebody watches.

    Attributes:
        watchers: connection and request of each watch, and whether it has been told of the lock yet.
        events: what has happened since they were told.
        gap: whether some of that was not kept.
        grouped: whether it is the lock of a group that is known here, which hears of changes too.
    """

    __slots__ = ("events", "gap", "grouped", "watchers")

    def __init__(self) -> None:
        self.watchers: dict[tuple[int, int], bool] = {}
        self.events: list[LockEvent] = []
        self.gap = False
        self.grouped = False


class Watches:
    """The watches that are open at a node.

    Attributes:
        changed: watched locks with news that nobody was told yet.
    """

    def __init__(self, node: NodeCore, service: ClientRequests) -> None:
        self._node = node
        self._service = service
        self._watched: dict[str, WatchedLock] = {}
        self._watched_in: dict[int, dict[str, None]] = {}
        self.changed: dict[str, None] = {}

    # ------------------------------------------------------------------ requests

    def watch(self, connection: int, message: Watch, now_ns: int) -> None:
        """Tell of a lock at the end of this turn, and after each change."""
        name = check_lock_name(message.name)
        slot = slot_of(name)
        if not self._node.may_serve(slot, now_ns=now_ns):
            self._service.elsewhere(connection, message, slot, now_ns)
            return
        watches = self._service.connections[connection].watches
        if watches.get(message.request, name) != name:
            raise InvalidRequest(f"request {message.request} is a watch of another lock already")
        if len(watches) >= WATCHES_MAX:
            raise Overloaded(f"one connection watches {WATCHES_MAX} locks at the most")
        lock = self._node.slots[slot].table.locks.get(name)
        if lock is not None:
            self._service.keeping.expire_holders(lock, now_ns)
        watched = self._watched.get(name)
        if watched is None:
            watched = self._watched[name] = WatchedLock()
        watched.watchers[connection, message.request] = False
        self._watched_in.setdefault(slot, {})[name] = None
        watches[message.request] = name
        self.changed[name] = None

    def unwatch(self, connection: int, message: Unwatch, now_ns: int) -> None:
        """Tell of it no more, be it a lock or a group."""
        name = self._service.connections[connection].watches.pop(message.watch, None)
        if name is not None:
            self._forget(name, (connection, message.watch))
        known = name is not None or self._service.groups.unfollow(connection, message.watch)
        self._node.send(connection, ReleaseReply(message.request, known))

    # ------------------------------------------------------------------ what ends watches

    def disconnected(self, connection: int, watches: dict[int, str]) -> None:
        """A client is gone, and its watches with it."""
        for request, name in watches.items():
            self._forget(name, (connection, request))

    def reign_ended(self, data: NodeSlot) -> None:
        """A slot is not served here any more: who watches in it is told to go elsewhere."""
        for name in list(self._watched_in.get(data.number, ())):
            for connection, watch in list(self._watched[name].watchers):
                del self._service.connections[connection].watches[watch]
                self._forget(name, (connection, watch))
                self._service.refuse_moved(connection, watch, name)

    def _forget(self, name: str, watch: tuple[int, int]) -> None:
        watched = self._watched[name]
        del watched.watchers[watch]
        if not watched.watchers:
            slot = slot_of(name)
            names = self._watched_in[slot]
            del names[name]
            if not names:
                del self._watched_in[slot]
            self._tidy(name, watched)

    def _tidy(self, name: str, watched: WatchedLock) -> None:
        if not watched.watchers and not watched.grouped:
            del self._watched[name]
            self.changed.pop(name, None)

    def note_for_group(self, name: str) -> None:
        """From now on the group with this lock hears of its changes."""
        self._watched.setdefault(name, WatchedLock()).grouped = True

    def forget_group(self, name: str) -> None:
        """The group with this lock is not known here any more."""
        watched = self._watched[name]
        watched.grouped = False
        self._tidy(name, watched)

    # ------------------------------------------------------------------ news

    def note(self, kind: LockEventKind, entry: LockHolder | LockWaiter, why: str = "") -> None:
        """Something happened to a holder or a waiter; whoever watches its lock hears at the end of the turn."""
        watched = self._watched.get(entry.lock.name)
        if watched is not None:
            self._add(watched, kind, entry, why)

    def note_end(self, holder: LockHolder, why: str) -> None:
        """A grant ends: released if there is no `why`, unless an operator has broken it before."""
        watched = self._watched.get(holder.lock.name)
        if watched is not None:
            why = "broken" if holder.broken else why
            self._add(watched, LockEventKind.LOST if why else LockEventKind.RELEASED, holder, why)

    def _add(
        self, watched: WatchedLock, kind: LockEventKind, entry: LockHolder | LockWaiter, why: str
    ) -> None:
        lock = entry.lock
        self.changed[lock.name] = None
        if len(watched.events) >= EVENTS_MAX:
            watched.gap = True
            watched.events.clear()
        if isinstance(entry, LockHolder):
            mode, generation = lock.mode, entry.generation
        else:
            mode, generation = entry.mode, 0
        session = entry.session
        watched.events.append(
            LockEvent(kind, session.owner, session.id, entry.acquisition, mode, generation, why)
        )

    def tell_all(self, now_ns: int) -> None:
        """Send the locks that changed to those who watch them."""
        for name in list(self.changed):
            slot = slot_of(name)
            if not self._node.may_serve(slot, now_ns=now_ns):
                continue
            del self.changed[name]
            if self._watched[name].grouped:
                self._service.groups.changed(name, now_ns)
                if name not in self._watched:
                    continue
            table = self._node.slots[slot].table
            lock = table.describe(name, self._node.replica.node, now_ns, expired=True)
            watched = self._watched[name]
            events, watched.events = watched.events, []
            gap, watched.gap = watched.gap, False
            for watch, told in watched.watchers.items():
                connection, request = watch
                if told and (events or gap):
                    self._node.send(connection, WatchNotice(request, lock, events, gap))
                elif not told:
                    watched.watchers[watch] = True
                    self._node.send(connection, WatchNotice(request, lock, [], False))
