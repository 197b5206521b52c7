"""The updates of a watched lock, as both clients return them."""

from __future__ import annotations

from dataclasses import dataclass

from lockring.client.grant_state import Holder
from lockring.client.lock_info import LockInfo, Waiter, lock_info
from lockring.core.client import Update
from lockring.protocol import LockEvent, LockEventKind, Mode


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of a watched lock.

    Attributes:
        kind: "waiting" (a client joined the queue), "granted", "released", "lost" (a lease ended without a release),
            "left" (a client left the queue without a grant), or "gone" (the client was a holder or waiter before a
            gap, and is neither now).
        owner: the label of the client concerned.
        session: the id of its session.
        fencing_token: the fencing token of its grant; 0 for waiters.
        shared: whether the client holds or wants the lock for reading.
        reason: for "lost": "expired" or "broken"; for "left": "timeout", "cancelled", "disconnected" or "expired";
            otherwise "".
    """

    kind: str
    owner: str
    session: str
    fencing_token: int
    shared: bool
    reason: str


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """The present state of a watched lock, and its changes since the last update.

    Attributes:
        lock: the lock, as `Client.describe` returns it.
        events: the changes in order; they lead from the last update's holders and waiters to this one's. Empty in the
            first update.
        gap: whether changes may have been missed, because the lock moved to another node, the connection was lost, or
            the changes were too many to keep. `events` is then the difference between the two updates.
    """

    lock: LockInfo
    events: tuple[WatchEvent, ...]
    gap: bool

    @property
    def holders(self) -> list[Holder]:
        """The lock's holders, in the order of their grants."""
        return self.lock.holders

    @property
    def waiters(self) -> list[Waiter]:
        """The lock's queue, in the order in which the waiters are served."""
        return self.lock.waiters

    @property
    def losses(self) -> list[WatchEvent]:
        """The events about grants that ended without a release."""
        return [event for event in self.events if event.kind == "lost"]


def shown_update(update: Update) -> WatchUpdate:
    """Return an update of the core in its public form."""
    events = tuple(_shown_event(event) for event in update.events)
    return WatchUpdate(lock_info(update.lock), events, update.gap)


def _shown_event(event: LockEvent) -> WatchEvent:
    return WatchEvent(
        kind=LockEventKind(event.kind).name.lower(),
        owner=event.owner,
        session=event.session,
        fencing_token=event.generation,
        shared=event.mode == Mode.SHARED,
        reason=event.reason,
    )
