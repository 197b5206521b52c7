"""One end of a stranger's connection."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast


class Stranger(asyncio.Protocol):
    """One end of a connection that throws away what comes, and notes when it ends.

    Attributes:
        opened: set once an input may be sent.
        ended: set at the end.
        transport: the event loop's, None before the connection is open.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.opened.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.opened.set()
        self.ended.set()

    def send(self, data: bytes) -> None:
        """Send an input."""
        assert self.transport is not None
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """End the connection."""
        assert self.transport is not None
        self.transport.close()

    async def wait_for_end(self, timeout_s: float) -> bool:
        """Whether the other side ends the connection within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        return self.ended.is_set()
