"""A block may be left by another thread than entered it, and one lock object entered many times at once."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pytest

import lockring
from lockring.errors import AcquireTimeout, LockLost, NotHeld
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer

T = TypeVar("T")


def elsewhere(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(PATIENCE_S)


class Outside:
    """A block that is entered and left by calls, as an object with `start` and `stop` does it."""

    def __init__(self, lock: lockring.Lock) -> None:
        self._lock = lock

    def start(self) -> lockring.Grant:
        return self._lock.__enter__()

    def stop(self) -> None:
        self._lock.__exit__(None, None, None)


@contextlib.contextmanager
def holding(lock: lockring.Lock) -> Iterator[lockring.Grant]:
    with lock as grant:
        yield grant


def stream(lock: lockring.Lock) -> Iterator[lockring.Grant]:
    with lock as grant:
        while True:
            yield grant


class TestLeftElsewhere:
    def test_an_exit_stack_may_be_closed_by_another_thread(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lock = client.lock("x")
        stack = contextlib.ExitStack()
        grant = stack.enter_context(lock)
        elsewhere(stack.close)
        assert server.holders("x") == []
        with pytest.raises(NotHeld):
            grant.check()

    def test_a_context_manager_may_be_entered_and_left_in_a_pool(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        page = client.rwlock("x").read()
        managers = [holding(page) for _ in range(20)]
        grants = dict(enumerate([elsewhere(manager.__enter__) for manager in managers]))
        for place in (*range(0, 20, 2), *range(1, 20, 2)):
            elsewhere(partial(managers[place].__exit__, None, None, None))
            assert not grants.pop(place).held, "a block gives back what it got, not what another one did"
            assert all(grant.held for grant in grants.values())
        assert server.holders("x") == []
        assert len(page._blocks) == 0

    def test_generators_in_one_thread_may_end_in_any_order(self, client: lockring.Client) -> None:
        page = client.rwlock("x").read()
        streams = [stream(page) for _ in range(3)]
        grants = [next(each) for each in streams]
        streams[0].close()  # type: ignore[attr-defined]
        assert [grant.held for grant in grants] == [False, True, True]
        streams[1].close()  # type: ignore[attr-defined]
        assert [grant.held for grant in grants] == [False, False, True]
        streams[2].close()  # type: ignore[attr-defined]

    def test_a_stream_may_be_read_and_closed_by_several_threads(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lines = stream(client.lock("x"))
        grant = elsewhere(lambda: next(lines))
        assert elsewhere(lambda: next(lines)) is grant
        assert grant.held
        elsewhere(lines.close)  # type: ignore[attr-defined]
        assert server.holders("x") == []

    def test_an_abandoned_stream_is_ended_by_the_collector_whatever_thread_that_runs_in(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lines = stream(client.lock("x"))
        grant = next(lines)
        loop: list[Any] = [lines]
        loop.append(loop)  # only the collector gets at it
        del lines, loop
        elsewhere(gc.collect)
        assert not grant.held
        assert server.holders("x") == []

    def test_a_watch_may_be_ended_by_another_thread(self, client: lockring.Client) -> None:
        watching = client.watch("x")
        elsewhere(lambda: next(watching))
        elsewhere(watching.close)  # type: ignore[attr-defined]
        with pytest.raises(StopIteration):
            next(watching)

    def test_a_loss_is_raised_once_where_its_own_block_is_left(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        page = client.rwlock("x").read()
        managers = [holding(page) for _ in range(3)]
        grants = [elsewhere(manager.__enter__) for manager in managers]
        server.lose("x", token=grants[1].fencing_token)
        assert grants[1].lost.wait(PATIENCE_S)
        assert not elsewhere(lambda: managers[0].__exit__(None, None, None))
        with pytest.raises(LockLost):
            elsewhere(lambda: managers[1].__exit__(None, None, None))
        assert not elsewhere(lambda: managers[2].__exit__(None, None, None))
        server.wait_until(lambda: server.holders("x") == [])

    def test_a_loss_is_raised_by_the_close_of_a_generator(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lines = stream(client.lock("x"))
        grant = next(lines)
        server.lose("x")
        assert grant.lost.wait(PATIENCE_S)
        with pytest.raises(LockLost):
            lines.close()  # type: ignore[attr-defined]


class TestLeftByHand:
    def test_each_thread_releases_the_grant_of_its_own_entry(self, client: lockring.Client) -> None:
        outside = Outside(client.rwlock("x").read())
        entered, leave = threading.Barrier(3), threading.Event()
        still_held: list[bool] = []

        def work(does_wait: bool) -> None:
            grant = outside.start()
            entered.wait(PATIENCE_S)
            if does_wait:
                assert leave.wait(PATIENCE_S)
            still_held.append(grant.held)
            outside.stop()
            assert not grant.held
            if not does_wait:
                leave.set()

        with ThreadPoolExecutor(2) as pool:
            works = [pool.submit(work, does_wait) for does_wait in (False, True)]
            entered.wait(PATIENCE_S)
            for each in works:
                each.result(PATIENCE_S)
        assert still_held == [True, True]

    def test_a_lock_whose_block_may_still_run_is_not_released(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lock = client.lock("x")
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        lost = elsewhere(lambda: first.enter_context(lock))
        server.lose("x")
        assert lost.lost.wait(PATIENCE_S)
        grant = elsewhere(lambda: second.enter_context(lock))
        with pytest.raises(LockLost):
            elsewhere(first.close)
        assert grant.held
        elsewhere(second.close)
        assert not grant.held
        assert server.holders("x") == []

    def test_an_exit_stack_does_not_take_the_grant_of_a_with_statement(self, client: lockring.Client) -> None:
        page = client.rwlock("x").read()
        stack = contextlib.ExitStack()
        outer = stack.enter_context(page)
        with page as inner:
            stack.close()
            assert inner.held
            assert not outer.held
        assert not inner.held

    def test_a_grant_in_an_exit_stack_is_released_by_that_stack(self, client: lockring.Client) -> None:
        page = client.rwlock("x").read()
        stacks = [contextlib.ExitStack() for _ in range(3)]
        grants = [stack.enter_context(page.acquire()) for stack in stacks]
        for place in (1, 0, 2):
            elsewhere(stacks[place].close)
            assert not grants[place].held
            assert all(grant.held for grant in grants[2:] if place != 2)

    def test_leaving_a_block_that_was_never_entered_is_an_error(self, client: lockring.Client) -> None:
        outside = Outside(client.lock("x"))
        outside.start()
        outside.stop()
        with pytest.raises(NotHeld, match="never entered, or left before"):
            outside.stop()


class TestWaitingForItself:
    def test_an_acquire_is_not_refused_if_another_thread_will_leave_the_block(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        page = client.rwlock("x")
        stack = contextlib.ExitStack()
        stack.enter_context(page.read())

        def close() -> None:
            server.wait_until(lambda: len(server.holders("x")) == 2)
            stack.close()

        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(close)
            with page.write().acquire(timeout=PATIENCE_S) as grant:
                assert grant.held
            closing.result(PATIENCE_S)

    def test_an_acquire_is_not_refused_for_a_block_of_an_ended_thread_with_the_same_id(
        self, client: lockring.Client
    ) -> None:
        page = client.rwlock("x")
        stack = contextlib.ExitStack()
        numbers: list[int] = []

        def enter() -> None:
            numbers.append(threading.get_ident())
            stack.enter_context(page.read())

        def write() -> None:
            if threading.get_ident() == numbers[0]:
                with pytest.raises(AcquireTimeout):
                    page.write().acquire(timeout=0)
                numbers.append(threading.get_ident())

        elsewhere(enter)
        for _ in range(1000):  # the system gives the number of a thread that ended to one of the next
            elsewhere(write)
            if len(numbers) == 2:
                break
        assert len(numbers) == 2
        stack.close()

    def test_a_certain_deadlock_is_refused_through_calls_and_decorators(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        page = client.rwlock("x")

        def write() -> None:
            with page.write():
                raise AssertionError("not reached")

        @page.read().synchronized
        def read_and_write() -> None:
            write()

        with pytest.raises(lockring.InvalidRequest, match="'x' to read and would wait for itself to write"):
            read_and_write()
        assert server.holders("x") == []
