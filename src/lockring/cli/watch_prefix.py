"""`lockring watch --prefix`: follows all locks whose names begin alike.

Nodes know watches of single locks. So the locks in use are listed each second, and each is watched from the moment at
which it is found: from then on no event of it is missing, even while it is free. A lock that is acquired and released
between two lists, and not again, is not seen. That is the price for costing grants nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import lockring
import lockring.aio
from lockring.errors import Denied, LockringError, Overloaded, Unavailable

LOOK_S: Final = 1.0
"""Time between two lists."""
WATCHES_MAX: Final = 1_000
"""Locks that are followed at a time. Beyond it a free one, which has been quiet for longest, makes room."""

Print = Callable[[lockring.WatchUpdate], None]


class PrefixWatch:
    """Follows the locks of a prefix.

    Args:
        client: open on the running loop.
        prefix: of the names.
        tell: prints an update.
        timeout_s: how long one list may take.
    """

    def __init__(self, client: lockring.aio.Client, prefix: str, tell: Print, *, timeout_s: float) -> None:
        self._client = client
        self._prefix = prefix
        self._tell = tell
        self._timeout_s = timeout_s
        # By name, those with the newest update last.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._free: dict[str, None] = {}
        self._denied: set[str] = set()
        self._is_full = False

    async def run(self) -> None:
        """Follow until this is cancelled.

        Raises:
            LockringError: the first list fails, or a later one for another reason than an outage.
        """
        is_first = True
        try:
            while True:
                try:
                    found = await self._client.locks(self._prefix, timeout=self._timeout_s)
                except Unavailable:
                    if is_first:
                        raise
                else:
                    for each in found:
                        self._follow(each.name)
                is_first = False
                await asyncio.sleep(LOOK_S)
                self._end_failed()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _follow(self, name: str) -> None:
        if name in self._tasks or name in self._denied:
            return
        if len(self._tasks) >= WATCHES_MAX and not self._make_room():
            if not self._is_full:
                self._is_full = True
                text = f"{WATCHES_MAX} locks in use are followed, and no more: choose a longer prefix"
                print(f"lockring: warning: {text}", file=sys.stderr, flush=True)
            return
        self._tasks[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    def _make_room(self) -> bool:
        for name in self._free:
            del self._free[name]
            self._tasks.pop(name).cancel()
            return True
        return False

    async def _watch(self, name: str) -> None:
        try:
            async for update in self._client.watch(name):
                self._free.pop(name, None)
                if not update.lock.holders and not update.lock.waiters:
                    self._free[name] = None
                self._tell(update)
        except Denied as error:
            if not self._denied:
                print(f"lockring: warning: some locks are left out: {error}", file=sys.stderr, flush=True)
            if len(self._denied) < WATCHES_MAX:
                self._denied.add(name)

    def _end_failed(self) -> None:
        """Forget the watches that are over. One that has failed ends the command, unless it can begin again."""
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                self._free.pop(name, None)
                error = None if task.cancelled() else task.exception()
                if error is not None and not isinstance(error, (Unavailable, Overloaded)):
                    assert isinstance(error, LockringError), error
                    raise error
