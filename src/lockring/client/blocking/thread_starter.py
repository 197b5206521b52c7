"""Threads for work of the client: started outside sections, and again later if the system refuses one."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from lockring.client.blocking.section import Section
from lockring.units import NS_PER_MS

RETRY_NS: Final = 50 * NS_PER_MS
"""How often to try again to start a thread that the system refused."""


class ThreadStarter:
    """Starts threads, and knows which of them another thread may be waiting for.

    Attributes:
        openers: threads that open a connection, and those that another thread is starting and waits for.
        refused: work for threads that the system has refused so far, with each thread's name.
    """

    __slots__ = ("_retry_at_ns", "_rouse", "_section", "openers", "refused")

    def __init__(self, section: Section, rouse: Callable[[], None]) -> None:
        self._section = section
        self._rouse = rouse
        self._retry_at_ns = 0
        self.openers: set[threading.Thread] = set()
        self.refused: deque[tuple[Callable[[], object], str]] = deque()

    def spawn(self, work: Callable[[], object], name: str) -> None:
        """Run `work` in a daemon thread of its own, after the section: now, or once the system has a thread for it."""
        self._section.do_after(functools.partial(self._start, work, name))
        self._section.see_to_chores()

    def try_again(self, now_ns: int) -> None:
        """Have a refused thread started after this section, if it is time."""
        if self.refused and now_ns >= self._retry_at_ns:
            self._retry_at_ns = now_ns + RETRY_NS
            self._section.do_after(functools.partial(self._start, *self.refused.popleft()))

    def must_not_wait(self, thread: int) -> bool:
        """Return whether this thread must not wait: it opens a connection, or another thread waits for its start."""
        return self._section.is_choring() or any(opener.ident == thread for opener in list(self.openers))

    def _start(self, work: Callable[[], object], name: str) -> None:
        openers = self.openers

        def run() -> None:
            openers.discard(thread)
            work()

        thread = threading.Thread(target=run, name=name, daemon=True)
        # The background thread may be starting this one: a finalizer that calls the client here must not wait for it.
        openers.add(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError, OSError):
            openers.discard(thread)
            self.refused.append((work, name))
            self._rouse()
