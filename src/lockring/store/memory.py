"""A store that ends with the process, for trials and tests."""

from __future__ import annotations

from threading import Lock

from lockring.cluster_state import ClusterState
from lockring.errors import StoreError
from lockring.ids import Version


class MemoryStore:
    """Keeps the state in memory. Safe for several threads, and for several coordinators of one process.

    Args:
        state: the initial state, None for an empty store.
    """

    def __init__(self, state: ClusterState | None = None) -> None:
        self._lock = Lock()
        self._state = state
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

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one, and return whether it was stored.

        Raises:
            StoreError: the store is closed.
        """
        with self._lock:
            self._check_open()
            if (0 if self._state is None else self._state.version) != expected_version:
                return False
            self._state = state
            return True

    def close(self) -> None:
        """Refuse all further calls."""
        with self._lock:
            self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store is closed")
