"""The shared data types of the cleaner: events, folder states, and the reasons for keeping a folder."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

ROOT: Final = ""
"""The path of the cleaned folder itself."""


class Change(enum.Enum):
    """The change of a folder's entry. A move is a removal in one folder and a creation in another."""

    CREATED = "created"
    REMOVED = "removed"


class FolderEvent(msgspec.Struct, frozen=True):
    """A change, as reported by a source of events.

    Attributes:
        change: the kind of change.
        folder: the folder whose entry came or went.
        at_ns: when it happened, by the worker's monotonic clock. Events may arrive in another order.
    """

    change: Change
    folder: str
    at_ns: int


class FolderState(msgspec.Struct, frozen=True):
    """A folder's state when it was inspected.

    Attributes:
        entries: their number; looks count up to a limit, scans to the end. A folder's own marker does not count.
        stamp: differs if an entry was created or removed between two looks; equal if not.
        is_explicit: whether the folder exists by a marker that a client wrote, and not by its contents.
    """

    entries: int
    stamp: int | str = 0
    is_explicit: bool = False


class Reason(enum.Enum):
    """The reason for keeping a folder. The value is its word in reports."""

    NOT_EMPTY = "not empty"
    WRITTEN = "written to"
    ROOT = "root"
    TOP = "child of the root"
    PATTERN = "pattern"
    ALLOWED = "empty folders allowed"
    MULTIPART = "multipart upload"
    MARKER = "explicit marker"
    OTHERS = "another worker's"
    GONE = "gone already"
    BUSY = "in use"
    DENIED = "no permission"
    FOREIGN = "other file system"
    NOT_A_FOLDER = "not a folder"
    FAILED = "failed"


def parent_of(folder: str) -> str:
    """Return the folder that contains a folder; for the root's direct children the root."""
    assert folder != ROOT, "the root has no known parent"
    return folder.rpartition("/")[0]


def top_of(folder: str) -> str:
    """Return the direct child of the root that a folder is or is in."""
    return folder.partition("/")[0]
