"""Runs a blocking store in its own thread, one operation after the other. The core decides what a failure means."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import LockringError, StoreError
from lockring.ids import TermId, Version
from lockring.store.base import SharedStore, Store

_EMPTIED: Final = "the store is empty: the state that it had was deleted"


class StoreOutcome(NamedTuple):
    """The outcome of an operation.

    Attributes:
        ok: whether it succeeded.
        state: what is stored now; None if nothing, or if unknown.
        problem: why it failed; "" if it did not, or found another version than expected.
    """

    ok: bool
    state: ClusterState | None
    problem: str = ""


class StoreWorker:
    """A store as seen from an event loop. Operations run in the order of the calls.

    Args:
        store: from now on used in the worker's thread only.

    Attributes:
        has_shown_a_state: whether a read or write has ever found a state: if the store is empty later, it was lost.
        place: the engine and where it is, for people.
    """

    def __init__(self, store: Store) -> None:
        self.has_shown_a_state = False
        self.place = store.place
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lockring-store")

    def read(self, done: Callable[[StoreOutcome], None]) -> None:
        """Read the state; `done` is called in the event loop."""
        self._run(lambda: StoreOutcome(True, self._store.read()), done)

    def write(
        self, expected_version: Version, state: ClusterState, done: Callable[[StoreOutcome], None]
    ) -> None:
        """Compare-and-set the state; `done` is called in the event loop."""

        def operation() -> StoreOutcome:
            if self._store.write(expected_version, state):
                return StoreOutcome(True, state)
            present = self._store.read()
            return StoreOutcome(
                False, present, "" if present is not None or not expected_version else _EMPTIED
            )

        self._run(operation, done)

    def campaign(
        self, candidate: Candidate, ttl_ms: int, done: Callable[[Election | None, str], None]
    ) -> None:
        """Take or renew the lead, or stand by; `done` is called in the event loop, with a problem if that failed."""
        store = self._shared()
        future = self._loop.run_in_executor(self._executor, store.campaign, candidate, ttl_ms)
        future.add_done_callback(lambda each: self._elected(each, done))

    def resign(self, term: TermId) -> None:
        """Give up the lead or the candidacy of a term; a failure is left to the end of its time."""
        store = self._shared()

        def operation() -> None:
            with contextlib.suppress(StoreError):
                store.resign(term)

        self._loop.run_in_executor(self._executor, operation)

    async def close(self) -> None:
        """Finish all operations, and close the store."""
        await self._loop.run_in_executor(self._executor, self._store.close)
        self._executor.shutdown()

    def _run(self, operation: Callable[[], StoreOutcome], done: Callable[[StoreOutcome], None]) -> None:
        future = self._loop.run_in_executor(self._executor, operation)
        future.add_done_callback(lambda each: self._finished(each, done))

    def _shared(self) -> SharedStore:
        assert isinstance(self._store, SharedStore), "only a shared store is asked to name a leader"
        return self._store

    def _elected(
        self, future: asyncio.Future[Election], done: Callable[[Election | None, str], None]
    ) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            done(future.result(), "")
        elif isinstance(error, (LockringError, OSError)):
            done(None, str(error))
        else:
            raise error

    def _finished(self, future: asyncio.Future[StoreOutcome], done: Callable[[StoreOutcome], None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            outcome = future.result()
            self.has_shown_a_state = self.has_shown_a_state or outcome.state is not None
            done(outcome)
            return
        if not isinstance(error, (LockringError, OSError)):
            raise error
        done(StoreOutcome(False, None, str(error)))
