"""Derives the folders of a bucket from its keys, in their order.

A bucket has keys and no folders. A folder is a common prefix of keys up to a "/"; its *marker* is the object whose
key is the folder's name with a "/" at its end. A folder is empty if it has nothing but its marker, and the marker
has no content: a marker with content is data. Keys with the same prefix are adjacent in the order of a bucket, so
one pass over them, with a stack of the open folders, finds every folder once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import ROOT, FolderState, Reason
from lockring.apps.cleaner.storage import FoundFolder


class Key(msgspec.Struct, frozen=True):
    """An object.

    Attributes:
        name: its key, relative to the root.
        size_bytes: of its content.
        stamp: changes whenever the object is written.
    """

    name: str
    size_bytes: int
    stamp: str


class _Open:
    """A folder whose keys are being read."""

    __slots__ = ("count", "folder", "kept", "marker")

    def __init__(self, folder: str, kept: Reason | None) -> None:
        self.folder = folder
        self.kept = kept
        self.count = 0
        self.marker: str | None = None

    def found(self) -> FoundFolder:
        if self.kept is not None:
            return FoundFolder(self.folder, self.kept)
        return FoundFolder(self.folder, FolderState(self.count, self.marker or "", self.marker is not None))


def folders_of(keys: Iterable[Key], policy: Policy) -> Iterator[FoundFolder]:
    """Yield every folder that the keys make, each after its contents; see `Storage.scan`.

    Args:
        keys: all keys below the root, in the bucket's order.
        policy: decides which folders are kept with all their contents.
    """
    stack = [_Open(ROOT, None)]
    for key in keys:
        folder = key.name.rpartition("/")[0]
        while stack[-1].folder != ROOT and not _is_in(folder, stack[-1].folder):
            yield stack.pop().found()
        _descend(stack, folder, policy)
        top = stack[-1]
        if top.kept is not None:
            continue
        if key.name.endswith("/") and key.size_bytes == 0:
            top.marker = key.stamp
        else:
            top.count += 1
    while len(stack) > 1:
        yield stack.pop().found()


def _is_in(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(other + "/")


def _descend(stack: list[_Open], folder: str, policy: Policy) -> None:
    """Open the folders between the open one and the key's own, unless they are kept with all their contents."""
    while stack[-1].kept is None and stack[-1].folder != folder:
        above = stack[-1]
        start = len(above.folder) + 1 if above.folder != ROOT else 0
        end = folder.find("/", start)
        inner = folder if end == -1 else folder[:end]
        if inner == ROOT:  # keys that begin with "/" have no folder with a name
            return
        above.count += 1
        stack.append(_Open(inner, policy.keeps_below(inner)))
