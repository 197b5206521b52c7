"""The words that the parts of the cleaner share: what happened, what a folder looks like, why it is kept."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

ROOT: Final = ""
"""The folder that is cleaned, as a folder."""


class Change(enum.Enum):
    """What happened to an entry of a folder. A move is a removal in one folder and a creation in another."""

    CREATED = "created"
    REMOVED = "removed"


class FolderEvent(msgspec.Struct, frozen=True):
    """A change, as a source of events tells it.

    Attributes:
        change: what happened.
        folder: the folder whose entry came or went.
        at_ns: when it happened, by the worker's monotonic clock. Events may arrive in another order.
    """

    change: Change
    folder: str
    at_ns: int


class FolderState(msgspec.Struct, frozen=True):
    """A folder as it was found.

    Attributes:
        entries: how many it has; looks count to a bound, scans to the end. A folder's own marker is none.
        stamp: differs if anything was created or removed in the folder between two looks; equal if not.
        is_explicit: whether the folder exists by a marker that somebody wrote, and not by what is in it.
    """

    entries: int
    stamp: int | str = 0
    is_explicit: bool = False


class Reason(enum.Enum):
    """Why a folder was kept. The value is the word for it in reports."""

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
    """The folder that a folder is in; of the root's direct children the root."""
    assert folder != ROOT, "the root has no parent that we know"
    return folder.rpartition("/")[0]


def top_of(folder: str) -> str:
    """The direct child of the root that a folder is or is in."""
    return folder.partition("/")[0]
