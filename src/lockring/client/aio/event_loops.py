"""Two helpers around event loops: a call on a loop from any thread, and notice of a loop's end."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol


def call_on_loop(loop: asyncio.AbstractEventLoop | None, function: Callable[[], object]) -> None:
    """Call a function on a loop: at once if the loop runs here, otherwise soon; not at all if it is closed."""
    if loop is None:
        return
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        function()
    else:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function)


class Closable(Protocol):
    """A driver that must be closed when its loop ends."""

    async def close(self) -> None:
        """Close the driver, from any loop."""


def guard_of(driver: Closable) -> AsyncGenerator[None]:
    """Return a generator that closes a driver when the running loop ends.

    `asyncio.run` closes all asynchronous generators that were begun on its loop. The caller keeps the generator.
    """
    generator = _until_the_loop_ends(weakref.ref(driver))
    with contextlib.suppress(StopIteration):
        step: Any = generator.__anext__()
        step.send(None)  # begins it, without a task
    return generator


async def _until_the_loop_ends(reference: weakref.ref[Closable]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        driver = reference()
        if driver is not None:
            await driver.close()
