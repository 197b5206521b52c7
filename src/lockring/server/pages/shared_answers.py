"""Answers that several viewers with the same rights get at the same time: the servers are asked once for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_S

KEPT_NS: Final = NS_PER_S
"""How old an answer may be."""
ANSWERS_MAX: Final = 256

T = TypeVar("T")


class SharedAnswers:
    """Answers by question, for a moment. Lives in one event loop."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, tuple[int, asyncio.Task[Any]]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a question, asked now or a moment ago.

        Args:
            key: the question, and whose it is.
            ask: asks it.
        """
        now_ns = monotonic_ns()
        for old in [old for old, (at_ns, _) in self._answers.items() if now_ns - at_ns >= KEPT_NS]:
            del self._answers[old]
        found = self._answers.get(key)
        if found is None:

            async def answer() -> T:
                return await ask()

            task = asyncio.get_running_loop().create_task(answer())
            if len(self._answers) < ANSWERS_MAX:
                self._answers[key] = now_ns, task
        else:
            task = found[1]
        # One viewer that leaves ends the question for no other one.
        try:
            return await asyncio.shield(task)
        except BaseException:
            if not task.done():
                task.add_done_callback(_ignore)
            raise

    def forget(self) -> None:
        """Let the next questions be asked again, after an order."""
        self._answers.clear()


def _ignore(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
