"""The interface of a storage, which a local file system and a bucket implement each in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import FolderState, Reason


class FoundFolder(msgspec.Struct, frozen=True):
    """A folder found by a scan.

    Attributes:
        folder: its path.
        look: its state, or why nothing is known of it and its contents.
    """

    folder: str
    look: FolderState | Reason


class Storage(Protocol):
    """One root with its folders. For one thread at a time."""

    name: str
    """The root, as people write it."""

    implies_parents: bool
    """Whether a folder without a marker of its own disappears with its last entry."""

    restored: int
    """How many markers were restored because of an entry written during their removal."""

    def open(self) -> None:
        """Open the root.

        Raises:
            RootMissing: it does not exist.
            Denied: it may not be read.
            Unavailable: it cannot be reached.
        """

    def close(self) -> None:
        """Release the root."""

    def scan(self, policy: Policy) -> Iterator[FoundFolder]:
        """Yield every folder but the root, each after its contents.

        Skips the contents of folders that are kept with everything below.

        Memory grows with the depth of the tree, not with its size.

        Raises:
            RootMissing, Denied, Unavailable: the root can no longer be reached or read.
        """

    def look(self, folder: str, *, entries_max: int) -> FolderState | Reason:
        """Inspect one folder.

        Args:
            folder: its path.
            entries_max: how many entries to count at most, 1 or more.

        Returns:
            Its state, or why nothing is known of it.
        """

    def remove(self, folder: str) -> Reason | None:
        """Remove a folder if it is empty; entries written at the same time stay.

        Returns:
            None if it was removed, else why not.
        """
