"""Turns new cluster states into log lines, a quarter of a second's changes at a time: moves come in many steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from lockring.cluster_state import ClusterState
from lockring.log_events import event
from lockring.server.state_diff import StateNews

_WINDOW_S: Final = 0.25


class StateReporter:
    """Logs the changes of the cluster state. Lives in one event loop.

    Args:
        log: the logger to write to.
        me: see `StateNews`.
        summary: describes the state as a whole after its changes; logged only if it differs from the last one.
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
        """Collect the changes of a new state."""
        self._news.note(self._newest, state)
        self._newest = state
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WINDOW_S, self.flush)

    def flush(self) -> None:
        """Log what has been collected."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        for line in self._news.take_lines():
            self._log.info("%s", line, extra=event("cluster-changed"))
        self.summarize()

    def summarize(self) -> None:
        """Log the summary if it has changed, which may be so although the state has not."""
        if self._timer is not None or not self._newest.version:
            return  # it follows with the pending changes
        summary = self._summary(self._newest)
        if summary != self._told_summary:
            self._told_summary = summary
            self._log.info("%s", summary, extra=event("cluster-summary"))
