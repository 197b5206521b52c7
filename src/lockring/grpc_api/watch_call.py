"""A `Watch` call: a lock's states from its primary, and from the next one when it has moved.

A state that follows upon a break of any kind carries `gap`: what was between may have been missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Moved, Unavailable
from lockring.grpc_api.channels import NodeChannel
from lockring.grpc_api.router import AGAIN, PATIENCE_NS, Forwarder, error_of
from lockring.ids import RequestNumber
from lockring.protocol import Refusal, Watch, WatchNotice
from lockring.slots import slot_of

UNREAD_MAX: Final = 100
"""States that wait for a client that reads slowly; the oldest are thrown away, and the next one tells of a gap."""


class WatchCall:
    """One call.

    Args:
        forwarder: finds the primary.
        name: of the lock, checked.
    """

    def __init__(self, forwarder: Forwarder, name: str) -> None:
        self._forwarder = forwarder
        self._name = name
        self._slot = slot_of(name)
        self._unread: deque[WatchNotice] = deque()
        self._ended: LockringError | None = None
        self._gap = False
        self._woken = asyncio.Event()
        self._open: tuple[NodeChannel, RequestNumber] | None = None

    def close(self) -> None:
        """Watch no more."""
        if self._open is not None:
            port, number = self._open
            self._open = None
            port.unwatch(number)

    async def states(self) -> AsyncIterator[tuple[WatchNotice, bool]]:
        """The lock now and after each change, each with whether something may have been missed before it.

        Raises:
            LockringError: the lock cannot be watched; at the beginning also since nobody could be asked for a while.
        """
        attempts = 0
        seen = False
        patience_until_ns = monotonic_ns() + PATIENCE_NS
        while True:
            try:
                async for changed, gap in self._at_one_primary():
                    attempts, seen = 0, True
                    yield changed, gap
            except AGAIN:
                if not seen and monotonic_ns() >= patience_until_ns:
                    raise
            finally:
                self.close()
            self._gap = seen
            await self._forwarder.pause(attempts, monotonic_ns() + PATIENCE_NS)
            attempts += 1

    # ----------------------------------------------------------------------- inner

    async def _at_one_primary(self) -> AsyncIterator[tuple[WatchNotice, bool]]:
        primary = self._forwarder.primary_of(self._slot)
        port = await self._forwarder.port_of(primary, monotonic_ns() + PATIENCE_NS)
        version = self._forwarder.state.version
        self._unread.clear()
        self._ended = None
        number = port.watch(lambda request: Watch(request, self._name, version), self._take)
        self._open = (port, number)
        is_first = True
        while True:
            while self._unread:
                changed, gap = self._unread.popleft(), self._gap
                self._gap = False
                yield changed, gap or (changed.gap and not is_first)
                is_first = False
            if self._ended is not None:
                raise self._ended
            if self._forwarder.primary_of(self._slot) != primary:
                raise Moved(f"lock {self._name!r} has moved")
            self._woken.clear()
            news = self._forwarder.news
            news.add_done_callback(self._wake)
            try:
                await self._woken.wait()
            finally:
                news.remove_done_callback(self._wake)

    def _wake(self, _: asyncio.Future[None]) -> None:
        self._woken.set()

    def _take(self, message: WatchNotice | Refusal | None) -> None:
        if isinstance(message, WatchNotice):
            self._unread.append(message)
            if len(self._unread) > UNREAD_MAX:
                self._unread.popleft()
                self._gap = True
        elif isinstance(message, Refusal):
            self._ended = error_of(message)
        else:
            self._ended = Unavailable("the connection to the lock's primary was lost")
        self._woken.set()
