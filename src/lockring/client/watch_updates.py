"""What both clients show of a watched lock."""

from __future__ import annotations

from dataclasses import dataclass

from lockring.client.grant_state import Holder
from lockring.client.lock_info import LockInfo, Waiter, lock_info
from lockring.core.client import Update
from lockring.protocol import LockEvent, LockEventKind, Mode


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One thing that happened to a watched lock.

    Attributes:
        kind: "waiting" (began to wait), "granted", "released", "lost" (it ended without a release), "left" (stopped waiting
            without a grant), or "gone" (held it or waited before a gap, and does not any more).
        owner: whose label others see.
        session: id of the client's session.
        fencing_token: of the grant, 0 for who waits or waited.
        shared: whether to read, as many may at once.
        reason: of "lost": "expired" or "broken"; of "left": "timeout", "cancelled", "disconnected" or "expired"; else "".
    """

    kind: str
    owner: str
    session: str
    fencing_token: int
    shared: bool
    reason: str


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """A watched lock as it is, and what has happened since the last update.

    Attributes:
        lock: the lock as `Client.describe` gives it.
        events: what happened, in order; they lead from the last update's holders and waiters to this one's. Empty in the
            first update.
        gap: whether more may have happened than was seen: the lock has moved to another node, the connection was lost, or there
            was more than could be kept. `events` are then what the two updates differ in.
    """

    lock: LockInfo
    events: tuple[WatchEvent, ...]
    gap: bool

    @property
    def holders(self) -> list[Holder]:
        """Who holds the lock, in the order of their grants."""
        return self.lock.holders

    @property
    def waiters(self) -> list[Waiter]:
        """Who waits for it, in the order in which they are served."""
        return self.lock.waiters

    @property
    def losses(self) -> list[WatchEvent]:
        """Whose grants have ended without a release."""
        return [event for event in self.events if event.kind == "lost"]


def shown_update(update: Update) -> WatchUpdate:
    """What the caller is to see of what the core has seen."""
    events = tuple(_shown_event(event) for event in update.events)
    return WatchUpdate(lock_info(update.lock), events, update.gap)


def _shown_event(event: LockEvent) -> WatchEvent:
    return WatchEvent(
        LockEventKind(event.kind).name.lower(),
        event.owner,
        event.session,
        event.generation,
        event.mode == Mode.SHARED,
        event.reason,
    )
