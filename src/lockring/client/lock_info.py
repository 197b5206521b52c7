"""What both clients tell of a lock to those who look at it, in the words and units of grants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lockring.client.grant_state import Holder, holding_of_each
from lockring.core.client import Wait as Wait
from lockring.protocol import SEQ_FREE, Mode
from lockring.protocol import BreakReply as WireBroken
from lockring.protocol import LockRecord as WireLockInfo
from lockring.protocol import LockRecords as WireLockList


@dataclass(frozen=True, slots=True)
class Waiter:
    """An acquisition in a lock's queue; as text it is the owner.

    Attributes:
        owner: its label.
        session: id of its session.
        mode: how it wants the lock: "exclusive", "shared" or "semaphore".
        waited_s: for how long it has waited, in seconds.
    """

    owner: str
    session: str
    mode: str
    waited_s: float

    def __str__(self) -> str:
        return self.owner


@dataclass(frozen=True, slots=True)
class LockInfo:
    """A lock as its node saw it.

    Attributes:
        name: its name.
        mode: how it is held: "exclusive", "shared" or "semaphore"; "exclusive" if it is free.
        permits: how many may hold it, of a semaphore; else 1.
        holders: who holds it, in the order of their grants.
        waiters: who waits for it, in the order in which they are served.
        fencing_token_last: no grant of this lock had a greater token until then, and each later one has. Of a lock that one
            holds alone it is the holder's; nothing is kept of a free lock, and so it may be greater than the last one's.
        change: counts the changes of the holders since that token; None if the lock is free.
            `(fencing_token_last, change)` orders what is seen of one lock, if None counts as greater than any number: it
            never falls, and is greater if other holders are seen.
        slot: its slot, 0 to 4095.
        primary: id of the node that told this.
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
        """Whether anybody holds it."""
        return bool(self.holders)


class LockList(list[LockInfo]):
    """Locks that were found, by name.

    Attributes:
        unserved_slots: how many of the cluster's 4096 slots no node could tell of: what is locked there is missing here. 0 if the
            list is whole.
    """

    def __init__(self, locks: Iterable[LockInfo] = (), unserved_slots: int = 0) -> None:
        super().__init__(locks)
        self.unserved_slots = unserved_slots


@dataclass(frozen=True, slots=True)
class Broken:
    """What became of a lease that was ended by hand.

    Attributes:
        freed: whether the lock is free already.
        free_within_s: after how many seconds it is free at the latest; 0.0 if it is free already.
    """

    freed: bool
    free_within_s: float


def mode_name(mode: int) -> str:
    """The word for a mode."""
    return Mode(mode).name.lower()


def lock_info(lock: WireLockInfo) -> LockInfo:
    """What the caller is to see of what a node told."""
    return LockInfo(
        lock.name,
        mode_name(lock.mode),
        lock.permits,
        holding_of_each(lock),
        [
            Waiter(each.owner, each.session, mode_name(each.mode), each.waited_ms / 1000)
            for each in lock.waiters
        ],
        lock.generation,
        None if lock.seq == SEQ_FREE else lock.seq,
        lock.slot,
        lock.primary,
    )


def lock_list(locks: WireLockList) -> LockList:
    """What the caller is to see of a list that nodes told."""
    return LockList(map(lock_info, locks), locks.unserved_slots)


def broken_of(broken: WireBroken) -> Broken:
    """What the caller is to see of a lease that was ended."""
    return Broken(broken.freed, 0.0 if broken.freed else broken.within_ms / 1000)
