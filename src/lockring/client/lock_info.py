"""Descriptions of locks, as both clients return them, in the words and units of grants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lockring.client.grant_state import Holder, holding_of_each
from lockring.core.client import UNKNOWN, LocksFound
from lockring.core.client import Wait as Wait
from lockring.protocol import SEQ_FREE, Mode
from lockring.protocol import BreakReply as WireBroken
from lockring.protocol import LockRecord as WireLockInfo
from lockring.protocol import LockRecords as WireLockList


@dataclass(frozen=True, slots=True)
class Waiter:
    """A client in a lock's queue. Its text is the owner label.

    Attributes:
        owner: the waiting client's label.
        session: the id of its session.
        mode: how it wants to hold the lock: "exclusive", "shared" or "semaphore".
        waited_s: how long it has waited, in seconds.
    """

    owner: str
    session: str
    mode: str
    waited_s: float

    def __str__(self) -> str:
        return self.owner


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock at one moment, as its node saw it.

    Attributes:
        name: the lock's name.
        mode: how it is held: "exclusive", "shared" or "semaphore"; "exclusive" if it is free.
        permits: how many clients can hold it at once if it is a semaphore; otherwise 1.
        holders: its holders, in the order of their grants.
        waiters: its queue, in the order in which the waiters are served.
        fencing_token_last: an upper bound on the tokens of all grants so far; every later grant has a greater token.
            For a lock with one exclusive holder it is the holder's token. For a free lock it may exceed the last
            holder's token, since nodes keep no record of free locks.
        change: how often the holders have changed since that token; None if the lock is free.
            The pair `(fencing_token_last, change)` orders descriptions of the same lock if None counts as greater than
            any number: it never decreases, and it increases whenever the holders change.
        slot: the lock's slot, 0 to 4095.
        primary: the id of the node that described the lock.
    """

    name: str
    mode: str
    permits: int
    holders: list[Holder]
    waiters: list[Waiter]
    fencing_token_last: int
    change: int | None
    slot: int
    primary: str

    @property
    def held(self) -> bool:
        """Whether the lock has a holder."""
        return bool(self.holders)


class LockList(list[LockInfo]):
    """A list of locks, sorted by name.

    Attributes:
        unserved_slots: how many of the cluster's 4096 slots could not be listed. Locks in those slots are missing from
            the list. 0 if the list is complete.
    """

    def __init__(self, locks: Iterable[LockInfo] = (), unserved_slots: int = 0) -> None:
        super().__init__(locks)
        self.unserved_slots = unserved_slots


@dataclass(frozen=True, slots=True)
class FoundLock:
    """A lock that a search has found.

    Attributes:
        lock: the lock, with its first eight holders and waiters.
        holder_count: how many holders it has.
        waiter_count: how many waiters it has.
    """

    lock: LockInfo
    holder_count: int
    waiter_count: int


class LockPage(list[FoundLock]):
    """The first locks by name that a search has found.

    Attributes:
        matched: how many locks the search would find in all; None where that is not counted: of
            locks that are held in some way, where a node of an older version was asked, and where a part
            of the name or an owner is searched, or rights are looked at, and there are more than 10,000.
        after: the name behind which the next page begins; None if there is no other page.
        unserved_slots: how many of the cluster's 4096 slots could not be searched.
    """

    def __init__(
        self,
        locks: Iterable[FoundLock] = (),
        *,
        matched: int | None = 0,
        after: str | None = None,
        unserved_slots: int = 0,
    ) -> None:
        super().__init__(locks)
        self.matched = matched
        self.after = after
        self.unserved_slots = unserved_slots


@dataclass(frozen=True, slots=True)
class Broken:
    """The effect of `Client.break_lock`.

    Attributes:
        freed: whether the lock is free already.
        free_within_s: the longest time until the lock is free, in seconds; 0.0 if it is free already.
    """

    freed: bool
    free_within_s: float


def mode_name(mode: int) -> str:
    """Return the public word for a mode."""
    return Mode(mode).name.lower()


def lock_info(lock: WireLockInfo) -> LockInfo:
    """Return a node's description of a lock in its public form."""
    return LockInfo(
        name=lock.name,
        mode=mode_name(lock.mode),
        permits=lock.permits,
        holders=holding_of_each(lock),
        waiters=[
            Waiter(each.owner, each.session, mode_name(each.mode), each.waited_ms / 1000)
            for each in lock.waiters
        ],
        fencing_token_last=lock.generation,
        change=None if lock.seq == SEQ_FREE else lock.seq,
        slot=lock.slot,
        primary=lock.primary,
    )


def lock_list(locks: WireLockList) -> LockList:
    """Return the nodes' list of locks in its public form."""
    return LockList(map(lock_info, locks), locks.unserved_slots)


def lock_page(found: LocksFound) -> LockPage:
    """Return what the nodes have found in its public form."""
    return LockPage(
        [FoundLock(lock_info(lock), *counts) for lock, counts in zip(found.locks, found.counts, strict=True)],
        matched=None if found.matched == UNKNOWN else found.matched,
        after=found.locks[-1].name if found.has_more else None,
        unserved_slots=found.unserved_slots,
    )


def broken_of(broken: WireBroken) -> Broken:
    """Return a node's answer to `break_lock` in its public form."""
    return Broken(broken.freed, 0.0 if broken.freed else broken.within_ms / 1000)
