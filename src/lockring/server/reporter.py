"""Turns new cluster states into log lines: a quarter of a second's news at a time, since moves come in many steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from lockring.cluster_state import ClusterState
from lockring.server.state_diff import StateNews

_WINDOW_S: Final = 0.25


class StateReporter:
    """Logs what changes. Lives in one event loop.

    Args:
        log: where to.
        me: see `StateNews`.
        summary: what to say of the state as a whole after its changes; said only where it differs from the last time.
        absent: see `StateNews`.
    """

    def __init__(
        self,
        log: logging.Logger,
        me: str | None,
        summary: Callable[[ClusterState], str],
        absent: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._log = log
        self._news = StateNews(me, absent)
        self._summary = summary
        self._told_summary = ""
        self._newest = ClusterState()
        self._timer: asyncio.TimerHandle | None = None

    def report(self, state: ClusterState) -> None:
        """Take note of a new state."""
        self._news.note(self._newest, state)
        self._newest = state
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WINDOW_S, self.flush)

    def flush(self) -> None:
        """Log what has not been yet."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        for line in self._news.take_lines():
            self._log.info("%s", line)
        self.summarize()

    def summarize(self) -> None:
        """Log the summary if it has changed: also where the state has not, but what is known beside it has."""
        if self._timer is not None or not self._newest.version:
            return  # with the news that are to come
        summary = self._summary(self._newest)
        if summary != self._told_summary:
            self._told_summary = summary
            self._log.info("%s", summary)
