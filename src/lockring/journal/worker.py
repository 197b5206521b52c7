"""The thread that syncs a journal, as seen from an event loop.

- *Group commit.* One sync at a time. It covers everything that was appended before its start, and the batches that come
  meanwhile share the next one. So a slow disk makes larger groups rather than a queue.
- *The next sync begins before the outcome of the last one is reported*, so the disk works while answers leave.
- *A batch for which nothing waits* is synced with the next urgent one, or after a short while.
- *The directory is watched.* Once a second, the thread looks whether the journal's files are still in their place, and
  renews the position file. If syncs follow one another, it does so between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lockring.errors import JournalError
from lockring.journal.helper_thread import HelperThread
from lockring.journal.journal import Journal
from lockring.journal.sync_point import SyncPoint

PATIENCE_S: Final = 0.05
"""How long a batch for which nothing waits may stay unsynced."""

CHECK_EVERY_S: Final = 1.0
"""How often the directory is looked at. A sync that is under way then ends first."""


class SyncWorker:
    """Syncs a journal in a thread of its own. To be used in one event loop.

    Args:
        journal: the journal. Its `sync_point`, `perform`, `complete` and `fail` are called here and nowhere else.
        on_synced: called in the event loop after a sync, with the number of the last batch that it covered. Not for
            batches that were appended before a failure.
        on_failed: called in the event loop when a sync failed or the directory is gone, with the reason for people.
            Nothing can be appended until `Journal.begin_rewrite`.
    """

    def __init__(
        self, journal: Journal, *, on_synced: Callable[[int], None], on_failed: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._helper = HelperThread("lockring-journal", self._ended)
        self._point: SyncPoint | None = None
        self._is_wanted = False
        self._is_finished = False
        self._later: asyncio.TimerHandle | None = None
        self._watch = self._loop.call_later(CHECK_EVERY_S, self._watch_directory)
        self._checked_s = self._loop.time()

    def request(self, *, is_urgent: bool = True) -> None:
        """Have everything synced that was appended so far.

        Args:
            is_urgent: whether something waits for it. If not, the sync may begin up to `PATIENCE_S` later.
        """
        if self._is_finished:
            return
        if not is_urgent:
            if self._later is None and not self._is_wanted:
                self._later = self._loop.call_later(PATIENCE_S, self.request)
            return
        self._is_wanted = True
        if not self._helper.is_busy:
            self._begin()

    @property
    def is_idle(self) -> bool:
        """Whether no sync is under way."""
        return not self._helper.is_busy

    def renew_soon(self) -> None:
        """Have the position file renewed at once after the first mark in a while, else within `CHECK_EVERY_S`.

        So a copy that was made of an idle journal can be recognized as soon as the journal is written again.
        """
        if not self._is_finished and self._is_check_due(CHECK_EVERY_S / 2):
            self._begin_check()

    def finish(self) -> None:
        """Wait for the sync that is under way, take in its outcome, and end the thread. Blocks.

        The journal stays open. No callback comes any more.
        """
        self._is_finished = True
        self._watch.cancel()
        if self._later is not None:
            self._later.cancel()
        self._helper.finish()

    def _begin(self) -> None:
        self._is_wanted = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        point = self._journal.sync_point()
        if point is not None:
            self._run(lambda: self._journal.perform(point), point)

    def _watch_directory(self) -> None:
        self._watch = self._loop.call_later(CHECK_EVERY_S, self._watch_directory)
        if self._is_check_due(0):
            self._begin_check()

    def _is_check_due(self, after_s: float) -> bool:
        """Whether the directory can be looked at now, if the last look is so long ago."""
        return (
            self.is_idle and not self._journal.has_failed and self._loop.time() - self._checked_s >= after_s
        )

    def _begin_check(self) -> None:
        self._checked_s = self._loop.time()
        self._run(self._check, None)

    def _check(self) -> None:
        self._journal.check()
        self._journal.renew_position()

    def _run(self, work: Callable[[], None], point: SyncPoint | None) -> None:
        self._point = point
        self._helper.begin(work)

    def _ended(self, error: BaseException | None) -> None:
        point = self._point
        if error is not None:
            self._failed(error)
            self._sync_if_wanted()
        elif point is None:
            self._sync_if_wanted()
        else:
            counts = self._journal.complete(point)
            # Here, since syncs may never pause. Not after a look, which may take longer than the time between two.
            if not self._is_finished and self._is_check_due(CHECK_EVERY_S):
                self._begin_check()
            self._sync_if_wanted()
            if counts and not self._is_finished:
                self._on_synced(point.number)
        if point is not None:
            self.renew_soon()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, (OSError, JournalError)):
            raise error
        reason = self._journal.fail(error)
        if not self._is_finished:
            self._on_failed(reason)

    def _sync_if_wanted(self) -> None:
        """Begin the next sync, unless the thread is busy; then it follows."""
        if self._is_wanted and self.is_idle and not self._is_finished:
            self._begin()
