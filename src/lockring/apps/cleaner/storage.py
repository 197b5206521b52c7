"""What a worker needs of that which it cleans: a local file system and a bucket give it, each in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import FolderState, Reason


class FoundFolder(msgspec.Struct, frozen=True):
    """A folder that a scan came by.

    Attributes:
        folder: which.
        look: what it is like, or why nothing is known of it and of what is in it.
    """

    folder: str
    look: FolderState | Reason


class Storage(Protocol):
    """One root with its folders. For one thread at a time."""

    name: str
    """The root, as people write it."""

    implies_parents: bool
    """Whether a folder without a marker of its own is gone as soon as nothing is in it."""

    restored: int
    """How many markers were put back, since something was written while they were removed."""

    def open(self) -> None:
        """Reach the root.

        Raises:
            RootMissing: there is none.
            Denied: it may not be read.
            Unavailable: it cannot be reached.
        """

    def close(self) -> None:
        """Let go of it."""

    def scan(self, policy: Policy) -> Iterator[FoundFolder]:
        """Every folder but the root, each after what is in it; not what is in a folder that is kept with all below.

        Memory grows with the depth of the tree, not with its size.

        Raises:
            RootMissing, Denied, Unavailable: the root cannot be reached or read any more.
        """

    def look(self, folder: str, *, entries_max: int) -> FolderState | Reason:
        """Look at one folder.

        Args:
            folder: which.
            entries_max: how many entries to count at most, 1 or more.

        Returns:
            What it is like, or why nothing is known of it.
        """

    def remove(self, folder: str) -> Reason | None:
        """Remove a folder if it is empty; what is written to it meanwhile stays.

        Returns:
            None if it was removed, else why not.
        """
