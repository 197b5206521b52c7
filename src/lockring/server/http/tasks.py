"""The tasks of an event loop, each with the place where it waits, for the search for a server that hangs.

asyncio itself shows the outermost coroutine of a task alone. The place where it waits is at the end of the chain.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final, NamedTuple

TASKS_MAX: Final = 1_000
"""Tasks that are shown."""

FRAMES_MAX: Final = 30
"""Frames of each that are shown."""

_NO_FRAMES: Final = "  no frames: it waits in compiled code\n"

_FRAME: Final = ("cr_frame", "gi_frame", "ag_frame")
_NEXT: Final = ("cr_await", "gi_yieldfrom", "ag_await")


class TaskStack(NamedTuple):
    """A task.

    Attributes:
        name: of the task, and of its coroutine.
        stack: its frames, as a traceback shows them: lines of code, and no values.
    """

    name: str
    stack: str


def task_stacks() -> list[TaskStack]:
    """Return the tasks of the running event loop, by name, up to `TASKS_MAX` of them."""
    found: list[TaskStack] = []
    for task in sorted(asyncio.all_tasks(), key=lambda each: each.get_name())[:TASKS_MAX]:
        coroutine = task.get_coro()
        frames = ((frame, frame.f_lineno) for frame in _frames(coroutine))
        stack = "".join(traceback.StackSummary.extract(frames, limit=FRAMES_MAX).format()) or _NO_FRAMES
        found.append(TaskStack(f"{task.get_name()}: {getattr(coroutine, '__qualname__', '?')}", stack))
    return found


def _frames(awaited: object) -> Iterator[FrameType]:
    """Return the frames of a coroutine and of all that it awaits, the outermost first."""
    while awaited is not None:
        frame = next((getattr(awaited, name) for name in _FRAME if hasattr(awaited, name)), None)
        if not isinstance(frame, FrameType):
            return
        yield frame
        awaited = next((getattr(awaited, name) for name in _NEXT if hasattr(awaited, name)), None)
