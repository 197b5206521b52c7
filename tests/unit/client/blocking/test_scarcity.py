"""The blocking client under failures of the system or its own code: it goes on, or reports what is lost and why."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import lockring
from lockring.errors import LockLost, Unavailable
from lockring.protocol import Keepalive
from tests.processes import PATIENCE_S
from tests.unit.client.blocking.test_client import in_thread
from tests.unit.client.lock_server import LockServer

WORDS = {"threads": "can't start new thread", "descriptors": "too many open files"}


class Program:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def program(server: LockServer, what: str, of: str) -> Iterator[Program]:
    command = [sys.executable, "-m", "tests.unit.client.blocking.scarcity", server.address, what, of]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        killer = threading.Timer(2 * PATIENCE_S, process.kill)
        killer.start()
        try:
            yield Program(process)
            assert process.stderr is not None
            errors = process.stderr.read()
            assert (process.wait(PATIENCE_S), errors) == (0, "")
        finally:
            killer.cancel()
            process.kill()


@pytest.mark.parametrize("of", WORDS)
def test_the_first_call_names_the_missing_resource_and_the_next_one_works(
    server: LockServer, of: str
) -> None:
    with program(server, "first", of) as run:
        told = run.line()
        assert told.startswith("Unavailable: ")
        assert WORDS[of] in told
        assert "interrupt" not in told
        assert run.line() == "True"


@pytest.mark.parametrize("of", WORDS)
def test_a_connection_that_lacks_a_descriptor_delays_no_timeout_and_costs_no_lease(
    server: LockServer, of: str
) -> None:
    with program(server, "reconnect", of) as run:
        assert run.line() == "ready"
        server.cut()
        run.go_on()
        told = run.line()
        assert WORDS[of] in told
        assert "interrupt" not in told
        assert run.line() == "True"
        assert run.line() == "again"
        before = server.count(Keepalive)
        server.wait_until(lambda: server.count(Keepalive) > before)
        run.go_on()
        assert run.line() == "True"


def test_a_loss_is_announced_once_a_thread_can_be_started(server: LockServer) -> None:
    with program(server, "callback", "threads") as run:
        assert run.line() == "ready"
        server.lose("held")
        run.go_on()
        assert run.line() == "True False"
        assert run.line() == "True"
        assert run.line() == "True"


@pytest.mark.interpreted
@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError()], ids=["a bug", "no memory"])
def test_an_error_in_the_lease_thread_reaches_all_callers_and_the_client_works_again(
    client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    grant = client.lock("x", ttl=1).acquire()
    lost = grant.lost
    waiting: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(Unavailable) as caught:
            client.lock("x").acquire()
        waiting.append(caught.value)

    waiter = in_thread(wait)
    server.wait_until(lambda: len(server.holders("x")) == 2)

    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setattr(client._driver._host.core, "on_timer", fail)
    waiter.join(PATIENCE_S)
    assert "interrupt" not in str(waiting[0])
    assert str(error) in str(waiting[0])
    assert waiting[0].__cause__ is error
    assert lost.wait(PATIENCE_S)
    with pytest.raises(LockLost):
        grant.check()
    with client.lock("y", ttl=1).acquire(timeout=PATIENCE_S) as again:
        before = server.count(Keepalive)
        server.wait_until(lambda: server.count(Keepalive) >= before + 2)
        assert again.held


def test_a_failure_outside_of_all_sections_is_outlived(
    client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the program has closed descriptors that are not its own."""
    grant = client.lock("x", ttl=2).acquire()
    keeper = client._driver._background.keeper
    assert keeper is not None
    keeper.watcher.selector.close()
    lost = grant.lost
    assert lost.wait(PATIENCE_S)
    with client.lock("y", ttl=1).acquire(timeout=PATIENCE_S) as again:
        before = server.count(Keepalive)
        server.wait_until(lambda: server.count(Keepalive) >= before + 2)
        assert again.held
