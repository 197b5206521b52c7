"""Locks: a page of them, and one with its holders, its queue and its past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lockring.core.client import UNKNOWN, LocksFound
from lockring.names import GROUP_PREFIX
from lockring.protocol import HolderRecord, LockRecord, Mode, WaiterRecord
from lockring.terminals import command
from lockring.views.events import EventView
from lockring.views.filters import LockFilter
from lockring.views.words import count, duration

HOLDERS_SHOWN = 100
WAITERS_SHOWN = 100
"""Holders and waiters on the page of one lock; the others are counted."""


@dataclass(frozen=True, slots=True)
class HolderView:
    """A holder.

    Attributes:
        owner: its label.
        session: the id of its session, or what stands for it where the viewer may not see that.
        fencing_token: of its grant.
        held_s: for how long it has held the lock, in seconds.
        ttl_s: its lease, in seconds.
        ttl_left_s: what is left of that.
        renewed_s: how long ago its lease was renewed, in seconds.
    """

    owner: str
    session: str
    fencing_token: int
    held_s: float
    ttl_s: float
    ttl_left_s: float
    renewed_s: float


@dataclass(frozen=True, slots=True)
class WaiterView:
    """A waiter.

    Attributes:
        position: its place in the queue, from 1.
        owner: its label.
        session: see `HolderView`.
        mode: how it wants the lock.
        waited_s: how long it has waited, in seconds.
    """

    position: int
    owner: str
    session: str
    mode: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class LockRow:
    """A lock on a page of locks.

    Attributes:
        name: its name.
        mode: how it is held: "exclusive", "shared" or "semaphore".
        holders: how many holders it has.
        waiters: how many waiters it has.
        holder: the first holder, None while it is only waited for.
        longest_wait_s: how long the first waiter has waited, in seconds; None without one.
        primary: the node that keeps it.
        group: the name of the group whose lock it is, "" for an ordinary one.
    """

    name: str
    mode: str
    holders: int
    waiters: int
    holder: HolderView | None
    longest_wait_s: float | None
    primary: str
    group: str


@dataclass(frozen=True, slots=True)
class LocksView:
    """A page of locks, by name.

    Attributes:
        locks: see above.
        matched: how many there are on all pages; None where that is not counted.
        after: the name behind which the next page begins, "" if this is the last one.
        unserved_slots: slots that no node could search; locks in them are missing.
        command: the command that shows the same.
    """

    locks: list[LockRow]
    matched: int | None
    after: str
    unserved_slots: int
    command: str


@dataclass(frozen=True, slots=True)
class LockView:
    """One lock at one moment, held or free.

    Attributes:
        name: its name.
        summary: who blocks, as a sentence.
        mode: how it is held.
        permits: how many may hold it, if it is a semaphore.
        slot: its slot.
        primary: the node that keeps it.
        fencing_token_last: no grant so far had a greater token.
        holder_count: how many holders it has.
        holders: the first of them.
        waiter_count: how many waiters it has.
        waiters: the first of them, in the order in which they are served.
        group: the name of the group whose lock it is, "" for an ordinary one.
        events: its last events, newest first.
        commands: commands that tell more, or act.
    """

    name: str
    summary: str
    mode: str
    permits: int
    slot: int
    primary: str
    fencing_token_last: int
    holder_count: int
    holders: list[HolderView]
    waiter_count: int
    waiters: list[WaiterView]
    group: str
    events: list[EventView]
    commands: list[str]


@dataclass(frozen=True, slots=True)
class GrantView:
    """One grant of a lock, as it may be broken.

    Attributes:
        name: the lock.
        fencing_token: of the grant.
        holder: its holder, None if no holder has that token.
        waiter_count: how many wait for the lock.
    """

    name: str
    fencing_token: int
    holder: HolderView | None
    waiter_count: int


def locks_view(found: LocksFound, wanted: LockFilter) -> LocksView:
    """Return a page of locks as people look at it."""
    return LocksView(
        locks=[
            _row(lock, holders, waiters)
            for lock, (holders, waiters) in zip(found.locks, found.counts, strict=True)
        ],
        matched=None if found.matched == UNKNOWN else found.matched,
        after=found.locks[-1].name if found.has_more and found.locks else "",
        unserved_slots=found.unserved_slots,
        command=wanted.command(),
    )


def _row(lock: LockRecord, holders: int, waiters: int) -> LockRow:
    return LockRow(
        name=lock.name,
        mode=Mode(lock.mode).name.lower(),
        holders=holders,
        waiters=waiters,
        holder=_holder(lock.holders[0]) if lock.holders else None,
        longest_wait_s=lock.waiters[0].waited_ms / 1000 if lock.waiters else None,
        primary=lock.primary,
        group=group_of(lock.name),
    )


def lock_view(lock: LockRecord, events: Sequence[EventView] = ()) -> LockView:
    """Return one lock as people look at it, with its events, newest first."""
    commands = [command("why", lock.name), command("watch", lock.name)]
    commands += [
        command("break", lock.name, options=("--token", str(each.generation))) for each in lock.holders[:1]
    ]
    return LockView(
        name=lock.name,
        summary=_summary(lock),
        mode=Mode(lock.mode).name.lower(),
        permits=lock.permits,
        slot=lock.slot,
        primary=lock.primary,
        fencing_token_last=lock.generation,
        holder_count=len(lock.holders),
        holders=[_holder(each) for each in lock.holders[:HOLDERS_SHOWN]],
        waiter_count=len(lock.waiters),
        waiters=[_waiter(place, each) for place, each in enumerate(lock.waiters[:WAITERS_SHOWN], start=1)],
        group=group_of(lock.name),
        events=list(events),
        commands=commands,
    )


def grant_view(lock: LockRecord, token: int) -> GrantView:
    """Return the grant of a lock that has a fencing token; all holders are looked at, also those that no page shows."""
    found = next((each for each in lock.holders if each.generation == token), None)
    return GrantView(lock.name, token, None if found is None else _holder(found), len(lock.waiters))


def group_of(name: str) -> str:
    """Return the name of the group whose lock this is, "" for an ordinary one."""
    return name.removeprefix(GROUP_PREFIX) if name.startswith(GROUP_PREFIX) else ""


def _holder(holder: HolderRecord) -> HolderView:
    return HolderView(
        owner=holder.owner,
        session=holder.session,
        fencing_token=holder.generation,
        held_s=holder.held_ms / 1000,
        ttl_s=holder.ttl_ms / 1000,
        ttl_left_s=max(0, holder.left_ms) / 1000,
        renewed_s=max(0, holder.ttl_ms - holder.left_ms) / 1000,
    )


def _waiter(position: int, waiter: WaiterRecord) -> WaiterView:
    return WaiterView(
        position, waiter.owner, waiter.session, Mode(waiter.mode).name.lower(), waiter.waited_ms / 1000
    )


def _summary(lock: LockRecord) -> str:
    waiting = f" {count(len(lock.waiters), 'waiter')}." if lock.waiters else ""
    if not lock.holders:
        return f"Free.{waiting}"
    first = lock.holders[0]
    others = f" and {count(len(lock.holders) - 1, 'other')}" if len(lock.holders) > 1 else ""
    how = "" if lock.mode == Mode.EXCLUSIVE else f" ({Mode(lock.mode).name.lower()})"
    text = f"Held by {first.owner}{others}{how} for {duration(first.held_ms / 1000)}."
    quiet_ms = first.ttl_ms - first.left_ms
    if quiet_ms * 3 > first.ttl_ms * 2:
        left = duration(max(0, first.left_ms) / 1000)
        text += f" Its lease was renewed {duration(quiet_ms / 1000)} ago, and ends in {left} unless it is renewed."
    return text + waiting
