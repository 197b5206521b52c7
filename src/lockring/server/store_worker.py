"""Runs a blocking store in its own thread, one operation after the other. The core decides what a failure means.

The thread ends with the process, whatever it does: a store that does not answer must not hold up the end. The outcome
of an operation that is left alone is unknown, as that of one in a process that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import LockringError, StoreError
from lockring.ids import TermId, Version
from lockring.store.base import SharedStore, Store

_T = TypeVar("_T")

CLOSE_S_MAX: Final = 2.0
"""How long the end of a process waits for its store. A store that works takes a fraction of it. With the other parts of
the end it stays well below the ten seconds after which supervisors kill."""

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
        self._asked: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        # Not one of an executor, which the end of the process would wait for.
        Thread(target=self._work, name="lockring-store", daemon=True).start()

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
        future = self._ask(lambda: store.campaign(candidate, ttl_ms))
        future.add_done_callback(lambda each: self._elected(each, done))

    def resign(self, term: TermId) -> None:
        """Give up the lead or the candidacy of a term; a failure is left to the end of its time."""
        store = self._shared()

        def operation() -> None:
            with contextlib.suppress(StoreError):
                store.resign(term)

        self._ask(operation)

    async def close(self) -> bool:
        """Finish all operations, and close the store; return whether that was done within `CLOSE_S_MAX`."""
        closing = self._ask(self._store.close)
        self._asked.put(None)
        done, _ = await asyncio.wait([closing], timeout=CLOSE_S_MAX)
        if not done:
            return False
        closing.result()
        return True

    def _run(self, operation: Callable[[], StoreOutcome], done: Callable[[StoreOutcome], None]) -> None:
        self._ask(operation).add_done_callback(lambda each: self._finished(each, done))

    def _ask(self, operation: Callable[[], _T]) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self._loop.create_future()
        self._asked.put((operation, future))
        return future

    def _work(self) -> None:
        while (each := self._asked.get()) is not None:
            operation, future = each
            result, failure = None, None
            try:
                result = operation()
            except BaseException as error:  # noqa: BLE001 - the future's user decides
                failure = error
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, future, result, failure)

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


def _settle(future: asyncio.Future[Any], result: object, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
