"""The thread for work that blocks: outcomes in the loop, errors, and the end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import pytest

from lockring.journal.helper_thread import HelperThread


class Bench:
    """A helper thread, and what it has reported."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []
        self.places: list[str] = []
        self._news = asyncio.Event()
        self.thread = HelperThread("helper", self._ended)

    def _ended(self, error: BaseException | None) -> None:
        self.places.append(threading.current_thread().name)
        self.errors.append(error)
        self._news.set()

    def work(self) -> None:
        """Note in which thread this runs."""
        self.places.append(threading.current_thread().name)

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
            bench.thread.finish()
        return bench

    return asyncio.run(main())


def test_work_is_done_in_the_thread_and_reported_in_the_loop_once_each_time() -> None:
    async def story(bench: Bench) -> None:
        for _ in range(3):
            assert not bench.thread.is_busy
            bench.thread.begin(bench.work)
            assert bench.thread.is_busy
            await bench.news()

    bench = run(story)
    assert bench.places == ["helper", "MainThread"] * 3
    assert bench.errors == [None] * 3


def test_an_error_is_reported_and_the_thread_goes_on() -> None:
    error = OSError("the disk is gone")

    def fail() -> None:
        raise error

    async def story(bench: Bench) -> None:
        bench.thread.begin(fail)
        await bench.news()
        bench.thread.begin(bench.work)
        await bench.news()

    assert run(story).errors == [error, None]


def test_the_end_waits_for_the_work_and_reports_it_once() -> None:
    may_go_on = threading.Event()

    async def story(bench: Bench) -> None:
        bench.thread.begin(may_go_on.wait)
        threading.Timer(0.05, may_go_on.set).start()
        bench.thread.finish()
        assert bench.errors == [None]
        bench.thread.finish()
        with pytest.raises(AssertionError, match="until the end"):
            bench.thread.begin(bench.work)

    assert run(story).errors == [None]


def test_the_end_of_work_that_the_loop_has_not_yet_taken_in_is_reported_once() -> None:
    async def story(bench: Bench) -> None:
        is_done = threading.Event()
        bench.thread.begin(is_done.set)
        is_done.wait(30)
        bench.thread.finish()
        await asyncio.sleep(0)

    assert run(story).errors == [None]


def test_nothing_is_left_behind() -> None:
    async def story(bench: Bench) -> None:
        bench.thread.begin(bench.work)
        await bench.news()

    run(story)
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(10):
        run(story)
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
