"""The thread that syncs: one sync at a time, groups, outcomes in the loop, and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from lockring.errors import JournalError
from lockring.journal import worker as worker_module
from lockring.journal.journal import Journal
from lockring.journal.sync_point import SyncPoint
from lockring.journal.worker import SyncWorker
from tests.unit.journal.batches import NODE, batch
from tests.unit.journal.faulty_disk import FaultyDisk

pytestmark = pytest.mark.interpreted  # the tests slow the journal's methods down


class Bench:
    """A journal on a disk whose syncs wait until they are let through, and the worker's reports."""

    def __init__(self) -> None:
        self.disk = FaultyDisk(Random(1))
        self.journal = Journal(self.disk.files(), node=NODE, durability="disk", host=self.disk.host)
        self.is_slow = False
        self.threads: list[str] = []
        self.covered: list[int] = []
        self.synced: list[int] = []
        self.idle_at_report: list[bool] = []
        self.failures: list[str] = []
        self._begun = threading.Semaphore(0)
        self._may_go_on = threading.Semaphore(0)
        self._news = asyncio.Event()
        perform = self.journal.perform

        def slow(point: SyncPoint) -> None:
            self.threads.append(threading.current_thread().name)
            self.covered.append(point.number)
            self._begun.release()
            if self.is_slow:
                self._may_go_on.acquire()
            perform(point)

        self.journal.perform = slow  # type: ignore[method-assign]
        self.worker = SyncWorker(self.journal, on_synced=self._note_sync, on_failed=self._note_failure)

    def _note_sync(self, number: int) -> None:
        self.idle_at_report.append(self.worker.is_idle)
        self.synced.append(number)
        self._news.set()

    def _note_failure(self, reason: str) -> None:
        self.failures.append(reason)
        self._news.set()

    async def begun(self) -> None:
        """Wait until one more sync is under way."""
        await asyncio.get_running_loop().run_in_executor(None, self._begun.acquire)

    def let_through(self) -> None:
        self._may_go_on.release()

    async def news(self) -> None:
        """Wait for one more report."""
        await asyncio.wait_for(self._news.wait(), 30)
        self._news.clear()


def run(story: Callable[[Bench], Awaitable[None]]) -> Bench:
    async def main() -> Bench:
        bench = Bench()
        try:
            await story(bench)
        finally:
            bench.is_slow = False
            for _ in range(9):
                bench.let_through()
            bench.worker.finish()
        await asyncio.sleep(0)
        return bench

    return asyncio.run(main())


def test_a_sync_runs_in_its_own_thread_and_reports_in_the_loop() -> None:
    async def story(bench: Bench) -> None:
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.news()

    bench = run(story)
    assert bench.synced == [1]
    assert bench.threads[0].startswith("lockring-journal")


def test_batches_that_come_during_a_sync_share_the_next_one() -> None:
    async def story(bench: Bench) -> None:
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.begun()
        for number in (2, 3, 4):
            bench.journal.append(batch(number))
            bench.worker.request()
        bench.let_through()
        await bench.news()
        assert bench.synced == [1], "what came during a sync may not be covered by it"
        bench.let_through()
        await bench.news()

    bench = run(story)
    assert bench.synced == [1, 4]
    assert bench.covered == [1, 4], "one sync at a time, and one for the group"


def test_a_request_for_what_is_durable_already_asks_nothing_of_the_disk() -> None:
    async def story(bench: Bench) -> None:
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.news()
        bench.worker.request()
        bench.worker.request(is_urgent=False)

    assert run(story).covered == [1]


def test_a_batch_for_which_nothing_waits_is_synced_with_the_next_urgent_one() -> None:
    async def story(bench: Bench) -> None:
        bench.journal.append(batch(1))
        bench.worker.request(is_urgent=False)
        bench.journal.append(batch(2))
        bench.worker.request()
        await bench.news()

    assert run(story).covered == [2]


def test_a_batch_for_which_nothing_waits_is_synced_by_itself_after_a_while() -> None:
    async def story(bench: Bench) -> None:
        bench.journal.append(batch(1))
        bench.worker.request(is_urgent=False)
        bench.worker.request(is_urgent=False)
        assert bench.covered == []
        await bench.news()

    bench = run(story)
    assert bench.synced == bench.covered == [1]


def test_a_failed_sync_is_reported_once_and_nothing_is_appended_until_a_rewrite() -> None:
    async def story(bench: Bench) -> None:
        bench.disk.fails_syncs = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.news()
        assert bench.synced == []
        assert bench.failures == [
            "the journal in /data/journal cannot be written: input/output error; name another directory with --data-dir"
        ]
        with pytest.raises(JournalError, match="input/output error"):
            bench.journal.append(batch(2))
        bench.worker.request()
        bench.disk.fails_syncs = False
        bench.journal.begin_rewrite()
        bench.journal.append(batch(3, 1, 2, 3, ends_rewrite=True))
        bench.worker.request()
        await bench.news()

    bench = run(story)
    assert bench.synced == [3]
    assert len(bench.failures) == 1


def test_a_sync_that_ends_after_a_failed_write_vouches_for_nothing() -> None:
    """The core knows everything since its last acknowledgement as lost, and writes it again."""

    async def story(bench: Bench) -> None:
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.begun()
        bench.disk.fails_writes = True
        with pytest.raises(JournalError):
            bench.journal.append(batch(2))
        bench.disk.fails_writes = False
        bench.journal.begin_rewrite()
        bench.journal.append(batch(3, 1, 2, 3))
        bench.worker.request()
        bench.let_through()
        bench.let_through()
        await bench.news()

    assert run(story).synced == [3]


def test_a_directory_that_was_deleted_is_noticed_by_the_next_sync() -> None:
    async def story(bench: Bench) -> None:
        bench.disk.lose_directory()
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.news()

    bench = run(story)
    assert bench.synced == []
    assert len(bench.failures) == 1


def test_a_directory_that_was_replaced_is_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 0.001)

    async def story(bench: Bench) -> None:
        bench.disk.lose_directory()
        await bench.news()

    bench = run(story)
    (failure,) = bench.failures
    assert failure == (
        "the journal's directory /data/journal was deleted or replaced while it was in use; a deleted one is made"
        " again at once, otherwise put it back, or start the node again"
    )


def test_the_next_sync_is_under_way_before_the_outcome_of_the_last_one_is_reported() -> None:
    async def story(bench: Bench) -> None:
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.begun()
        bench.journal.append(batch(2))
        bench.worker.request()
        bench.let_through()
        await bench.news()
        assert bench.idle_at_report == [False]
        bench.let_through()
        await bench.news()

    assert run(story).idle_at_report == [False, True]


def test_the_end_waits_for_the_sync_that_is_under_way_and_reports_nothing_more() -> None:
    async def story(bench: Bench) -> None:
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.begun()
        bench.journal.append(batch(2))
        bench.worker.request()

    bench = run(story)
    assert bench.covered == [1]
    assert bench.synced == []
    assert bench.journal.durable_ordinal == 1
    bench.worker.request()
    assert bench.covered == [1], "a worker that has ended does nothing"


def test_a_sync_that_fails_at_the_end_leaves_no_journal_that_claims_to_be_closed_in_order() -> None:
    async def story(bench: Bench) -> None:
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        await bench.begun()
        bench.disk.fails_syncs = True

    bench = run(story)
    bench.disk.fails_syncs = False
    assert bench.journal.has_failed
    bench.journal.close()
    bench.disk.lose_power(in_order=True)
    again = Journal(bench.disk.files(), node=NODE, durability="disk", host=bench.disk.host)
    assert again.found.is_complete, "nothing was answered for"


@pytest.mark.parametrize("fails", [False, True])
def test_a_directory_is_looked_at_between_syncs_that_follow_one_another(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """A busy node has a batch waiting at the end of each sync, so that none of them finds the thread idle."""
    checked_after: list[int] = []
    renew = Journal.renew_position

    async def story(bench: Bench) -> None:
        def renewed(self: Journal) -> None:
            checked_after.append(len(bench.covered))
            renew(self)

        monkeypatch.setattr(Journal, "renew_position", renewed)
        monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 1e-6)
        bench.worker._watch.cancel()  # whose turn would come only by chance
        bench.is_slow = True
        bench.journal.append(batch(1))
        bench.worker.request()
        for number in (2, 3, 4):
            await bench.begun()
            bench.journal.append(batch(number))
            bench.worker.request()
            bench.let_through()
        await bench.begun()
        if fails:
            bench.disk.lose_directory()
        bench.journal.append(batch(5))
        bench.worker.request()
        bench.let_through()
        while not bench.failures and 4 not in bench.synced:
            await bench.news()

    bench = run(story)
    assert checked_after[:3] == [1, 2, 3], "the position file is renewed before the next sync"
    assert bool(bench.failures) == fails
