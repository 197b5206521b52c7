"""The events of watched locks, kept until the end of the turn.

A lock without a watch costs a look into a dictionary; its caller makes that look itself, since it is on the path
of every grant and release.
"""

from __future__ import annotations

from typing import Final

from lockring.core.access import Grantee
from lockring.core.node.locks import LockHolder, LockWaiter
from lockring.ids import NO_GENERATION, ConnectionId, LockName, RequestNumber
from lockring.protocol import LockEvent, LockEventKind

EVENTS_MAX: Final = 1_000
"""Events of one lock that are kept for its watches; with more, these hear of a gap instead."""


class LockWatcher:
    """A watch.

    Attributes:
        access: the identity that watches, and its rights; None at a server that checks none.
        has_begun: whether it has got the lock's first picture yet.
    """

    __slots__ = ("access", "has_begun")

    def __init__(self, access: Grantee | None) -> None:
        self.access = access
        self.has_begun = False


class WatchedLock:
    """A lock that has a watch, or is the lock of a group.

    Attributes:
        watchers: by connection and request.
        events: what has happened since the last notice.
        owners: of each event, the key of the identity to which its session belongs.
        gap: whether some of that was not kept.
        grouped: whether it is the lock of a group that is followed here, whose members may have changed with it.
    """

    __slots__ = ("events", "gap", "grouped", "owners", "watchers")

    def __init__(self) -> None:
        self.watchers: dict[tuple[ConnectionId, RequestNumber], LockWatcher] = {}
        self.events: list[LockEvent] = []
        self.owners: list[str] = []
        self.gap = False
        self.grouped = False


class LockEvents:
    """The watched locks of a node, and their news.

    Attributes:
        watched: by name.
        changed: names of watched locks with news, in the order of the first of it.
    """

    def __init__(self) -> None:
        self.watched: dict[LockName, WatchedLock] = {}
        self.changed: dict[LockName, None] = {}

    def begin(self, name: LockName) -> WatchedLock:
        """Keep the events of a lock from now on, and return where."""
        watched = self.watched.get(name)
        if watched is None:
            watched = self.watched[name] = WatchedLock()
        return watched

    def end_if_unused(self, name: LockName) -> None:
        """Keep no more events of a lock that has neither a watch nor a group."""
        watched = self.watched[name]
        if not watched.watchers and not watched.grouped:
            del self.watched[name]
            self.changed.pop(name, None)

    def begin_group(self, name: LockName) -> None:
        """Report changes of this lock to its group too."""
        self.begin(name).grouped = True

    def end_group(self, name: LockName) -> None:
        """Report changes of this lock to its group no more."""
        self.watched[name].grouped = False
        self.end_if_unused(name)

    def add(self, kind: LockEventKind, entry: LockHolder | LockWaiter, reason: str = "") -> None:
        """Add an event of a holder or a waiter whose lock is watched."""
        lock = entry.lock
        watched = self.watched[lock.name]
        self.changed[lock.name] = None
        if len(watched.events) >= EVENTS_MAX:
            watched.gap = True
            watched.events.clear()
            watched.owners.clear()
        if isinstance(entry, LockHolder):
            mode, generation = lock.mode, entry.generation
        else:
            mode, generation = entry.mode, NO_GENERATION
        session = entry.session
        watched.owners.append(session.identity)
        watched.events.append(
            LockEvent(
                kind,
                owner=session.owner,
                session=session.id,
                acquisition=entry.acquisition,
                mode=mode,
                generation=generation,
                reason=reason,
            )
        )

    def add_end(self, holder: LockHolder, reason: str) -> None:
        """Add the end of a grant: a release if there is no reason, unless an operator broke the lease before."""
        reason = "broken" if holder.broken else reason
        self.add(LockEventKind.LOST if reason else LockEventKind.RELEASED, holder, reason)
