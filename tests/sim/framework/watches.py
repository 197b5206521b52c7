"""Checkers of watches: no event is missing without a gap, and at the end of a run every watch is up to date.

They know the updates of each watch, the grants that clients came to believe in, and at the end of a run the table of
the lock's primary.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.client import Update
from lockring.protocol import LockEventKind, LockRecord, Mode
from tests.sim.framework.world import Violation

Holder = tuple[str, int, int]
Waiter = tuple[str, int]


def holders_of(lock: LockRecord) -> set[Holder]:
    """Return the holders of a lock: session, acquisition and generation."""
    return {(each.session, each.acquisition, each.generation) for each in lock.holders}


def waiters_of(lock: LockRecord) -> set[Waiter]:
    """Return the waiters of a lock: session and acquisition."""
    return {(each.session, each.acquisition) for each in lock.waiters}


class Stretch:
    """A watch between two gaps: all grants with generations from the first to the last one that it saw begin.

    A picture with an exclusive holder begins with that one. Of others nothing says which grants were over by then.

    Attributes:
        seen: the grants that it saw, each with the life of a node that showed it first.
        begun_at: how many grants there had been when it began.
        ended_at: how many grants there had been when it ended, None while it goes on. A grant that a primary
            shows may be lost with it before the answer leaves; its successor then gives lower generations than were
            seen.
    """

    def __init__(self, who: str, lock: LockRecord, life: str, begun_at: int) -> None:
        self.who = who
        self.name = lock.name
        self.begun_at = begun_at
        self.ended_at: int | None = None
        self.seen: dict[Holder, str] = dict.fromkeys(holders_of(lock), life)
        held = [generation for _, _, generation in self.seen]
        self.first = max(held, default=0) if lock.mode == Mode.EXCLUSIVE else 0
        self.last = self.first

    def granted(self, holders: set[Holder], life: str) -> None:
        """Note grants that the watch has shown, in the words of one life of a primary."""
        self.seen = dict.fromkeys(holders, life) | self.seen
        generations = [generation for _, _, generation in holders]
        self.last = max([*generations, self.last])
        self.first = self.first or min(generations, default=0)


class _Answer(NamedTuple):
    """The answer by which a client came to believe in a grant: its number among all, and the life that gave it."""

    number: int
    life: str


class Seen:
    """One watch, from its first picture on.

    Attributes:
        lock: the newest picture, None before the first.
        gaps: how many it has had.
    """

    def __init__(self, watches: Watches, who: str, name: str) -> None:
        self._watches = watches
        self._who = who
        self._name = name
        self._stretch: Stretch | None = None
        self.lock: LockRecord | None = None
        self.gaps = 0

    def update(self, update: Update, life: str) -> None:
        """Check that an update, from one life of a node, leads from the last picture to this one."""
        before, self.lock = self.lock, update.lock
        what = f"{self._who} watches {self._name!r}"
        if before is None:
            if update.gap or update.events:
                raise Violation("WATCH", f"{what}: the first picture has a past: {update}")
            self._begin(update.lock, life)
            return
        holders, waiters = holders_of(before), waiters_of(before)
        for event in update.events:
            who = (event.session, event.acquisition)
            held = (*who, event.generation)
            if event.kind == LockEventKind.WAITING and who not in waiters:
                waiters.add(who)
            elif event.kind == LockEventKind.GRANTED and held not in holders:
                waiters.discard(who)
                holders.add(held)
            elif event.kind in (LockEventKind.RELEASED, LockEventKind.LOST) and held in holders:
                holders.remove(held)
            elif event.kind == LockEventKind.LEFT and who in waiters:
                waiters.remove(who)
            elif event.kind == LockEventKind.GONE and update.gap and (held in holders or who in waiters):
                holders.discard(held)
                waiters.discard(who)
            else:
                raise Violation(
                    "WATCH", f"{what}: {LockEventKind(event.kind).name} cannot be: {event} after {before}"
                )
        if (holders, waiters) != (holders_of(update.lock), waiters_of(update.lock)):
            raise Violation("WATCH", f"{what}: {update.events} do not lead from {before} to {update.lock}")
        order, last = (update.lock.generation, update.lock.seq), (before.generation, before.seq)
        if not update.gap and order < last:
            raise Violation("WATCH", f"{what}: {update.lock} comes after {before}, and is ordered before it")
        if update.gap:
            self.gaps += 1
            self._begin(update.lock, life)
            return
        assert self._stretch is not None
        self._stretch.granted(
            {
                (event.session, event.acquisition, event.generation)
                for event in update.events
                if event.kind == LockEventKind.GRANTED
            },
            life,
        )

    def _begin(self, lock: LockRecord, life: str) -> None:
        if self._stretch is not None:
            self._watches.end(self._stretch)
        self._stretch = self._watches.begin(self._who, lock, life)


class Watches:
    """All watches of a run.

    Args:
        sync: whether grants wait for their copies. If not, a failover may lose some that clients believe in, and
            pictures go back to what there was before them.
    """

    def __init__(self, *, sync: bool) -> None:
        self._sync = sync
        self._granted: dict[str, dict[Holder, _Answer]] = {}
        self._grants = 0
        self._stretches: list[Stretch] = []

    def granted(self, name: str, holder: Holder, life: str) -> None:
        """Note that a client came to believe that it holds a lock, by the answer of one life of a node."""
        self._grants += 1
        self._granted.setdefault(name, {})[holder] = _Answer(self._grants, life)

    def begin(self, who: str, lock: LockRecord, life: str) -> Stretch:
        """Begin a stretch: a watch shows a lock for the first time, or after a gap."""
        stretch = Stretch(who, lock, life, self._grants)
        self._stretches.append(stretch)
        return stretch

    def end(self, stretch: Stretch) -> None:
        """End a stretch at a gap."""
        stretch.ended_at = self._grants

    def check(self) -> None:
        """Check that every grant between two gaps was seen; all grants are known only at the end of a run."""
        for each in self._stretches:
            ended_at = self._grants if each.ended_at is None else each.ended_at
            after = -1 if self._sync else each.begun_at
            granted = {
                holder: answer.life
                for holder, answer in self._granted.get(each.name, {}).items()
                if answer.number <= ended_at and (answer.number > after or holder in each.seen)
            }
            # A grant that was lost with its primary bounds nothing: no client believed in it by then, and its token
            # may be given once more, even to the same client. A watch that reads late may learn of its gap after that.
            believed = [
                holder[2]
                for holder, life in each.seen.items()
                if life and granted.get(holder) == life and each.first <= holder[2] <= each.last
            ]
            if not believed:
                continue
            first, last = min(believed), max(believed)
            between = {holder for holder in granted if first <= holder[2] <= last}
            if not between <= each.seen.keys():
                raise Violation(
                    "WATCH",
                    f"{each.who} watches {each.name!r}, sees {sorted(each.seen)} and no gap: {sorted(between)}",
                )
