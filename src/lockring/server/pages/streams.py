"""Streams: a page that follows what happens, as events that a browser takes (Server-Sent Events)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from starlette.responses import Response, StreamingResponse

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Overloaded
from lockring.server.pages.rendering import event_of
from lockring.units import NS_PER_S

STREAMS_MAX: Final = 64
"""Streams of one process: each asks the servers every two seconds, unless another one has asked the same."""
LOOK_S: Final = 2.0
"""How often a page is brought up to date."""
BYTES_PER_S: Final = 16 * 1024
"""About how much a stream sends at most: a long page is brought up to date less often, for phones far from home."""
HEARTBEAT_NS: Final = 15 * NS_PER_S
"""How long a stream may be silent: proxies end those that are silent for longer."""

_HEADERS: Final = {
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Streams:
    """The streams of one process. Lives in one event loop.

    Args:
        is_ending: set when the process ends.
    """

    def __init__(self, is_ending: asyncio.Event) -> None:
        self._is_ending = is_ending
        self._open = 0

    def __len__(self) -> int:
        return self._open

    def follow(self, look: Callable[[], Awaitable[str]], *, is_over: Callable[[], bool]) -> Response:
        """Return the answer that follows a page.

        Args:
            look: returns the page's content at the moment.
            is_over: whether the viewer's credential has ended meanwhile.

        Raises:
            Overloaded: there are too many streams.
        """
        if self._open >= STREAMS_MAX:
            raise Overloaded(f"{STREAMS_MAX} pages follow this server already; this one can be loaded again")
        return StreamingResponse(
            self._events(look, is_over), media_type="text/event-stream", headers=dict(_HEADERS)
        )

    async def _events(
        self, look: Callable[[], Awaitable[str]], is_over: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            shown, said_ns = "", monotonic_ns()
            yield b"retry: 2000\n\n"
            while not self._is_ending.is_set():
                if is_over():
                    yield event_of("over", "")
                    return
                try:
                    kind, data = "content", await look()
                except LockringError as error:
                    kind, data = "problem", str(error)
                if (kind + data) != shown:
                    shown, said_ns = kind + data, monotonic_ns()
                    yield event_of(kind, data)
                elif monotonic_ns() - said_ns >= HEARTBEAT_NS:
                    said_ns = monotonic_ns()
                    yield b": still here\n\n"
                pause_s = max(LOOK_S, len(shown) / BYTES_PER_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_ending.wait(), pause_s)
        finally:
            self._open -= 1
