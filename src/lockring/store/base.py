"""The interface of a store: one state, read whole, and replaced only by a writer that has seen the latest version.

A *shared* store is open to several coordinators at once. It says which of them leads, by a lease that it measures
with its own clock. That lease keeps the others from interfering; it makes nothing safe. Safe is the comparison inside
`write`: a former leader writes nothing, however late its request arrives.

Stores block. A coordinator's shell calls them in a worker thread, one call at a time.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import StoreError
from lockring.ids import TermId, Version


class StoreUnreachable(StoreError):
    """The server of a store does not answer, or cannot at present: it is worth while to try again."""


class Store(Protocol):
    """Keeps the cluster state. Usable from any thread, but not from several at once unless a store says so."""

    @property
    def created(self) -> bool:
        """Whether the store was created just now: then it is empty because the cluster is new."""
        ...

    @property
    def place(self) -> str:
        """The engine and where it is, for people, without a password."""
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

        A shared store also compares the leader: the state's term must be the one that leads.
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


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store for several coordinators. It says which one leads."""

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        """Take the lead if it is free or its time is over, or renew it if it is the candidate's; else stand by.

        Args:
            candidate: the coordinator that wants to lead.
            ttl_ms: how long the call counts unless it is repeated, in milliseconds of the store's clock (1,000–60,000).

        Returns:
            The coordinators as they are after the call. There is a leader: the candidate, or the one it stands by for.

        Raises:
            StoreError: the store does not answer, or it is unknown what became of the call.
        """
        ...

    def election(self) -> Election:
        """Return the coordinators as the store knows them now, and change nothing.

        Raises:
            StoreError: the store does not answer.
        """
        ...

    def resign(self, term: TermId) -> None:
        """Give up the lead or the candidacy of this term, so that a standby need not wait for the end of its time.

        Raises:
            StoreError: the store does not answer; what is given up then ends with its time.
        """
        ...
