"""Locks of the blocking client with the interface of `threading.Lock`."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

import lockring
from lockring.errors import (
    LockLost,
)
from tests.processes import PATIENCE_S
from tests.unit.client.blocking.threads import in_thread
from tests.unit.client.lock_server import LockServer


class TestThreadingLock:
    def test_a_threading_lock_behaves_like_one_of_the_standard_library(self, client: lockring.Client) -> None:
        lock = client.as_threading_lock("x")
        assert not lock.locked()
        assert lock.acquire()
        assert lock.locked()
        assert lock.grant is not None
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.05)
        in_thread(lock.release).join(PATIENCE_S)
        assert not lock.locked()
        with lock as entered:
            assert entered is True
        with pytest.raises(RuntimeError):
            lock.release()
        with pytest.raises(ValueError, match="timeout"):
            lock.acquire(blocking=False, timeout=1)

    def test_a_threading_lock_accepts_the_arguments_of_the_standard_library(
        self, client: lockring.Client
    ) -> None:
        ours, real = client.as_threading_lock("x"), threading.Lock()
        accepted: list[Any] = [
            (),
            (1,),
            (0,),
            (True, -1),
            (True, threading.TIMEOUT_MAX),
            (True, threading.TIMEOUT_MAX / 2),
            (True, 0),
            (False, -1),
        ]
        for arguments in accepted:
            assert ours.acquire(*arguments) is real.acquire(*arguments) is True
            assert ours.locked() is real.locked() is True
            ours.release()
            real.release()
        assert ours.acquire(timeout=threading.TIMEOUT_MAX)
        ours.release()

    @pytest.mark.parametrize(
        "arguments",
        [
            (False, 1),
            (False, 0),
            (True, -2),
            (True, -0.5),
            (True, math.nan),
            (True, math.inf),
            (True, threading.TIMEOUT_MAX * 2),
            (True, None),
            (True, "1"),
        ],
    )
    def test_a_threading_lock_refuses_the_arguments_that_the_standard_library_refuses(
        self, client: lockring.Client, arguments: Any
    ) -> None:
        with pytest.raises(Exception) as theirs:
            threading.Lock().acquire(*arguments)
        with pytest.raises(type(theirs.value)):
            client.as_threading_lock("x").acquire(*arguments)

    def test_a_threading_lock_can_be_the_lock_of_a_condition(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lock = client.as_threading_lock("x")
        news = threading.Condition(lock)  # type: ignore[arg-type]
        told: list[int] = []

        def tell() -> None:
            with news:
                told.append(1)
                news.notify()

        with news:
            telling = in_thread(tell)
            assert news.wait_for(lambda: told, PATIENCE_S)
            assert lock.locked()
        telling.join(PATIENCE_S)
        assert not lock.locked()
        assert server.holders("x") == []

    def test_a_lost_grant_of_one_thread_is_not_confused_with_the_grant_of_another(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lock = client.as_threading_lock("x")
        lock.acquire()
        assert lock.grant is not None
        lost = lock.grant.lost
        server.lose("x")
        assert lost.wait(PATIENCE_S)
        got, may_end = threading.Event(), threading.Event()

        def work() -> None:
            with lock:
                got.set()
                assert may_end.wait(PATIENCE_S)

        thread = in_thread(work)
        assert got.wait(PATIENCE_S)
        with pytest.raises(LockLost):
            lock.release()
        assert lock.locked()
        assert len(server.holders("x")) == 1
        may_end.set()
        thread.join(PATIENCE_S)
        assert server.holders("x") == []

    def test_releasing_a_threading_lock_after_a_loss_raises(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        lock = client.as_threading_lock("x")
        lock.acquire()
        assert lock.grant is not None
        lost = lock.grant.lost
        server.lose("x")
        assert lost.wait(PATIENCE_S)
        assert not lock.locked()
        with pytest.raises(LockLost):
            lock.release()
