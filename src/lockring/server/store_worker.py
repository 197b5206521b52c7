"""Runs a blocking store in its own thread, one operation after the other. The core decides what a failure means.

- *In the order of the calls*, but a campaign does not wait behind reads that have not begun: it renews the lead, and
  the lead is short.
- *What was given up is not begun.* After a store has stood still, the reads and campaigns that the core has given up by
  then would only hold up those that it waits for. A write is carried out: its outcome is unknown to the core, but not
  lost.

The thread ends with the process, whatever it does: a store that does not answer must not hold up the end. The outcome
of an operation that is left alone is unknown, as that of one in a process that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState
from lockring.core.coordinator import OPERATION_TIMEOUT_NS, SILENT
from lockring.core.election import Candidate, Election
from lockring.core.histograms import SHORT_NS, Histogram
from lockring.errors import LockringError, StoreError
from lockring.ids import TermId, Version
from lockring.store.base import SharedStore, Store

_T = TypeVar("_T")

CLOSE_S_MAX: Final = 2.0
"""How long the end of a process waits for its store. A store that works takes a fraction of it. With the other parts of
the end it stays well below the ten seconds after which supervisors kill."""

OPERATIONS: Final = ("read", "write", "campaign", "resign", "close")
"""The names of operations, for metrics."""

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


class _Kind(enum.Enum):
    """The kinds of operations that stand at different places in the line."""

    READ = enum.auto()
    CAMPAIGN = enum.auto()
    OTHER = enum.auto()


class _Operation(NamedTuple):
    """An operation that was asked for.

    Attributes:
        kind: of what kind it is.
        name: one of `OPERATIONS`.
        run: carries it out.
        future: gets its result.
        asked_at_ns: when that was, by the monotonic clock.
    """

    kind: _Kind
    name: str
    run: Callable[[], Any]
    future: asyncio.Future[Any]
    asked_at_ns: int

    def is_given_up(self, now_ns: int) -> bool:
        """Return whether the core waits for it no longer, and nothing depends on it."""
        return self.kind is not _Kind.OTHER and now_ns >= self.asked_at_ns + OPERATION_TIMEOUT_NS


class _Line:
    """The operations that have not begun. Thread-safe."""

    def __init__(self) -> None:
        self._operations: deque[_Operation] = deque()
        self._has_ended = False
        self._changed = threading.Condition()

    def add(self, operation: _Operation) -> None:
        """Add an operation at its place."""
        with self._changed:
            place = len(self._operations)
            while (
                operation.kind is _Kind.CAMPAIGN and place and self._operations[place - 1].kind is _Kind.READ
            ):
                place -= 1
            self._operations.insert(place, operation)
            self._changed.notify()

    def end(self) -> None:
        """Let the line end after the operations that are in it."""
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def take(self) -> _Operation | None:
        """Wait for the next operation, and take it; None after the end."""
        with self._changed:
            while not self._operations and not self._has_ended:
                self._changed.wait()
            return self._operations.popleft() if self._operations else None


class StoreWorker:
    """A store as seen from an event loop. Operations run in the order of the calls, but for campaigns.

    Args:
        store: from now on used in the worker's thread only.

    Attributes:
        has_shown_a_state: whether a read or write has ever found a state: if the store is empty later, it was lost.
        place: the engine and where it is, for people.
        took: the time that operations took, by name.
        errors: operations that failed, or were given up before they began, by name and by which of the two.
    """

    def __init__(self, store: Store) -> None:
        self.has_shown_a_state = False
        self.place = store.place
        self.took = {op: Histogram(SHORT_NS) for op in OPERATIONS}
        self.errors: dict[tuple[str, str], int] = {}
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._line = _Line()
        # Not one of an executor, which the end of the process would wait for.
        threading.Thread(target=self._work, name="lockring-store", daemon=True).start()

    def read(self, done: Callable[[StoreOutcome], None]) -> None:
        """Read the state; `done` is called in the event loop."""
        self._run(_Kind.READ, "read", lambda: StoreOutcome(True, self._store.read()), done)

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

        self._run(_Kind.OTHER, "write", operation, done)

    def campaign(
        self, candidate: Candidate, ttl_ms: int, done: Callable[[Election | None, str], None]
    ) -> None:
        """Take or renew the lead, or stand by; `done` is called in the event loop, with a problem if that failed."""
        store = self._shared()
        future = self._ask(_Kind.CAMPAIGN, "campaign", lambda: store.campaign(candidate, ttl_ms))
        future.add_done_callback(lambda each: self._elected(each, done))

    def resign(self, term: TermId) -> None:
        """Give up the lead or the candidacy of a term; a failure is left to the end of its time."""
        store = self._shared()

        def operation() -> None:
            with contextlib.suppress(StoreError):
                store.resign(term)

        self._ask(_Kind.OTHER, "resign", operation)

    async def close(self) -> bool:
        """Finish all operations, and close the store; return whether that was done within `CLOSE_S_MAX`."""
        closing = self._ask(_Kind.OTHER, "close", self._store.close)
        self._line.end()
        done, _ = await asyncio.wait([closing], timeout=CLOSE_S_MAX)
        if not done:
            return False
        closing.result()
        return True

    def _run(
        self,
        kind: _Kind,
        name: str,
        operation: Callable[[], StoreOutcome],
        done: Callable[[StoreOutcome], None],
    ) -> None:
        self._ask(kind, name, operation).add_done_callback(lambda each: self._finished(each, done))

    def _ask(self, kind: _Kind, name: str, operation: Callable[[], _T]) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self._loop.create_future()
        self._line.add(_Operation(kind, name, operation, future, monotonic_ns()))
        return future

    def _work(self) -> None:
        while (each := self._line.take()) is not None:
            result: object = None
            failure: BaseException | None = None
            began_ns = monotonic_ns()
            if each.is_given_up(began_ns):
                failure = StoreError(SILENT)
                self._count_error(each.name, "given-up")
            else:
                try:
                    result = each.run()
                except BaseException as error:  # noqa: BLE001 - the future's user decides
                    failure = error
                    self._count_error(each.name, "failed")
                self.took[each.name].observe(monotonic_ns() - began_ns)
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, each.future, result, failure)

    def _count_error(self, name: str, kind: str) -> None:
        """Count a failure, in the worker's thread, which alone writes the counts."""
        self.errors[name, kind] = self.errors.get((name, kind), 0) + 1

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
