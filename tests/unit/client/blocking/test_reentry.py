"""Signal handlers and finalizers that call the blocking client in a thread that is inside of it: nothing hangs."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

import lockring
from lockring.client.blocking import calls
from lockring.client.blocking.calls import Call, Calls, Feed
from lockring.client.blocking.section import Section
from lockring.errors import AcquireTimeout, ClientClosed, ReentrantCall
from tests.processes import PATIENCE_S
from tests.unit.client.blocking.test_client import in_thread, signal_once
from tests.unit.client.lock_server import LockServer

CALLS = 2_000


def is_none(call: Callable[[], None]) -> bool:
    """Make a call that returns nothing."""
    call()
    return True


@contextmanager
def handler(work: Callable[[], object]) -> Iterator[list[object]]:
    """Have a signal do some work in the main thread; gives what came of it."""
    came: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(work()))
    try:
        yield came
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def other(server: LockServer) -> Iterator[lockring.Client]:
    with lockring.Client(server.address, owner="other") as client:
        yield client


@pytest.mark.parametrize("queued", [False, True], ids=["as the reader", "behind a reader"])
@pytest.mark.parametrize(
    "way", ["acquire", "try_acquire", "release", "describe", "verify", "block", "locks", "watch"]
)
def test_a_handler_in_the_middle_of_a_wait_may_call_the_client_and_the_wait_goes_on(
    client: lockring.Client, other: lockring.Client, server: LockServer, way: str, queued: bool
) -> None:
    blocker = other.lock("x").acquire()
    held = client.lock("y").acquire()
    kept = [held]

    def keep(grant: lockring.Grant | None) -> bool:
        kept.extend([grant] if grant is not None else [])
        return grant is not None and grant.held

    calls: dict[str, Callable[[], bool]] = {
        "acquire": lambda: keep(client.lock("z").acquire(timeout=PATIENCE_S)),
        "try_acquire": lambda: keep(client.lock("z").try_acquire()),
        "release": lambda: is_none(held.release) and not held.held,
        "describe": lambda: client.describe("x").holders[0].owner == "other",
        "verify": held.verify,
        "block": lambda: is_none(client.lock("z").__enter__().check().release),
        "locks": lambda: len(client.locks()) == 2,
        "watch": lambda: next(client.watch("x")).holders[0].owner == "other",
    }
    reader = in_thread(lambda: client.lock("x").acquire().release()) if queued else None
    if queued:
        server.wait_until(lambda: len(server.holders("x")) == 2)
    ahead = len(server.holders("x"))
    interrupted = signal_once(client, server, lambda: len(server.holders("x")) == ahead + 1, signal.SIGUSR1)

    def work() -> object:
        came = calls[way]()
        blocker.release()
        return came

    with handler(work) as came, client.lock("x").acquire(timeout=2 * PATIENCE_S) as grant:
        assert grant.held
    interrupted.join(PATIENCE_S)
    assert came == [True]
    assert server.greeted == 2, "on the connection that there was"
    for each in kept:
        if each.held:
            each.release()
    if reader is not None:
        reader.join(PATIENCE_S)
        assert not reader.is_alive()


@pytest.mark.interpreted
def test_a_wait_behind_a_reader_lets_handlers_run_between_two_naps(
    client: lockring.Client, other: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = threading.Event()
    monkeypatch.setattr(calls, "NAP_S", 0.01)
    monkeypatch.setattr(calls, "let_handlers_run", ran.set)
    blocker = other.lock("x").acquire()
    client.lock("y").acquire().release()  # there is a connection to read from the start
    reader = in_thread(lambda: client.lock("x").acquire().release())
    server.wait_until(lambda: len(server.holders("x")) == 2)

    def release() -> None:
        ran.wait(PATIENCE_S)
        blocker.release()

    releaser = in_thread(release)
    client.lock("x").acquire(timeout=2 * PATIENCE_S).release()
    assert ran.is_set(), "compiled code would have missed a signal that came before the nap"
    for thread in (reader, releaser):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_wait_that_a_handler_interrupts_keeps_its_timeout(
    client: lockring.Client, other: lockring.Client, server: LockServer
) -> None:
    with other.lock("x"):
        interrupted = signal_once(client, server, lambda: len(server.holders("x")) == 2, signal.SIGUSR1)
        with handler(lambda: client.lock("x").try_acquire()) as came, pytest.raises(AcquireTimeout):
            client.lock("x").acquire(timeout=1.5)
        interrupted.join(PATIENCE_S)
        assert came == [None]


def test_threads_behind_a_reader_are_served_while_a_handler_waits_on_top_of_it(
    client: lockring.Client, other: lockring.Client, server: LockServer
) -> None:
    blockers = [other.lock(name).acquire() for name in ("x", "z")]
    served = threading.Event()

    def behind() -> None:
        server.wait_until(lambda: len(server.holders("z")) == 2)
        for _ in range(20):
            client.lock("y").acquire().release()
        served.set()
        blockers[1].release()

    worker = in_thread(behind)
    interrupted = signal_once(client, server, lambda: len(server.holders("x")) == 2, signal.SIGUSR1)
    with handler(lambda: is_none(client.lock("z").acquire().release)) as came:
        releasing = in_thread(lambda: served.wait(PATIENCE_S) and is_none(blockers[0].release))
        client.lock("x").acquire(timeout=2 * PATIENCE_S).release()
    for thread in (worker, interrupted, releasing):
        thread.join(PATIENCE_S)
    assert came == [True]
    assert served.is_set()


def test_a_handler_that_closes_the_client_ends_the_wait_that_it_interrupts(
    other: lockring.Client, server: LockServer
) -> None:
    client = lockring.Client(server.address)
    with other.lock("x"):
        interrupted = signal_once(client, server, lambda: len(server.holders("x")) == 2, signal.SIGUSR1)
        with handler(client.close), pytest.raises(ClientClosed):
            client.lock("x").acquire()
        interrupted.join(PATIENCE_S)
        server.wait_until(lambda: len(server.holders("x")) == 1)


class TestInTheMiddleOfASection:
    """Calls of a handler that interrupts its thread while that changes the client's state."""

    def test_a_call_that_needs_an_answer_is_refused_at_once(
        self, client: lockring.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grant = client.lock("y").acquire()
        refused: list[BaseException] = []

        def meet() -> None:
            for call in (client.lock("z").acquire, client.lock("z").try_acquire, client.state, grant.verify):
                with pytest.raises(ReentrantCall, match="signal handler") as caught:
                    call()
                refused.append(caught.value)
            assert grant.held
            assert grant.check() is grant
            assert not grant.lost.is_set()

        client._driver._section.inside(lambda _: meet())
        assert len(refused) == 4
        assert grant.verify()
        grant.release()  # the refused calls' tracebacks hold it until the collector comes by

    def test_a_release_and_a_block_that_ends_are_done_at_its_end(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grants = [client.lock(name).acquire() for name in ("y", "z")]

        def meet() -> None:
            grants[0].release()
            with grants[1]:
                pass
            assert server.holders("y")

        client._driver._section.inside(lambda _: meet())
        server.wait_until(lambda: server.holders("y") == [] == server.holders("z"))
        assert not any(grant.held for grant in grants)

    def test_a_close_is_done_at_its_end(self, server: LockServer) -> None:
        client = lockring.Client(server.address)
        grant = client.lock("y").acquire()
        client._driver._section.inside(lambda _: client.close())
        server.wait_until(lambda: server.holders("y") == [])
        assert not grant.held
        with pytest.raises(ClientClosed):
            client.lock("y").acquire()

    def test_two_threads_in_two_clients_do_not_wait_for_each_other(
        self, client: lockring.Client, other: lockring.Client
    ) -> None:
        """As finalizers may have it: each calls the client in whose section the other is."""
        both = threading.Barrier(2)
        refused: list[bool] = []

        def meet(mine: Section, others: lockring.Client) -> None:
            def inside(_now_ns: int) -> None:
                both.wait(PATIENCE_S)
                try:
                    others.lock("z").acquire(timeout=PATIENCE_S).release()
                except ReentrantCall:
                    refused.append(True)

            mine.inside(inside)

        threads = [
            in_thread(lambda: meet(client._driver._section, other)),
            in_thread(lambda: meet(other._driver._section, client)),
        ]
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert refused


def test_a_release_that_began_in_another_clients_work_counts_though_it_cannot_wait_for_the_answer(
    client: lockring.Client, other: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a finalizer may have it, while another thread is in the section of the client that it calls."""
    grant = client.lock("y").acquire()
    wait = Calls.wait

    def wait_beside(calls: Calls, call: Call, feed: Feed) -> None:
        with busy(client._driver._section):
            wait(calls, call, feed)

    monkeypatch.setattr(Calls, "wait", wait_beside)
    other._driver._section.inside(lambda _: grant.release())
    monkeypatch.undo()
    server.wait_until(lambda: server.holders("y") == [])
    assert not grant.held
    client.lock("y").acquire(timeout=PATIENCE_S).release()


@contextmanager
def busy(section: Section) -> Iterator[None]:
    """Have another thread be in a section."""
    entered, leave = threading.Event(), threading.Event()

    def stay(_now_ns: int) -> None:
        entered.set()
        leave.wait(PATIENCE_S)

    thread = in_thread(lambda: section.inside(stay))
    assert entered.wait(PATIENCE_S)
    try:
        yield
    finally:
        leave.set()
        thread.join(PATIENCE_S)


class Dropped:
    """An object whose finalizer does some work."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def __del__(self) -> None:
        self._work()


class TestWhileAThreadStarts:
    """A finalizer that the collector runs on a thread of the client, before that runs any line of the client's."""

    @pytest.mark.parametrize("name", ["lockring-client", "lockring-connect", "lockring-lost", "lockring-log"])
    def test_a_call_comes_back_and_so_does_the_thread_that_waits_for_it(
        self, client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        came: list[object] = []
        called = threading.Event()
        started = threading.Thread._set_ident  # type: ignore[attr-defined]

        def attempt(call: Callable[[], object]) -> None:
            try:
                came.append(call())
            except ReentrantCall:
                came.append("refused")

        def call() -> None:
            attempt(lambda: client.owner_of("x"))
            attempt(lambda: client.lock("y").acquire(timeout=PATIENCE_S).release())
            called.set()

        def start(thread: threading.Thread) -> None:
            started(thread)
            if thread.name.startswith(name) and not came:
                came.append("called")
                Dropped(call)

        monkeypatch.setattr(threading.Thread, "_set_ident", start)

        def use() -> None:
            grant = client.lock("z").acquire()
            told = threading.Event()
            grant.on_lost(lambda _: told.set())
            server.lose("z")
            assert told.wait(PATIENCE_S)
            assert grant.lost.wait(PATIENCE_S)
            came.append("used")

        thread = in_thread(use)
        thread.join(3 * PATIENCE_S)
        assert called.wait(PATIENCE_S)
        assert "used" in came
        assert ("refused" in came) == (name != "lockring-client")
        with client.lock("y").acquire(timeout=PATIENCE_S) as grant:
            assert grant.held

    def test_no_section_waits_for_a_thread(
        self, client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guilty: list[str] = []
        start = threading.Thread.start

        def watched(thread: threading.Thread) -> None:
            if client._driver._section.is_ours():
                guilty.append(thread.name)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", watched)
        grant = client.lock("x").acquire()
        told = threading.Event()
        grant.on_lost(lambda _: told.set())
        server.lose("x")
        assert told.wait(PATIENCE_S)
        server.cut()
        client.lock("x").acquire().release()
        assert guilty == []


@pytest.mark.interpreted
def test_an_exception_after_any_step_of_what_is_done_after_a_section_leaves_the_thread_its_calls(
    client: lockring.Client, server: LockServer
) -> None:
    """As a signal's handler may raise it: the interpreter calls handlers when a call returns."""
    calls = 0

    def interrupt(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event == "c_return" and frame.f_code is Section._do_chores.__code__:
            calls += 1
            if calls == number:
                raise ZeroDivisionError

    for number in range(1, 20):
        calls = 0
        client._driver._section.do_after(lambda: None)
        sys.setprofile(interrupt)
        try:
            with contextlib.suppress(ZeroDivisionError):
                client._driver._section._do_chores()
        finally:
            sys.setprofile(None)
        server.cut()  # so that there are chores again
        client.lock("x").acquire(timeout=PATIENCE_S).release()
        if calls < number:
            break
    assert 3 < number < 19


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["signals", "finalizers"])
def test_thousands_of_interrupted_calls_all_come_back(server: LockServer, kind: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.unit.client.blocking.reentry", kind, server.address, str(CALLS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode == 0
    came = json.loads(run.stdout)
    assert came["done"] > 0
    assert came["left"] == []
    assert sum(came["came"].values()) >= CALLS
    assert came["others"]["in time"] > 0
    assert [name for name in server._queues if server.holders(name)] == []
