"""The memory of a caller that gets an error: the error's traceback has its frame, and so all that it uses.

An object that keeps the error keeps that memory. If the frames of the traceback keep the error, only a collection of
garbage frees it. A refused connection with TLS then takes some 30 KiB until there is one, and Python counts little of
that.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from tests.processes import PATIENCE_S


class _Used:
    """An object that the caller uses."""


def is_freed_after(error: type[Exception], call: Callable[[], object]) -> bool:
    """Return whether a caller's memory is freed with its error alone, without a collection.

    Args:
        error: what the call raises.
        call: the call.
    """

    def caller() -> weakref.ref[_Used]:
        used = _Used()
        try:
            call()
        except error:
            return weakref.ref(used)
        raise AssertionError("the call has raised nothing")

    gc.disable()
    try:
        return caller()() is None
    finally:
        gc.enable()


async def is_freed_after_await(
    error: type[Exception], call: Callable[[], Coroutine[Any, Any, object]]
) -> bool:
    """See `is_freed_after`. An event loop may have what it has just called for a moment, as may that of a thread."""
    freed, loop = asyncio.Event(), asyncio.get_running_loop()

    async def caller() -> weakref.ref[_Used]:
        used = _Used()
        try:
            await call()
        except error:
            return weakref.ref(used, lambda _: loop.call_soon_threadsafe(freed.set))
        raise AssertionError("the call has raised nothing")

    gc.disable()
    try:
        found = await caller()
        if found() is not None:
            async with asyncio.timeout(PATIENCE_S):
                await freed.wait()
        return found() is None
    except TimeoutError:
        return False
    finally:
        gc.enable()
