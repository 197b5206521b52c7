"""Descriptions of locks are in the words and units of grants, for both clients."""

from __future__ import annotations

import lockring
import lockring.aio
from lockring.client.lock_info import broken_of, lock_info
from lockring.protocol import SEQ_FREE, BreakReply, HolderRecord, LockRecord, Mode, WaiterRecord


def test_times_are_in_seconds_and_tokens_are_called_fencing_tokens() -> None:
    holder = HolderRecord("alice", "s1", 3, 7, 1_250, 10_000, 9_500)
    waiter = WaiterRecord("bob", "s2", 4, 500, Mode.SHARED)
    lock = lock_info(LockRecord("x", 9, "N1", Mode.EXCLUSIVE, 1, 7, 2, [holder], [waiter]))
    assert lock == lockring.LockInfo(
        name="x",
        mode="exclusive",
        permits=1,
        holders=[lockring.Holder("alice", "s1", 7, 1.25, 10.0, 9.5)],
        waiters=[lockring.Waiter("bob", "s2", "shared", 0.5)],
        fencing_token_last=7,
        change=2,
        slot=9,
        primary="N1",
    )
    assert lock.held
    assert str(lock.waiters[0]) == "bob"


def test_a_free_lock_keeps_its_last_token() -> None:
    lock = lock_info(LockRecord("x", 9, "N1", Mode.EXCLUSIVE, 1, 7, SEQ_FREE, [], []))
    assert not lock.held
    assert lock.fencing_token_last == 7
    assert lock.change is None, "nothing is kept of a free lock"


def test_a_broken_lease_says_in_seconds_when_its_lock_is_free() -> None:
    assert broken_of(BreakReply(1, False, 2_500)) == lockring.Broken(freed=False, free_within_s=2.5)
    assert broken_of(BreakReply(1, True, 0)) == lockring.Broken(freed=True, free_within_s=0.0)


def test_public_fields_of_a_lock_are_in_seconds_and_public_words() -> None:
    for kind in (lockring.LockInfo, lockring.Holder, lockring.Waiter, lockring.Broken, lockring.WatchEvent):
        names = set(kind.__annotations__)
        assert not {
            name for name in names if name.endswith("_ms") or name in ("generation", "acquisition", "seq")
        }
        assert getattr(lockring.aio, kind.__name__) is kind
