"""A store that ends with the process, for trials and tests."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic_ns

from lockring.cluster_state import ClusterState
from lockring.errors import StoreError
from lockring.store.base import Leader
from lockring.units import ms_to_ns


class MemoryStore:
    """Keeps the state in memory. Safe for several threads, and for several coordinators of one process.

    Args:
        state: the initial state, None for an empty store.
        clock_ns: the clock that measures the leader's time, in nanoseconds.

    Attributes:
        created: whether it was empty at first.
    """

    def __init__(
        self, state: ClusterState | None = None, *, clock_ns: Callable[[], int] = monotonic_ns
    ) -> None:
        self._lock = Lock()
        self._clock_ns = clock_ns
        self._state = state
        self._leader: Leader | None = None
        self._leads_until_ns = 0
        self._is_closed = False
        self.created = state is None

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            return self._state

    def write(self, expected_version: int, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one and its term leads; return whether it was stored.

        Where no coordinator has ever campaigned, only the version counts.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            if (0 if self._state is None else self._state.version) != expected_version:
                return False
            if self._leader is not None and self._leader.term != state.term:
                return False
            self._state = state
            return True

    def campaign(self, candidate: Leader, ttl_ms: int) -> Leader:
        """Take or renew the lead, and return the leader as it is afterwards. See `SharedStore`.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            now_ns = self._clock_ns()
            if self._leader is None or self._leader.term == candidate.term or self._leads_until_ns <= now_ns:
                self._leader = candidate
                self._leads_until_ns = now_ns + ms_to_ns(ttl_ms)
            return self._leader

    def leader(self) -> Leader | None:
        """Return the leader whose time is not over, None if there is none.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            return self._leader if self._clock_ns() < self._leads_until_ns else None

    def resign(self, term: str) -> None:
        """End this term's lead, if it leads.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            if self._leader is not None and self._leader.term == term:
                self._leads_until_ns = 0

    def close(self) -> None:
        """Refuse all further calls."""
        with self._lock:
            self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store is closed")
