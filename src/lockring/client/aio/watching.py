"""A watch of the asyncio client, between its engine and its reader."""

from __future__ import annotations

import asyncio

from lockring.core.client import Backlog, Query
from lockring.errors import LockringError


class WatchReader:
    """A watch and what it has seen that its caller has not."""

    __slots__ = ("backlog", "error", "over", "request", "woken")

    def __init__(self, request: Query, unread_max: int) -> None:
        self.request = request
        self.backlog = Backlog(unread_max)
        self.error: LockringError | None = None
        self.over = False
        self.woken: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the caller look."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)
