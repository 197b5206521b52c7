"""The life of a server process: its exit codes, and what a bug does to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from lockring.errors import (
    CannotListen,
    ConfigError,
    Denied,
    DuplicateNode,
    InvalidRequest,
    LockringError,
    StoreError,
    Unauthenticated,
    Unavailable,
    WrongCluster,
    WrongRole,
)
from lockring.exits import exit_code_of_server
from tests.processes import PATIENCE_S


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), 64),
        (Unavailable("x"), 69),
        (CannotListen("x"), 69),
        (StoreError("x"), 73),
        (Denied("x"), 77),
        (Unauthenticated("x"), 77),
        (ConfigError("x"), 78),
        (DuplicateNode("x"), 78),
        (WrongCluster("x"), 78),
        (WrongRole("x"), 78),
    ],
)
def test_errors_have_the_exit_codes_of_sysexits(error: LockringError, code: int) -> None:
    assert exit_code_of_server(error) == code


PROGRAM = """
import asyncio, sys
from lockring.server.lifecycle import run_service
from lockring.server.logs import LogStyle

class Server:
    async def start(self):
        {start}
        print("started", flush=True)
    async def finished(self):
        {finished}
    def leave(self):
        print("leaving", flush=True)
        return {leaves}
    def reload(self):
        if {reloads}:
            print("reloading", flush=True)
        return {reloads}
    async def stop(self):
        print("stopped", flush=True)

sys.exit(run_service(Server, style=LogStyle("info", {format!r}), name="server"))
"""


class Program:
    """A server of one's own making, run by `run_service` in a process."""

    def __init__(
        self,
        *flags: str,
        start: str = "pass",
        finished: str = "await asyncio.get_running_loop().create_future()",
        leaves: bool = False,
        reloads: bool = False,
        terminal: int | None = None,
        log_format: str = "text",
    ) -> None:
        code = textwrap.dedent(PROGRAM).format(
            start=start, finished=finished, leaves=leaves, reloads=reloads, format=log_format
        )
        if terminal is not None:
            # The first terminal that the leader of a session opens controls the session.
            code = f"import os; os.open({os.ttyname(terminal)!r}, os.O_RDWR)\n{code}"
        self.popen = subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def read(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def end(self) -> tuple[int, str, str]:
        """Exit code, the rest of the output, and the errors."""
        output, errors = self.popen.communicate(timeout=PATIENCE_S)
        return self.popen.returncode, output, errors


def test_a_server_that_ends_by_itself_has_its_exit_code_and_is_stopped() -> None:
    assert Program(finished="return 7").end() == (7, "started\nstopped\n", "")


def test_a_failed_start_is_one_line_and_is_cleaned_up() -> None:
    code, output, errors = Program(
        start="from lockring.errors import Unavailable; raise Unavailable('the port is taken')"
    ).end()
    assert (code, output) == (69, "stopped\n")
    assert errors.endswith(" error   server: the port is taken\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_server_that_has_nothing_to_do_first(number: int) -> None:
    program = Program(leaves=False)
    assert program.read() == "started"
    os.kill(program.popen.pid, number)
    assert program.end() == (0, "leaving\nstopped\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_leaves_in_peace_is_ended_by_the_second_signal(number: int) -> None:
    program = Program(leaves=True)
    assert program.read() == "started"
    os.kill(program.popen.pid, signal.SIGTERM)
    assert program.read() == "leaving"
    os.kill(program.popen.pid, number)
    assert program.end() == (0, "stopped\n", "")


def test_sighup_has_a_server_read_its_files_again() -> None:
    program = Program(reloads=True)
    assert program.read() == "started"
    for _ in range(2):
        os.kill(program.popen.pid, signal.SIGHUP)
        assert program.read() == "reloading"
    os.kill(program.popen.pid, signal.SIGTERM)
    assert program.end() == (0, "leaving\nstopped\n", "")


def test_a_terminal_that_is_closed_ends_a_server_that_has_files_to_read() -> None:
    ours, theirs = os.openpty()
    program = Program(reloads=True, terminal=theirs)
    os.close(theirs)
    try:
        assert program.read() == "started"
        os.kill(program.popen.pid, signal.SIGHUP)
        assert program.read() == "reloading", "the terminal is still there"
    finally:
        os.close(ours)
    assert program.end() == (0, "leaving\nstopped\n", "")


def test_sigquit_ends_a_server_at_once() -> None:
    program = Program(leaves=True)
    assert program.read() == "started"
    os.kill(program.popen.pid, signal.SIGQUIT)
    assert program.end() == (0, "stopped\n", "")


def test_an_uncaught_exception_ends_the_process_with_a_traceback() -> None:
    """A core that broke off in the middle of a change cannot be trusted any more; its copies take over."""
    code, output, errors = Program(start="asyncio.get_running_loop().call_soon(lambda: 1 / 0)").end()
    assert (code, output) == (70, "started\nstopped\n")
    assert "this is a bug in lockring" in errors
    assert "ZeroDivisionError" in errors


def test_what_ends_a_thread_is_a_line_of_the_log() -> None:
    code, _, errors = Program(
        start="import threading; thread = threading.Thread(target=lambda: 1 / 0, name='T'); thread.start(); thread.join()",
        finished="return 0",
        log_format="json",
    ).end()
    assert code == 0
    (line,) = [json.loads(each) for each in errors.splitlines()]
    assert (line["level"], line["event"]) == ("error", "bug")
    assert line["message"].endswith("it has ended the thread T")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_an_error_of_the_system_in_a_timer_ends_the_process_too() -> None:
    """A timer that begins its next round itself would not come again, and nothing would say so."""
    code, output, errors = Program(
        start="import os; asyncio.get_running_loop().call_later(0, os.stat, '/nowhere')"
    ).end()
    assert (code, output) == (70, "started\nstopped\n")
    assert "FileNotFoundError" in errors


def test_an_error_of_the_system_that_a_connection_has_met_is_no_bug() -> None:
    program = Program(
        start="asyncio.get_running_loop().call_exception_handler("
        "{'message': 'Fatal error on transport', 'exception': TimeoutError(), 'transport': None})"
    )
    assert program.read() == "started"
    os.kill(program.popen.pid, signal.SIGTERM)
    assert program.end() == (0, "leaving\nstopped\n", "")


def test_a_server_without_its_assertions_does_not_start() -> None:
    code, output, errors = Program("-O").end()
    assert (code, output) == (78, "")
    assert "-O" in errors


def test_servers_run_on_uvloop() -> None:
    from lockring.server.lifecycle import new_event_loop

    loop = new_event_loop()()
    assert type(loop).__module__.startswith("uvloop")
    loop.close()
    assert isinstance(loop, asyncio.AbstractEventLoop)
