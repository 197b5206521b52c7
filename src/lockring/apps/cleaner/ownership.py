"""The folders that belong to a worker: all of them if it works alone, else those that its group's ring gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

KEY_BYTES_MAX: Final = 512
"""Longest key. A folder with a longer path, or one that is not text, has a digest as its key."""


class Ownership(Protocol):
    """Knows the owner of each folder. Thread-safe."""

    worker: str
    """The name of this worker to others."""

    def fence(self, folder: str) -> int | None:
        """Return the number under which this worker owns a folder at this moment, None if it does not.

        The number only grows: a later owner, or the same one after another, has a greater one.
        """

    def on_change(self, callback: Callable[[], None]) -> None:
        """Register a callback, called from any thread whenever this worker has gained or lost folders."""


class SoleOwnership:
    """The ownership of a worker without a group: it owns every folder.

    Args:
        worker: its name.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def fence(self, folder: str) -> int | None:
        """See `Ownership`; always 0."""
        return 0

    def on_change(self, callback: Callable[[], None]) -> None:
        """See `Ownership`; never calls back."""


def owner_key(folder: str) -> str:
    """Return a folder's key in the ring: its path relative to the root, the same on all machines.

    A path that is not text (POSIX allows any bytes), or that is very long, is represented by its digest.
    """
    raw = folder.encode("utf-8", "surrogateescape")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "blake2b:" + hashlib.blake2b(raw, digest_size=16).hexdigest()
    if len(raw) > KEY_BYTES_MAX or not folder.isprintable():
        return "blake2b:" + hashlib.blake2b(raw, digest_size=16).hexdigest()
    return folder
