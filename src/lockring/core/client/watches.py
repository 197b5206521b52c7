"""A watched lock, as its client sees it.

Rules:

- The first update shows the lock as it is, and no events.
- Each later one brings every event since the one before it, in order, or else says that it has a gap. With a gap, its
  events are the difference between the two states: a new holder was granted, a new waiter began to wait, an absent
  one is gone.
- So events always lead from one state to the next, with a gap or without.
- A watch that was restarted (another node, another connection) has a gap, and so has one whose reader is too slow.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.effects import Update
from lockring.core.client.exchanges import reset_attempts
from lockring.core.client.queries import Query
from lockring.protocol import HolderRecord, LockEvent, LockEventKind, LockRecord, WaiterRecord, WatchNotice

BACKLOG_MAX: Final = 1_000
"""Updates that wait for a slow reader; with more they become one, with a gap."""


def apply_notice(watch: Query, notice: WatchNotice) -> Update:
    """Advance a watch to a node's news, and return what that means for its caller."""
    before, watch.seen = watch.seen, notice.lock
    restarted, watch.restarted = watch.restarted, False
    reset_attempts(watch.exchange)
    if before is None:
        return Update(watch, notice.lock, [], gap=False)
    if restarted or notice.gap:
        return Update(watch, notice.lock, difference(before, notice.lock), gap=True)
    return Update(watch, notice.lock, notice.events, gap=False)


def difference(before: LockRecord, after: LockRecord) -> list[LockEvent]:
    """Return the events that must have happened to a lock at least: which holders and waiters went and came."""
    held = {(each.session, each.acquisition, each.generation): each for each in before.holders}
    holds = {(each.session, each.acquisition, each.generation) for each in after.holders}
    waited = {(each.session, each.acquisition): each for each in before.waiters}
    waits = {(each.session, each.acquisition) for each in after.waiters}
    now_held = {(each.session, each.acquisition) for each in after.holders}
    events = [
        _of_holder(LockEventKind.GONE, each, before.mode) for key, each in held.items() if key not in holds
    ]
    events += [
        _of_waiter(LockEventKind.GONE, each)
        for key, each in waited.items()
        if key not in waits and key not in now_held
    ]
    events += [
        _of_holder(LockEventKind.GRANTED, each, after.mode)
        for each in after.holders
        if (each.session, each.acquisition, each.generation) not in held
    ]
    events += [
        _of_waiter(LockEventKind.WAITING, each)
        for each in after.waiters
        if (each.session, each.acquisition) not in waited
    ]
    return events


def _of_holder(kind: LockEventKind, holder: HolderRecord, mode: int) -> LockEvent:
    return LockEvent(
        kind,
        owner=holder.owner,
        session=holder.session,
        acquisition=holder.acquisition,
        mode=mode,
        generation=holder.generation,
    )


def _of_waiter(kind: LockEventKind, waiter: WaiterRecord) -> LockEvent:
    return LockEvent(kind, waiter.owner, waiter.session, waiter.acquisition, waiter.mode)


class Backlog:
    """The updates of a watch that its reader has not taken, at most `limit`."""

    __slots__ = ("_last", "_limit", "_updates")

    def __init__(self, limit: int = BACKLOG_MAX) -> None:
        self._limit = limit
        self._updates: list[Update] = []
        self._last: LockRecord | None = None

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: Update) -> None:
        """Keep one more update; too many become one."""
        if len(self._updates) >= self._limit:
            before = self._last
            events = [] if before is None else difference(before, update.lock)
            self._updates = [Update(update.request, update.lock, events, gap=before is not None)]
        else:
            self._updates.append(update)

    def take(self) -> list[Update]:
        """Take out all updates, for the reader."""
        updates, self._updates = self._updates, []
        if updates:
            self._last = updates[-1].lock
        return updates
