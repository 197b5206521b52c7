"""Writes the journal of one life of a node, before anything leaves that depends on it.

- Each turn the core is asked for its batch, which is written; only then are the effects taken. With the durability
  process they may already rest on that batch, so an answer leaves in the same turn as without a journal.
- News for copies leaves before the write, so that they write at the same time.
- With the durability disk, a thread syncs what was written, one sync at a time, and the core hears of it afterwards.
  Batches that are written meanwhile share the next sync.
- A failure loses everything since the last durable batch. From then on a new segment is tried, and once there is one,
  the core writes everything again.
- A log that has grown long is written again too. Where no new segment can be made for that, the present one goes on.
- The clock is read after a write, which may have taken long: rights are checked at the moment of the effects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from lockring.clock import monotonic_ns
from lockring.core.effects import Effect
from lockring.core.node import NodeCore
from lockring.errors import JournalError
from lockring.journal.journal import Journal
from lockring.journal.worker import SyncWorker
from lockring.log_events import event
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 2.0
_CARE_S: Final = 0.005
"""How long after the first batch in a while the batches so far are marked."""

_CARE_AGAIN_S: Final = 0.1
"""The same while batches follow one another: each vouches for those before it. Damage to unmarked ones at the end is
taken for a torn write. A timer every 5 ms cost a lone client some 3 to 6 µs for each lock."""

_COMPACT_AGAIN_S: Final = 10.0
"""How long after a compaction that could not begin the next one is tried."""

_CALM_NS: Final = 10 * NS_PER_S

# Bound once, since each step is felt in the time of a lone grant: compiled code looks an imported name up by its text.
_monotonic_ns: Final = monotonic_ns

log: Final = logging.getLogger("lockring.node")


class JournalWriter:
    """See the module. Lives in one event loop.

    Args:
        core: of the life.
        journal: the files, which this life alone writes.
        waits_for_sync: whether answers wait until their batch is synced.
        wake: makes the event loop take the core's effects soon.
        flush: takes the core's effects at once, which saves the answers that a sync allows a trip around the loop.
        carry_out: carries out the effects that leave before a batch is written. It may bring inputs for the core, but
            must not take its effects: the next batch would be written before this one.
        reopen: opens the journal's directory again for this life, which is under way, after it was deleted.
    """

    def __init__(
        self,
        core: NodeCore,
        journal: Journal,
        *,
        waits_for_sync: bool,
        wake: Callable[[], None],
        flush: Callable[[], object],
        carry_out: Callable[[list[Effect]], None],
        reopen: Callable[[], Journal],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._core = core
        self._journal = journal
        self._waits_for_sync = waits_for_sync
        self._wake = wake
        self._flush = flush
        self._carry_out = carry_out
        self._reopen = reopen
        self._worker = SyncWorker(journal, on_synced=self._synced, on_failed=self._lost)
        self._trouble = RepeatedTrouble(calm_ns=_CALM_NS)
        self._growth = RepeatedTrouble(calm_ns=_CALM_NS)
        self._compact_at_s = self._loop.time()
        self._pause_s = _PAUSE_S_MIN
        self._retry: asyncio.TimerHandle | None = None
        self._is_care_due = False
        self._cared_for = journal.durable_ordinal
        self._is_over = False

    def begin(self) -> None:
        """Make the beginning of this life durable, which must come before it joins. Blocks.

        Raises:
            JournalError: it cannot be written or synced. The text names the directory, and says what to do. `end` then
                leaves the directory as after a crash.
        """
        batch = self._core.take_journal(now_ns=monotonic_ns())
        assert batch is not None, "a life begins its journal with its own beginning"
        self._journal.append(batch)
        point = self._journal.sync_point()
        assert point is not None, "a batch that was just written is not synced yet"
        try:
            self._journal.perform(point)
        except (OSError, JournalError) as error:
            raise JournalError(self._journal.fail(error)) from error
        self._journal.complete(point)
        self._core.journaled(batch.number, now_ns=monotonic_ns())

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """Write what is due, and return the core's effects by a clock that is read after the write.

        Args:
            now_ns: the clock at which this turn's input came, or a later one, by which it is judged what is due.
        """
        core = self._core
        batch = core.take_journal(now_ns=now_ns)
        if batch is None:
            return core.take_effects(now_ns=_monotonic_ns())
        ahead = core.take_ahead(now_ns=now_ns)
        if ahead:
            self._carry_out(ahead)
        # In line, since each call is felt in the time of a lone grant.
        try:
            self._journal.append(batch)
        except JournalError as error:
            self._lost(str(error))
            return core.take_effects(now_ns=_monotonic_ns())
        now_ns = _monotonic_ns()
        if self._waits_for_sync:
            self._worker.request(is_urgent=batch.is_urgent)
        else:
            core.journaled(batch.number, now_ns=now_ns)
            if self._trouble.is_on:
                self._look_at_trouble(now_ns)
            if batch.ends_rewrite:
                self._worker.request()  # only then are the old segments deleted
        if not self._is_care_due:
            self._care_soon()
        return core.take_effects(now_ns=now_ns)

    def end(self) -> None:
        """Write and sync what is left, and leave the directory to others. Blocks."""
        self._is_over = True
        self._worker.finish()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        elif not self._journal.has_failed:  # it has where this life could not begin
            self._write_rest()
        self._journal.close()

    # ----------------------------------------------------------------------- inner

    def _care_soon(self) -> None:
        self._is_care_due = True
        self._loop.call_later(_CARE_S, self._care)

    def _care(self) -> None:
        """Do now and then what would be felt if it were done with each batch."""
        self._is_care_due = False
        if self._is_over:
            return
        journal = self._journal
        try:
            journal.mark()
        except JournalError as error:
            self._lost(str(error))
            return
        self._worker.renew_soon()
        if journal.is_due_for_rewrite and self._loop.time() >= self._compact_at_s:
            self._compact()
        if journal.durable_ordinal != self._cared_for:
            self._cared_for = journal.durable_ordinal
            self._is_care_due = True
            self._loop.call_later(_CARE_AGAIN_S, self._care)

    def _compact(self) -> None:
        """Have everything written again, into a new segment. As long as none can be made, the present one works."""
        try:
            self._journal.check()
        except JournalError as error:
            self._lost(str(error))
            return
        try:
            self._journal.begin_rewrite()
        except JournalError as error:
            self._compact_at_s = self._loop.time() + _COMPACT_AGAIN_S
            told = self._growth.fails(
                f"a new file of {error}; the present one goes on, and grows until then", now_ns=monotonic_ns()
            )
            if told:
                log.warning("%s", told, extra=event("journal-not-compacted"))
            return
        self._growth.ends(now_ns=monotonic_ns())
        self._rewrite()

    def _look_at_trouble(self, now_ns: int) -> None:
        if not self._core.journal_trouble:
            self._pause_s = _PAUSE_S_MIN
            so_far = self._trouble.ends(now_ns=now_ns)
            if so_far:
                log.info(
                    "the journal works again: everything that is held was written again (%s)",
                    so_far,
                    extra=event("journal-works-again"),
                )

    def _synced(self, number: int) -> None:
        if self._waits_for_sync:
            now_ns = monotonic_ns()
            self._core.journaled(number, now_ns=now_ns)
            if self._trouble.is_on:
                self._look_at_trouble(now_ns)
            if not self._is_care_due:
                self._care_soon()
            self._flush()

    def _lost(self, reason: str) -> None:
        """Let the core know that only what was durable before is in the journal, and try to begin again later."""
        now_ns = monotonic_ns()
        self._core.journal_lost(reason, now_ns=now_ns)
        told = self._trouble.fails(
            f"{reason}; locks that are held stay held, and new ones wait until it can be written again",
            now_ns=now_ns,
        )
        if told:
            log.error("%s", told, extra=event("journal-failed"))
        if self._retry is None:
            self._retry = self._loop.call_later(self._pause_s, self._try_again)
            self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        self._wake()

    def _try_again(self) -> None:
        self._retry = None
        try:
            if self._journal.is_deleted() and self._worker.is_idle:
                self._make_again()
        except JournalError as error:
            self._lost(str(error))
            return
        self._begin_rewrite()

    def _make_again(self) -> None:
        """Make a deleted directory again, under a lock of its own: another process may have done so before.

        Nothing that was deleted comes back, so the new directory cannot be mistaken for an older one. A directory that
        was only moved or unmounted may come back, without what would be granted meanwhile. So its place stays empty.
        """
        journal = self._reopen()
        try:
            self._worker.finish()
            self._journal.close(in_order=False)
        except BaseException:
            journal.close(in_order=False)  # no other process could have the directory
            raise
        self._journal = journal
        self._worker = SyncWorker(journal, on_synced=self._synced, on_failed=self._lost)

    def _begin_rewrite(self) -> None:
        try:
            self._journal.begin_rewrite()
        except JournalError as error:
            self._lost(str(error))
            return
        self._rewrite()

    def _rewrite(self) -> None:
        self._core.rewrite(now_ns=monotonic_ns())
        self._wake()

    def _write_rest(self) -> None:
        """Write the last turn's changes: a release that is not in the journal would come back as a held lock."""
        try:
            while (batch := self._core.take_journal(now_ns=monotonic_ns(), is_end=True)) is not None:
                self._journal.append(batch)
        except JournalError as error:
            log.error("%s, so the last changes are not in it", error, extra=event("journal-failed"))
