"""Runs a blocking store in a thread of its own, one operation after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lockring.errors import LockringError
from lockring.ring.state import ClusterState
from lockring.store.base import Store

log = logging.getLogger("lockring.coordinator")


class Outcome(NamedTuple):
    """What became of an operation: whether it succeeded, and what is stored now (None: nothing, or unknown)."""

    ok: bool
    state: ClusterState | None


class StoreWorker:
    """A store, seen from an event loop. Operations run in the order in which they were asked for.

    Args:
        store: used in the worker's thread only, from now on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lockring-store")
        self._trouble = ""

    def read(self, done: Callable[[Outcome], None]) -> None:
        """Read the state; `done` is called in the event loop."""
        self._run(lambda: Outcome(True, self._store.read()), done)

    def write(self, expected_version: int, state: ClusterState, done: Callable[[Outcome], None]) -> None:
        """Compare-and-set the state; `done` is called in the event loop."""

        def operation() -> Outcome:
            if self._store.write(expected_version, state):
                return Outcome(True, state)
            return Outcome(False, self._store.read())

        self._run(operation, done)

    async def close(self) -> None:
        """Finish what was asked for, and close the store."""
        await self._loop.run_in_executor(self._executor, self._store.close)
        self._executor.shutdown()

    def _run(self, operation: Callable[[], Outcome], done: Callable[[Outcome], None]) -> None:
        future = self._loop.run_in_executor(self._executor, operation)
        future.add_done_callback(lambda each: self._finished(each, done))

    def _finished(self, future: asyncio.Future[Outcome], done: Callable[[Outcome], None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            if self._trouble:
                log.info("the store works again")
                self._trouble = ""
            done(future.result())
            return
        if not isinstance(error, (LockringError, OSError)):
            raise error
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.error("the store failed: %s", error)
        done(Outcome(False, None))
