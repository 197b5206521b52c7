"""A client process of a run: hands that take turns with contended locks, grants that are held all the while, and
memberships of groups.

`python -m tests.chaos.worker JSON`. SIGUSR1 lets it stay in its groups, SIGTERM finish what it holds, verify what it
has held, and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import lockring
import lockring.aio
from lockring.client.aio.grants import Grant as AsyncGrant
from lockring.client.blocking.grants import Grant
from lockring.clock import monotonic_ns
from lockring.errors import AcquireTimeout, LockLost, Unavailable
from lockring.server.lifecycle import die_with_parent
from tests.chaos.history import Pen
from tests.chaos.register import Register
from tests.chaos.sharing import TaskMember, ThreadMember, Writing
from tests.chaos.starvation import watch_own_stalls
from tests.chaos.visits import ACQUIRE_S_MAX, Task, Visit, broke_off, failed

READ_SHARE: Final = 0.7
"""Share of a page's visits that only read it."""
LOOK_S: Final = 0.4
"""How often a grant that is held all the while is looked at."""


class Step(NamedTuple):
    """One write of a visit: what for, how long it takes from the look at the grant to the write, and the pause
    afterwards.

    It is between the look and the write that a process must not be stopped, if it is not to need fencing.
    """

    doing: str
    delay_s: float
    pause_s: float


def steps(rng: random.Random) -> Iterator[Step]:
    """Return the writes of one visit: mostly it is short, now and then it takes a second or two."""
    if rng.random() < 0.85:
        pauses_s = [rng.uniform(0.005, 0.04) for _ in range(rng.randint(1, 4))]
    else:
        pauses_s = [0.1] * rng.randint(5, 20)
    for number, pause_s in enumerate([*pauses_s, 0.0]):
        doing = "enter" if number == 0 else "leave" if number == len(pauses_s) else "work"
        yield Step(doing, rng.uniform(0.02, 0.15) if rng.random() < 0.5 else 0.0, pause_s)


def wanted(task: Task, rng: random.Random) -> tuple[str, bool]:
    """The next lock, and whether to share it."""
    lock = rng.choice((*task.locks, *task.pages))
    return lock, lock in task.pages and rng.random() < READ_SHARE


class Threads:
    """The process with the blocking client."""

    def __init__(self, task: Task, pen: Pen) -> None:
        self._task = task
        self._pen = pen
        self._stop = threading.Event()
        self._calm = threading.Event()

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._stop.set())
        signal.signal(signal.SIGUSR1, lambda _number, _frame: self._calm.set())
        task = self._task
        with lockring.Client(task.servers, owner=task.name, ttl=task.ttl_s) as client:
            threads = [
                threading.Thread(target=self._guarded, args=(self._take_turns, client, number))
                for number in range(task.hands)
            ]
            threads.append(threading.Thread(target=self._guarded, args=(self._keep, client)))
            for group in task.groups:
                member = ThreadMember(task, self._pen, self._stop, self._calm, group)
                threads.append(threading.Thread(target=self._guarded, args=(member.share, client)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except Exception as error:
            broke_off(self._task, self._pen, error)
            raise

    def _take_turns(self, client: lockring.Client, number: int) -> None:
        rng = random.Random(f"{self._task.seed}/{number}")
        register = Register(Path(self._task.register))
        while not self._stop.is_set():
            visit = self._acquire(client, *wanted(self._task, rng))
            if visit is None:
                continue
            for step in steps(rng):
                if not visit.check():
                    break
                self._stop.wait(step.delay_s)
                if not visit.grant.shared:
                    visit.decided(register.write(*visit.arguments(step.doing)))
                self._stop.wait(step.pause_s)
            self._release(visit)
            self._stop.wait(rng.uniform(0.0, 0.1))
        register.close()

    def _keep(self, client: lockring.Client) -> None:
        visits: dict[str, Visit[Grant]] = {}
        while not self._stop.is_set():
            for lock in self._task.held:
                visit = visits.get(lock)
                if visit is not None and not visit.check():
                    visit = None
                if visit is None and (visit := self._acquire(client, lock)) is not None:
                    visits[lock] = visit
            self._stop.wait(LOOK_S)
        for visit in visits.values():
            if visit.check():
                visit.verified(visit.grant.verify(timeout=ACQUIRE_S_MAX))
            self._release(visit)

    def _acquire(self, client: lockring.Client, lock: str, shared: bool = False) -> Visit[Grant] | None:
        asked_at_ns = monotonic_ns()
        try:
            one = client.rwlock(lock).read() if shared else client.lock(lock)
            grant = one.acquire(timeout=ACQUIRE_S_MAX)
        except (AcquireTimeout, Unavailable) as error:
            failed(self._task, self._pen, lock, asked_at_ns, error)
            self._stop.wait(0.2)
            return None
        visit = Visit(self._task, self._pen, grant, asked_at_ns)
        grant.on_lost(visit.lost)
        return visit

    def _release(self, visit: Visit[Grant]) -> None:
        visit.leaving()
        loss: LockLost | None = None
        try:
            visit.grant.release()
        except LockLost as error:
            loss = error
        visit.gone(loss)


class Tasks:
    """The process with the asyncio client."""

    def __init__(self, task: Task, pen: Pen) -> None:
        self._task = task
        self._pen = pen
        self._stop = asyncio.Event()
        self._calm = asyncio.Event()
        # A write may wait for another process's: not in the event loop, which has leases to renew.
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._register = Register(Path(task.register))

    async def run(self) -> None:
        """Work until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._calm.set)
        task = self._task
        async with lockring.aio.Client(task.servers, owner=task.name, ttl=task.ttl_s) as client:
            await asyncio.gather(
                self._guarded(self._keep(client)),
                *(self._guarded(self._take_turns(client, number)) for number in range(task.hands)),
                *(self._guarded(self._share(client, group)) for group in task.groups),
            )
        self._writer.shutdown()
        self._register.close()

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:
            broke_off(self._task, self._pen, error)
            raise

    async def _take_turns(self, client: lockring.aio.Client, number: int) -> None:
        rng = random.Random(f"{self._task.seed}/{number}")
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            visit = await self._acquire(client, *wanted(self._task, rng))
            if visit is None:
                continue
            for step in steps(rng):
                if not visit.check():
                    break
                await self._pause(step.delay_s)
                if not visit.grant.shared:
                    write = self._register.write
                    what = visit.arguments(step.doing)
                    visit.decided(await loop.run_in_executor(self._writer, write, *what))
                await self._pause(step.pause_s)
            await self._release(visit)
            await self._pause(rng.uniform(0.0, 0.1))

    async def _share(self, client: lockring.aio.Client, group: str) -> None:
        member = TaskMember(self._task, self._pen, self._stop, self._calm, group, self._write)
        await member.share(client)

    async def _write(self, *what: *Writing) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._register.write, *what)

    async def _keep(self, client: lockring.aio.Client) -> None:
        visits: dict[str, Visit[AsyncGrant]] = {}
        while not self._stop.is_set():
            for lock in self._task.held:
                visit = visits.get(lock)
                if visit is not None and not visit.check():
                    visit = None
                if visit is None and (visit := await self._acquire(client, lock)) is not None:
                    visits[lock] = visit
            await self._pause(LOOK_S)
        for visit in visits.values():
            if visit.check():
                visit.verified(await visit.grant.verify(timeout=ACQUIRE_S_MAX))
            await self._release(visit)

    async def _pause(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _acquire(
        self, client: lockring.aio.Client, lock: str, shared: bool = False
    ) -> Visit[AsyncGrant] | None:
        asked_at_ns = monotonic_ns()
        try:
            one = client.rwlock(lock).read() if shared else client.lock(lock)
            grant = await one.acquire(timeout=ACQUIRE_S_MAX)
        except (AcquireTimeout, Unavailable) as error:
            failed(self._task, self._pen, lock, asked_at_ns, error)
            await self._pause(0.2)
            return None
        visit = Visit(self._task, self._pen, grant, asked_at_ns)
        grant.on_lost(visit.lost)
        return visit

    async def _release(self, visit: Visit[AsyncGrant]) -> None:
        visit.leaving()
        loss: LockLost | None = None
        try:
            await visit.grant.release()
        except LockLost as error:
            loss = error
        visit.gone(loss)


def main() -> int:
    """Be the client process that the argument describes."""
    die_with_parent()
    task = msgspec.json.decode(sys.argv[1], type=Task)
    pen = Pen(Path(task.history))
    watch_own_stalls(task.name, pen)
    if task.flavour == "threads":
        Threads(task, pen).run()
    else:
        asyncio.run(Tasks(task, pen).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
