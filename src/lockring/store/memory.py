"""A store that ends with the process, for trials and tests."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic_ns

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import StoreError
from lockring.ids import TermId, Version
from lockring.units import ms_to_ns


class MemoryStore:
    """Keeps the state in memory. Safe for several threads, and for several coordinators of one process.

    Args:
        state: the initial state, None for an empty store.
        clock_ns: the clock that measures the leader's time, in nanoseconds.

    Attributes:
        created: whether it was empty at first.
        place: where it is, for people.
    """

    def __init__(
        self, state: ClusterState | None = None, *, clock_ns: Callable[[], int] = monotonic_ns
    ) -> None:
        self._lock = Lock()
        self._clock_ns = clock_ns
        self._state = state
        self._leader: Candidate | None = None
        self._until_ns: dict[Candidate, int] = {}
        self._is_closed = False
        self.created = state is None
        self.place = "memory"

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            return self._state

    def write(self, expected_version: Version, state: ClusterState) -> bool:
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

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        """Take or renew the lead, or stand by. See `SharedStore`.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            now_ns = self._clock_ns()
            self._until_ns[candidate] = now_ns + ms_to_ns(ttl_ms)
            if self._leader is None or self._until_ns.get(self._leader, 0) <= now_ns:
                self._leader = candidate
            return self._election(now_ns)

    def election(self) -> Election:
        """Return the coordinators as the store knows them now.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            return self._election(self._clock_ns())

    def resign(self, term: TermId) -> None:
        """End this term's lead or candidacy.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            self._until_ns = {each: until for each, until in self._until_ns.items() if each.term != term}

    def close(self) -> None:
        """Refuse all further calls."""
        with self._lock:
            self._is_closed = True

    def _election(self, now_ns: int) -> Election:
        self._until_ns = {each: until_ns for each, until_ns in self._until_ns.items() if now_ns < until_ns}
        leader = self._leader if self._leader in self._until_ns else None
        standbys = sorted((each for each in self._until_ns if each != leader), key=lambda each: each.address)
        return Election(leader, tuple(standbys))

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store is closed")
