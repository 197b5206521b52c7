"""What a coordinator needs of a store: one state, read whole, and replaced only by whoever has seen the latest.

Stores block. A coordinator's shell calls them in a worker thread, one call at a time.
"""

from __future__ import annotations

from typing import Protocol

from lockring.cluster_state import ClusterState


class Store(Protocol):
    """Where the cluster state lives. May be used from any thread, not from several at once unless a store says so."""

    @property
    def created(self) -> bool:
        """Whether there was no store before, so that an empty one means a new cluster, not a lost one."""
        ...

    def read(self) -> ClusterState | None:
        """The stored state, None if there is none.

        Never an older one than any earlier read or write has shown.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def write(self, expected_version: int, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one; 0 stands for nothing stored.

        Once it has returned True, the state outlives the process and the machine, as far as the store promises that.

        Returns:
            Whether it was stored.

        Raises:
            StoreError: it could not be written, or it is unknown whether it was.
        """
        ...

    def close(self) -> None:
        """Let go of the store; it may not be used any more. Closing twice is harmless."""
        ...
