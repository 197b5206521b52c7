"""A shared store that may not be there yet: opened in a thread of its own, again and again, until that works.

- *The order of starts does not matter.* A server that refuses, does not answer, has no name yet or is still starting is
  waited for. Until then every operation fails with the reason, so the coordinator says what it waits for.
- *Waiting does not mend a wrong configuration.* An error of any other kind is final, and ends the wait.
- *The end waits for nothing.* An attempt that is under way when the store is closed is left to its thread, which closes
  what it may still open.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import InternalError, LockringError
from lockring.ids import TermId, Version
from lockring.log_events import event
from lockring.store.base import SharedStore, StoreUnreachable

PAUSE_S_MIN: Final = 0.25
PAUSE_S_MAX: Final = 2.0
"""Short beside the time that an operator watches a start."""

_FIRST_S: Final = 3.0
"""How long an operation waits for the outcome of the first attempt: longer than one takes where the store answers, and
less than an operator waits for a word."""

_ADVICE: Final = "this coordinator tries again until the store answers: start the store, or mend --store"

log: Final = logging.getLogger("lockring.coordinator")


class AwaitedStore:
    """A `SharedStore` that is opened as soon as that is possible. Thread-safe.

    Args:
        place: the engine and where it is, for people.
        opens: opens the store; called in another thread, until it succeeds.
        on_hopeless: called in another thread with an error that waiting cannot mend.

    Attributes:
        place: the same.
    """

    def __init__(
        self, place: str, opens: Callable[[], SharedStore], on_hopeless: Callable[[LockringError], None]
    ) -> None:
        self.place = place
        self._opens = opens
        self._on_hopeless = on_hopeless
        self._mutex = threading.Lock()
        self._store: SharedStore | None = None
        self._problem = f"{place} has not answered yet; {_ADVICE}"
        self._was_tried = threading.Event()
        self._ends = threading.Event()
        # Not one of an executor, which the end of the process would wait for.
        threading.Thread(target=self._try, name="lockring-store-open", daemon=True).start()

    @property
    def created(self) -> bool:
        """Whether the store was created just now; False before it is open."""
        with self._mutex:
            return self._store is not None and self._store.created

    @property
    def is_open(self) -> bool:
        """Whether the store was opened."""
        with self._mutex:
            return self._store is not None

    def read(self) -> ClusterState | None:
        """Return the stored state. See `Store`."""
        return self._opened().read()

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Replace the stored state. See `Store`."""
        return self._opened().write(expected_version, state)

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        """Take or renew the lead, or stand by. See `SharedStore`."""
        return self._opened().campaign(candidate, ttl_ms)

    def election(self) -> Election:
        """Return the coordinators. See `SharedStore`."""
        return self._opened().election()

    def resign(self, term: TermId) -> None:
        """Give up a lead or a candidacy. See `SharedStore`."""
        self._opened().resign(term)

    def give_up(self) -> None:
        """Wait no more for a store that is not open: operations on it fail at once. Harmless for one that is."""
        self._ends.set()
        self._was_tried.set()

    def close(self) -> None:
        """Release the store, and open it no more. Closing twice is harmless."""
        self.give_up()
        with self._mutex:
            store = self._store
        if store is not None:
            store.close()

    # ----------------------------------------------------------------------- inner

    def _opened(self) -> SharedStore:
        self._was_tried.wait(_FIRST_S)
        with self._mutex:
            if self._store is None:
                raise StoreUnreachable(self._problem)
            return self._store

    def _try(self) -> None:
        pause_s = PAUSE_S_MIN
        while not self._ends.is_set():
            try:
                store = self._opens()
            except StoreUnreachable as error:
                self._failed(f"{error}; {_ADVICE}")
                self._ends.wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
                continue
            except LockringError as error:
                self._is_hopeless(error)
                return
            except Exception as error:  # without this, the coordinator would wait on and say nothing
                log.exception("%s cannot be opened", self.place, extra=event("bug"))
                self._is_hopeless(
                    InternalError(f"this is a bug in lockring, please report it: {type(error).__name__}")
                )
                return
            with self._mutex:
                self._store = store
            if self._was_tried.is_set() and not self._ends.is_set():
                log.info("%s answers now", self.place, extra=event("store-answers", store=self.place))
            self._was_tried.set()
            if self._ends.is_set():
                store.close()
            return

    def _is_hopeless(self, error: LockringError) -> None:
        """Hand on an error, which is said there once: operations wait for the end, and do not say it again."""
        with self._mutex:
            self._problem = str(error)
        self._on_hopeless(error)

    def _failed(self, problem: str) -> None:
        with self._mutex:
            self._problem = problem
        self._was_tried.set()
