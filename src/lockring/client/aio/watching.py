"""A watch of the asyncio client: the buffer between driver and reader, and the updates that the reader gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from lockring.client.process_bound import ProcessBound
from lockring.client.watch_updates import WatchUpdate
from lockring.core.client import Backlog, Query, Update
from lockring.errors import LockringError


class WatchReader:
    """A watch, and its updates that the caller has not read yet.

    Attributes:
        request: the core's side of the watch.
        backlog: the updates that the caller has not read.
        error: why the watch ended, None if the caller ended it.
        over: whether no more updates will come.
        woken: the future on which the caller waits, None if it does not wait.
    """

    __slots__ = ("backlog", "error", "over", "request", "woken")

    def __init__(self, request: Query, unread_max: int) -> None:
        self.request = request
        self.backlog = Backlog(unread_max)
        self.error: LockringError | None = None
        self.over = False
        self.woken: asyncio.Future[None] | None = None

    async def next_updates(self, loop: asyncio.AbstractEventLoop) -> list[Update]:
        """Wait for updates, and return those that the caller has not read; none once the watch is over.

        Raises:
            LockringError: why it has ended, once.
        """
        if not self.backlog and not self.over:
            self.woken = loop.create_future()
            try:
                await self.woken
            finally:
                self.woken = None
        updates = self.backlog.take()
        if not updates and self.error is not None:
            raise self._taken_error()
        return updates

    def _taken_error(self) -> LockringError:
        """Return the error, to be raised, and forget it: its traceback will have this watch."""
        error, self.error = self.error, None
        assert error is not None, "there is an error to raise"
        return error

    def wake(self) -> None:
        """Wake the caller, if it waits."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class WatchUpdates(ProcessBound, AsyncGenerator[WatchUpdate, None]):
    """The updates of a watched lock, one after the other. Closing it ends the watch."""

    _instead = "pass the addresses of the servers and the lock's name, and watch it there"

    def __init__(self, updates: AsyncGenerator[WatchUpdate]) -> None:
        self._updates = updates

    def __anext__(self) -> Coroutine[Any, Any, WatchUpdate]:
        return self._updates.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, WatchUpdate]:
        """Return the next update."""
        return self._updates.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, WatchUpdate]:
        """Raise an error in the watch, which ends it."""
        return self._updates.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        """End the watch."""
        return self._updates.aclose()
