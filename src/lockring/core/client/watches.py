"""What a client sees of a lock that it watches.

Rules:

- The first update has the lock as it is and nothing that happened.
- Each later one has all that happened since the one before it, in order; or else it says that it has a gap. Then what it
  tells to have happened is what the two pictures differ in: who is there now was granted or began to wait, who is not is gone.
- So what happened always leads from one picture to the next, with a gap or without.
- A watch that was begun again (another node, another connection) has a gap, and so has one whose reader is too slow.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.effects import Update
from lockring.core.client.queries import Query
from lockring.protocol import HolderRecord, LockEvent, LockEventKind, LockRecord, WaiterRecord, WatchNotice

BACKLOG_MAX: Final = 1_000
"""Updates that wait for a slow reader; with more they become one, with a gap."""


def update_of(watch: Query, changed: WatchNotice) -> Update:
    """What a node's news is for the caller, and note that it was seen."""
    before, watch.seen = watch.seen, changed.lock
    begun_again, watch.begun_again = watch.begun_again, False
    if before is None:
        return Update(watch, changed.lock, [], False)
    if begun_again or changed.gap:
        return Update(watch, changed.lock, difference(before, changed.lock), True)
    return Update(watch, changed.lock, changed.events, False)


def difference(before: LockRecord, after: LockRecord) -> list[LockEvent]:
    """What must have happened to a lock at least: who is gone, who holds it or waits now and did not then."""
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
    return LockEvent(kind, holder.owner, holder.session, holder.acquisition, mode, holder.generation)


def _of_waiter(kind: LockEventKind, waiter: WaiterRecord) -> LockEvent:
    return LockEvent(kind, waiter.owner, waiter.session, waiter.acquisition, waiter.mode)


class Backlog:
    """What a watch has seen and its reader has not."""

    __slots__ = ("_last", "_updates")

    def __init__(self) -> None:
        self._updates: list[Update] = []
        self._last: LockRecord | None = None

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: Update) -> None:
        """Keep one more update; too many become one."""
        if len(self._updates) >= BACKLOG_MAX:
            before = self._last
            events = [] if before is None else difference(before, update.lock)
            self._updates = [Update(update.request, update.lock, events, before is not None)]
        else:
            self._updates.append(update)

    def take(self) -> list[Update]:
        """Everything there is, for the reader."""
        updates, self._updates = self._updates, []
        if updates:
            self._last = updates[-1].lock
        return updates
