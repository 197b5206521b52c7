"""A watch of the blocking client, as its reader gets it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from lockring.client.process_bound import ProcessBound
from lockring.client.watch_updates import WatchUpdate


class WatchUpdates(ProcessBound, Generator[WatchUpdate, None, None]):
    """The updates of a watched lock, one after the other. Closing it ends the watch."""

    _instead = "pass the addresses of the servers and the lock's name, and watch it there"

    def __init__(self, updates: Generator[WatchUpdate, None, None]) -> None:
        self._updates = updates

    def __next__(self) -> WatchUpdate:
        return next(self._updates)

    def send(self, value: None) -> WatchUpdate:
        """Return the next update."""
        return self._updates.send(value)

    def throw(self, *error: Any) -> WatchUpdate:
        """Raise an error in the watch, which ends it."""
        return self._updates.throw(*error)

    def close(self) -> None:
        """End the watch."""
        self._updates.close()
