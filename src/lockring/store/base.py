"""The interface of a store: one state, read whole, and replaced only by a writer that has seen the latest version.

Stores block. A coordinator's shell calls them in a worker thread, one call at a time.
"""

from __future__ import annotations

from typing import Protocol

from lockring.cluster_state import ClusterState
from lockring.ids import Version


class Store(Protocol):
    """Keeps the cluster state. Usable from any thread, but not from several at once unless a store says so."""

    @property
    def created(self) -> bool:
        """Whether the store was created just now: then it is empty because the cluster is new."""
        ...

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        It is never older than one that an earlier read or write has shown.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one; 0 stands for an empty store.

        After a return of True, the state survives the process and the machine, as far as the store promises that.

        Returns:
            Whether it was stored.

        Raises:
            StoreError: it could not be written, or it is unknown whether it was.
        """
        ...

    def close(self) -> None:
        """Release the store, which cannot be used afterwards. Closing twice is harmless."""
        ...
