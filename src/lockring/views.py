"""What is told of a lock: how it is held, by whom, and who waits for it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

PAYLOAD_BYTES_MAX: Final = 1024
"""Longest payload of a holder: a node keeps all of them in memory, twice."""


class Mode(IntEnum):
    """How a lock is held: by one, by many readers, or by as many as there are permits."""

    EXCLUSIVE = 0
    SHARED = 1
    SEMAPHORE = 2


class HolderInfo(msgspec.Struct, array_like=True, gc=False):
    """One holder: since when, and how much of its lease is left at the node; `payload` is what it left there for others."""

    owner: str
    session: str
    acquisition: int
    generation: int
    held_ms: int
    ttl_ms: int
    left_ms: int
    payload: bytes = b""


class WaiterInfo(msgspec.Struct, array_like=True, gc=False):
    """One waiter, in queue order; `mode` is how it wants the lock."""

    owner: str
    session: str
    acquisition: int
    waited_ms: int
    mode: int = Mode.EXCLUSIVE


class LockInfo(msgspec.Struct, array_like=True, gc=False):
    """A lock as its primary sees it. `(generation, seq)` orders what is seen of one lock."""

    name: str
    slot: int
    primary: str
    mode: int
    permits: int
    generation: int
    seq: int
    holders: list[HolderInfo]
    waiters: list[WaiterInfo]
