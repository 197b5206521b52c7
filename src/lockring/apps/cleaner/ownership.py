"""Which folders are a worker's: all of them if it is alone, else what the ring of its group gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

KEY_BYTES_MAX: Final = 512
"""Longer keys, and such that are no text, are asked for by their digest."""


class Ownership(Protocol):
    """Says whose a folder is. Safe for use by several threads."""

    worker: str
    """This worker, as the others know it."""

    def fence(self, folder: str) -> int | None:
        """The number under which this worker owns a folder at this moment, None if it does not.

        It only grows: a later owner, or the same one after another, has a greater one.
        """

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back, from any thread, whenever this worker has gained or lost folders."""


class SoleOwnership:
    """The ownership of a worker that is alone: every folder is its own.

    Args:
        worker: its name.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def fence(self, folder: str) -> int | None:
        """See `Ownership`; always 0."""
        return 0

    def on_change(self, callback: Callable[[], None]) -> None:
        """See `Ownership`; nothing ever changes."""


def owner_key(folder: str) -> str:
    """What the ring is asked for: the folder's path relative to the root, so that all machines ask for the same.

    A path that is no text (POSIX allows any bytes), or a very long one, is asked for by its digest.
    """
    raw = folder.encode("utf-8", "surrogateescape")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "blake2b:" + hashlib.blake2b(raw, digest_size=16).hexdigest()
    if len(raw) > KEY_BYTES_MAX or not folder.isprintable():
        return "blake2b:" + hashlib.blake2b(raw, digest_size=16).hexdigest()
    return folder
