"""Waits of the blocking client: for holders and answers, in many threads, until they are cancelled or interrupted."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import lockring
from lockring.errors import (
    AcquireTimeout,
    Unavailable,
)
from lockring.protocol import Keepalive, Release
from tests.processes import PATIENCE_S
from tests.unit.client.blocking.threads import in_thread, signal_once
from tests.unit.client.lock_server import LockServer


class TestWaiting:
    def test_try_acquire_of_a_held_lock_returns_none(
        self, client: lockring.Client, other: lockring.Client
    ) -> None:
        with client.lock("x"):
            assert other.lock("x").try_acquire() is None
        grant = other.lock("x").try_acquire()
        assert grant is not None
        grant.release()

    def test_a_bounded_wait_ends_and_leaves_nothing_behind(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        other.lock("y").acquire().release()  # connected: the wait is for the lock alone
        with client.lock("x"):
            began = time.monotonic()
            with pytest.raises(AcquireTimeout):
                other.lock("x").acquire(timeout=1.2)
            assert 1.1 < time.monotonic() - began < PATIENCE_S
            server.wait_until(lambda: len(server.holders("x")) == 1)

    def test_a_waiter_is_served_when_the_holder_lets_go(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        served = threading.Event()

        def wait() -> None:
            with other.lock("x"):
                served.set()

        thread = in_thread(wait)
        server.wait_until(lambda: len(server.holders("x")) == 2)
        assert not served.is_set()
        grant.release()
        assert served.wait(PATIENCE_S)
        thread.join(PATIENCE_S)

    def test_many_threads_wait_on_one_client_at_once(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        """One thread reads the socket for all. Once it is served it leaves, and the next thread reads."""
        first = client.lock("x").acquire()
        order: list[int] = []

        def wait() -> None:
            with client.lock("x") as grant:
                order.append(grant.fencing_token)

        threads = [in_thread(wait) for _ in range(20)]
        server.wait_until(lambda: len(server.holders("x")) == 21)
        with client.lock("another"):
            first.release()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(order) == 20
        assert server.holders("x") == []

    def test_other_threads_go_on_while_one_waits(self, client: lockring.Client, server: LockServer) -> None:
        first = client.lock("x").acquire()
        thread = in_thread(lambda: client.lock("x").acquire().release())
        server.wait_until(lambda: len(server.holders("x")) == 2)
        for _ in range(50):
            client.lock("y").acquire().release()
        first.release()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()

    def test_a_waiter_waits_on_over_a_broken_connection(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        first = client.lock("x").acquire()
        got: list[lockring.Grant] = []
        thread = in_thread(lambda: got.append(client.lock("x").acquire()))
        server.wait_until(lambda: len(server.holders("x")) == 2)
        server.cut()
        server.wait_until(lambda: server.greeted == 2)
        server.wait_until(lambda: len(server.holders("x")) == 2)
        assert first.held
        first.release()
        thread.join(PATIENCE_S)
        assert got[0].held
        got[0].release()

    def test_a_server_that_falls_silent_while_a_caller_reads_is_left_for_a_new_connection(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x", ttl=1.5).acquire()
        server.mute = {Release, Keepalive}
        releasing = in_thread(grant.release)
        server.wait_until(lambda: server.count(Release) == 1)
        server.mute = set()
        server.wait_until(lambda: server.greeted == 2)
        server.wait_until(lambda: server.holders("x") == [])
        releasing.join(PATIENCE_S)
        assert not releasing.is_alive()

    def test_threads_queued_behind_a_reader_go_on_when_its_connection_breaks(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        first = client.lock("x").acquire()
        threads = [in_thread(lambda: client.lock("x").acquire().release()) for _ in range(5)]
        server.wait_until(lambda: len(server.holders("x")) == 6)
        server.cut()
        server.wait_until(lambda: server.greeted == 2 and len(server.holders("x")) == 6)
        first.release()
        for thread in threads:
            thread.join(PATIENCE_S)
        server.wait_until(lambda: server.holders("x") == [])

    def test_an_interrupt_during_the_wait_leaves_nothing_behind(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        with other.lock("x"):
            queued = signal_once(client, server, lambda: len(server.holders("x")) == 2)
            with pytest.raises(KeyboardInterrupt):
                client.lock("x").acquire()
            queued.join(PATIENCE_S)
            server.wait_until(lambda: len(server.holders("x")) == 1)
        with client.lock("x") as grant:
            assert grant.held

    def test_an_interrupt_of_a_call_that_does_not_read_leaves_nothing_behind(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        blocker = other.lock("x").acquire()
        reader = in_thread(lambda: client.lock("x").acquire().release())
        server.wait_until(lambda: len(server.holders("x")) == 2)
        queued = signal_once(client, server, lambda: len(server.holders("x")) == 3)
        with pytest.raises(KeyboardInterrupt):
            client.lock("x").acquire()
        queued.join(PATIENCE_S)
        server.wait_until(lambda: len(server.holders("x")) == 2)
        blocker.release()
        reader.join(PATIENCE_S)
        server.wait_until(lambda: server.holders("x") == [])

    @pytest.mark.interpreted
    def test_an_interrupt_in_the_middle_of_a_section_costs_the_held_locks_but_leaves_nothing_behind(
        self, client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler may raise between any two lines. What was half done is not trusted: the client starts over."""
        grant = client.lock("x").acquire()
        waiting: list[BaseException] = []

        def wait() -> None:
            with pytest.raises(Unavailable, match="interrupt") as caught:
                client.lock("x").acquire()
            waiting.append(caught.value)

        waiter = in_thread(wait)
        server.wait_until(lambda: len(server.holders("x")) == 2)
        original = client._driver._host.core.acquire

        def torn(*args: Any, **options: Any) -> None:
            original(*args, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(client._driver._host.core, "acquire", torn)
        with pytest.raises(KeyboardInterrupt):
            client.lock("y").acquire()
        with client.lock("y").acquire(timeout=10) as again:
            assert again.held
            assert again.session != grant.session
        assert grant.lost.is_set()
        waiter.join(PATIENCE_S)
        assert waiting
        server.wait_until(lambda: server.holders("x") == [] == server.holders("y"))

    def test_an_interrupted_release_goes_on_by_itself(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        server.mute = {Release}
        queued = signal_once(client, server, lambda: server.count(Release) == 1)
        with pytest.raises(KeyboardInterrupt):
            grant.release()
        queued.join(PATIENCE_S)
        assert not grant.held
        server.mute = set()
        server.cut()
        server.wait_until(lambda: server.holders("x") == [])
