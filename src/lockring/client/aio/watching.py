"""A watch of the asyncio client, between the driver and the code that reads it."""

from __future__ import annotations

import asyncio

from lockring.core.client import Backlog, Query
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

    def wake(self) -> None:
        """Wake the caller, if it waits."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)
