"""A client process that acquires and releases locks that no other client wants, to see for how long one cannot be had.

`python -m tests.chaos.prober JSON`. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

import lockring.aio
from lockring.clock import monotonic_ns
from lockring.errors import AcquireTimeout, LockLost, Unavailable
from lockring.server.lifecycle import die_with_parent
from lockring.units import NS_PER_MS, NS_PER_S
from tests.chaos.history import Complaint, Lost, Outage, Pen, Probed
from tests.chaos.starvation import watch_own_stalls

PAUSE_S: Final = 0.04
"""Between two turns of one lock; with all of them it must stay a small load."""

NOTED_NS: Final = 15 * NS_PER_MS
"""A turn that takes longer gets a line of its own."""

TOLD_NS: Final = NS_PER_S
ACQUIRE_S_MAX: Final = 30.0


class Task(msgspec.Struct, frozen=True):
    """The prober's orders.

    Attributes:
        name: of the process.
        servers: of the cluster.
        history: file for its events.
        locks: which it probes, each by a task of its own.
        ttl_s: lease of its grants.
    """

    name: str
    servers: str
    history: str
    locks: tuple[str, ...]
    ttl_s: float


class Prober:
    """All probes of the process."""

    def __init__(self, task: Task, pen: Pen) -> None:
        self._task = task
        self._pen = pen
        self._stop = asyncio.Event()
        self._count = 0
        self._longest_ns = 0
        self._told_at_ns = monotonic_ns()

    async def run(self) -> None:
        """Probe until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        task = self._task
        async with lockring.aio.Client(task.servers, owner=task.name, ttl=task.ttl_s) as client:
            await asyncio.gather(*(self._guarded(client, lock) for lock in task.locks))

    async def _guarded(self, client: lockring.aio.Client, lock: str) -> None:
        try:
            await self._probe(client, lock)
        except Exception as error:
            text = f"a probe broke off: {type(error).__name__}: {error}"
            self._pen.write(Complaint(client=self._task.name, at_ns=monotonic_ns(), text=text))
            raise

    async def _probe(self, client: lockring.aio.Client, lock: str) -> None:
        """One lock, again and again.

        A turn begins with the release of the turn before, which a fault may delay as well.
        """
        token = 0
        grant: lockring.aio.Grant | None = None
        while not self._stop.is_set():
            from_ns = monotonic_ns()
            if grant is not None:
                try:
                    await grant.release()
                except LockLost as loss:
                    self._pen.write(
                        Lost(
                            client=self._task.name,
                            lock=lock,
                            token=grant.fencing_token,
                            at_ns=monotonic_ns(),
                            reason=loss.reason,
                        )
                    )
            grant = await self._acquire(client, lock)
            now_ns = monotonic_ns()
            self._turn(lock, from_ns, now_ns)
            if grant is None:
                return
            if grant.fencing_token <= token:
                text = f"{lock}: token {grant.fencing_token} after {token}"
                self._pen.write(Complaint(client=self._task.name, at_ns=now_ns, text=text))
            token = grant.fencing_token
            await self._pause()

    async def _acquire(self, client: lockring.aio.Client, lock: str) -> lockring.aio.Grant | None:
        """The lock, however long it takes; None at the end of the run."""
        while True:
            with contextlib.suppress(AcquireTimeout, Unavailable):
                return await client.lock(lock).acquire(timeout=ACQUIRE_S_MAX)
            if self._stop.is_set():
                return None
            await self._pause()

    def _turn(self, lock: str, from_ns: int, now_ns: int) -> None:
        self._count += 1
        self._longest_ns = max(self._longest_ns, now_ns - from_ns)
        if now_ns - from_ns >= NOTED_NS:
            self._pen.write(Outage(lock=lock, from_ns=from_ns, until_ns=now_ns))
        if now_ns - self._told_at_ns >= TOLD_NS:
            self._pen.write(Probed(count=self._count, at_ns=now_ns, longest_ns=self._longest_ns))
            self._count = self._longest_ns = 0
            self._told_at_ns = now_ns

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), PAUSE_S)


def main() -> int:
    """Be the prober that the argument describes."""
    die_with_parent()
    task = msgspec.json.decode(sys.argv[1], type=Task)
    pen = Pen(Path(task.history))
    watch_own_stalls(task.name, pen)
    asyncio.run(Prober(task, pen).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
