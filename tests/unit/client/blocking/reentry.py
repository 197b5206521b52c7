"""A program that calls one blocking client from handlers and finalizers in the middle of its own calls, many times.

    python -m tests.unit.client.blocking.reentry signals|finalizers ADDRESS CALLS

It prints what came of the calls from outside as one line of JSON, and ends only if no call of any kind hung.
"""

from __future__ import annotations

import gc
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import lockring

TICK_S = 0.001


class Caller:
    """Calls the client in every way that it knows, in turns, and counts what came of it."""

    def __init__(self, client: lockring.Client) -> None:
        self._client = client
        self._random = random.Random(7)
        self._held: list[lockring.Grant] = []
        self.depth = 0
        self.came: Counter[str] = Counter()

    def call(self) -> None:
        """Make one call."""
        if self.depth >= 3:
            return
        self.depth += 1
        ways = [self._acquire, self._release, self._try, self._describe, self._block, self._look]
        way = self._short if self._random.randrange(300) == 0 else self._random.choice(ways)
        try:
            way()
            self.came[way.__name__] += 1
        except lockring.ReentrantCall:
            self.came[way.__name__ + " refused"] += 1
        finally:
            self.depth -= 1

    def _acquire(self) -> None:
        name = f"inner/{self._random.randrange(10**9)}"
        self._held.append(self._client.lock(name).acquire(timeout=30))

    def _release(self) -> None:
        if self._held:
            self._held.pop().release()

    def _try(self) -> None:
        grant = self._client.lock(f"tried/{threading.get_ident()}").try_acquire()
        if grant is not None:
            grant.release()

    def _describe(self) -> None:
        self._client.describe("outer")

    def _block(self) -> None:
        with self._client.lock(f"block/{self._random.randrange(10**9)}"):
            pass

    def _look(self) -> None:
        for grant in self._held[-1:]:
            assert not grant.lost.is_set()
            try:
                grant.check()
            except lockring.NotHeld:
                # A call that came in between has released it, and taken it off the list before.
                assert not self._keeps(grant)
            assert grant.held or not self._keeps(grant)

    def _keeps(self, grant: lockring.Grant) -> bool:
        return any(each is grant for each in self._held)

    def _short(self) -> None:
        try:
            self._client.lock("blocked").acquire(timeout=0.01)
        except lockring.AcquireTimeout:
            return
        raise AssertionError("somebody else holds it")

    def release_all(self) -> None:
        """Give back what is still held."""
        while self._held:
            self._held.pop().release()


class Finalized:
    """Garbage in a circle, whose end calls the client: at whatever moment the collector comes by."""

    left = 0

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._circle = self
        Finalized.left += 1

    def __del__(self) -> None:
        try:
            self._call()
        finally:
            Finalized.left -= 1


def signals(client: lockring.Client, caller: Caller, calls: int) -> int:
    """Interrupt outer calls by a timer, until so many calls were made from its handler."""
    signal.signal(signal.SIGALRM, lambda *_: caller.call())
    signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
    done = 0
    try:
        while caller.came.total() < calls:
            with client.lock("outer") as grant:
                assert grant.held
            done += 1
    finally:  # else a failure would end in the default action of the signal, and never be read
        signal.setitimer(signal.ITIMER_REAL, 0)
    return done


def finalizers(client: lockring.Client, caller: Caller, calls: int) -> int:
    """Have the collector call in any thread, until it has called so many times."""
    gc.set_threshold(50, 2, 2)
    done = 0
    while caller.came.total() < calls:
        for _ in range(7):  # so that the collector comes by soon, wherever that is
            junk: list[Any] = []
            junk.append(junk)
        if Finalized.left < 3:  # a collection ends them one after the other, in one thread
            Finalized(caller.call)
        with client.lock("outer") as grant:
            assert grant.held
        done += 1
    gc.set_threshold(700)
    while Finalized.left:  # another thread may collect at this moment, and then this call does nothing
        gc.collect()
        time.sleep(TICK_S)
    return done


def main(kind: str, address: str, calls: int) -> None:
    """Run, beside two threads that use the same client and want what they wait for in time."""
    with lockring.Client(address, owner="holder") as holder, lockring.Client(address) as client:
        blocked = holder.lock("blocked").acquire()
        others: Counter[str] = Counter()
        stop = threading.Event()

        def work(name: str) -> None:
            while not stop.is_set():
                with client.lock(name):
                    others[name] += 1
                try:
                    client.lock("blocked").acquire(timeout=0.02)
                except lockring.AcquireTimeout:
                    others["in time"] += 1

        threads = [threading.Thread(target=work, args=(f"other/{number}",)) for number in range(2)]
        for thread in threads:
            thread.start()
        caller = Caller(client)
        run: Any = {"signals": signals, "finalizers": finalizers}[kind]
        done = run(client, caller, calls)
        stop.set()
        for thread in threads:
            thread.join()
        caller.release_all()
        assert blocked.held
        left = [lock.name for lock in client.locks() if lock.name != "blocked"]
        print(json.dumps({"done": done, "came": caller.came, "others": others, "left": left}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
