"""A signal from the terminal stops the script around `lockring lock` as it would without it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lockring
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S, after, eventually, written

pytestmark = [pytest.mark.cluster]

LOCK = f"{sys.executable} -m lockring lock"


class Screen:
    """A terminal with a script in its foreground, as an interactive shell would have started it."""

    def __init__(self, cluster: LocalCluster, folder: Path, shell: str, script: str) -> None:
        self.seen = ""
        self.code: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # forking with threads: the child only calls exec
            self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["LOCKRING_SERVER"] = cluster.servers
            os.execvp(shell, [shell, "-c", script])

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def sees(self, text: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{text!r} is not in {self.seen!r}"
            assert self._reads(left_s), f"the terminal was closed; {text!r} is not in {self.seen!r}"

    def ends(self) -> int:
        """Wait for the end of the script, and return how it ended: minus the signal's number, or its exit code."""
        end_s = time.monotonic() + PATIENCE_S
        while self._reads(max(0.0, end_s - time.monotonic())):
            assert time.monotonic() < end_s, self.seen
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def _reads(self, wait_s: float) -> bool:
        if select.select([self.terminal], [], [], wait_s)[0]:
            try:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")
            except OSError:  # the last process that had the terminal open has ended
                return False
        return True

    def close(self) -> None:
        os.close(self.terminal)
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


Start = Callable[..., Screen]


@pytest.fixture
def screen(steady: LocalCluster, tmp_path: Path) -> Iterator[Start]:
    made: list[Screen] = []

    def start(script: str, shell: str = "bash") -> Screen:
        made.append(Screen(steady, tmp_path, shell, script))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def start(steady: LocalCluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command without a terminal, and kills what is left of it."""
    made: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, before: str = "", **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            after(before, [sys.executable, "-m", "lockring", *arguments]),
            env={**os.environ, "LOCKRING_SERVER": steady.servers},
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **options,
        )
        made.append(process)
        return process

    yield begin
    for process in made:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def loop(command: str, names: str = "loop") -> str:
    return f"for i in 1 2 3; do {LOCK} {names} -- {command}; echo after $i: $?; done; echo went on"


SLEEPS = "sh -c 'echo run $i; exec sleep 300'".replace("$i", "$0") + " $i"


@pytest.mark.parametrize(
    ("shell", "keys", "number"),
    # bash ignores SIGQUIT itself, so its loop goes on whatever runs in it.
    [("bash", "\x03", signal.SIGINT), ("dash", "\x03", signal.SIGINT), ("dash", "\x1c", signal.SIGQUIT)],
)
def test_a_loop_stops_with_its_command(screen, steady, shell, keys, number):
    under_way = screen(loop(SLEEPS), shell)
    under_way.sees("run 1")
    under_way.type(keys)
    assert under_way.ends() == -number
    assert "run 2" not in under_way.seen
    assert "went on" not in under_way.seen
    with lockring.Client(steady.servers) as client:
        assert client.owner_of("loop") is None


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_loop_stops_while_its_command_waits_for_the_lock(screen, steady, shell):
    with lockring.Client(steady.servers) as client, client.lock("awaited"):
        under_way = screen(loop("true", "awaited"), shell)
        eventually(lambda: client.describe("awaited").waiters)
        under_way.type("\x03")
        assert under_way.ends() == -signal.SIGINT
        assert "after 1" not in under_way.seen
        eventually(lambda: not client.describe("awaited").waiters)


def test_a_loop_stops_where_the_output_goes_into_a_pipe(screen):
    under_way = screen(f"({loop(SLEEPS)}) | cat")
    under_way.sees("run 1")
    under_way.type("\x03")
    assert under_way.ends() == -signal.SIGINT
    assert "run 2" not in under_way.seen


def test_a_loop_stops_around_a_lock_within_a_lock(screen):
    under_way = screen(loop(f"{LOCK} inner -- {SLEEPS}", "outer"))
    under_way.sees("run 1")
    under_way.type("\x03")
    assert under_way.ends() == -signal.SIGINT
    assert "run 2" not in under_way.seen


def test_a_command_that_handles_the_signal_and_ends_normally_changes_nothing(screen):
    command = "bash -c 'trap \"exit 7\" INT; echo run $0; while :; do sleep 0.05; done' $i"
    under_way = screen(loop(command))
    for number in (1, 2, 3):
        under_way.sees(f"run {number}")
        under_way.type("\x03")
        under_way.sees(f"after {number}: 7")
    under_way.sees("went on")
    assert under_way.ends() == 0


def test_an_interactive_shell_goes_on_and_has_the_terminal(screen):
    under_way = screen("exec bash --norc --noediting -i")
    under_way.type(loop(SLEEPS) + "\n")
    under_way.sees("run 1\r\n")
    under_way.type("\x03")
    under_way.type("echo code=$?; exit 5\n")
    under_way.sees("code=130")
    assert under_way.ends() == 5
    assert "\r\nrun 2\r\n" not in under_way.seen


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_a_signal_that_is_sent_to_lockring_alone_ends_the_command_and_then_lockring(
    start, steady, tmp_path, name
):
    number = signal.Signals[f"SIG{name}"]
    process = start("lock", "alone", "--", "sh", "-c", f"echo 1 > {tmp_path}/on; exec sleep 300")
    written(tmp_path / "on")
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == -number  # which a shell calls 128 + N
    with lockring.Client(steady.servers) as client:
        assert client.owner_of("alone") is None


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_a_signal_that_is_sent_to_lockring_alone_ends_the_wait_and_lockring(start, steady, name):
    number = signal.Signals[f"SIG{name}"]
    with lockring.Client(steady.servers) as client, client.lock("waited for"):
        process = start("lock", "waited for", "--", "true")
        eventually(lambda: client.describe("waited for").waiters)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == -number
        eventually(lambda: not client.describe("waited for").waiters)


def test_a_signal_sent_to_the_command_alone_is_an_exit_code(start):
    process = start("lock", "its own", "--", "sh", "-c", "kill -INT $$")
    assert process.wait(PATIENCE_S) == 130


def test_a_loop_of_other_commands_stops_too(screen):
    command = f"{sys.executable} -m lockring watch loop"
    under_way = screen(f"for i in 1 2 3; do echo run $i; {command}; done; echo went on")
    under_way.sees("free")
    under_way.type("\x03")
    assert under_way.ends() == -signal.SIGINT
    assert "run 2" not in under_way.seen


@pytest.mark.parametrize(
    "arguments", [["serve", "--no-grpc", "--listen", "127.0.0.1:0"], ["lock", "in the background"]]
)
def test_what_runs_in_the_background_of_a_script_goes_on_ignoring_ctrl_c(start, tmp_path, arguments):
    if arguments[0] == "serve":
        arguments = [*arguments, "--coordinator-listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
    process = start(
        *arguments,
        before="signal.signal(signal.SIGINT, signal.SIG_IGN)",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    while not re.search("fencing_token|listens", process.stdout.readline()):
        assert process.poll() is None
    status = Path(f"/proc/{process.pid}/status").read_text().split()
    ignored, caught = (int(status[status.index(each) + 1], 16) for each in ("SigIgn:", "SigCgt:"))
    assert ignored >> (signal.SIGINT - 1) & 1
    assert caught >> (signal.SIGTERM - 1) & 1
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


# Leads the session, survives its end, and passes the signal on to its job as a shell does.
LEADER = """
import pathlib, signal, subprocess, sys

signal.signal(signal.SIGHUP, lambda *_: job.send_signal(signal.SIGHUP))
job = subprocess.Popen([sys.executable, "-m", "lockring", "lock", "-v", "hung up", "--", "sh", "-c", sys.argv[1]])
code = job.wait()
pathlib.Path("code.part").write_text(f"{code}\\n")
pathlib.Path("code.part").rename("code")
"""


@pytest.mark.parametrize(
    ("script", "code"), [("trap 'exit 3' HUP; ", 3), ("", -signal.SIGHUP)], ids=["handled", "not handled"]
)
def test_a_terminal_that_is_hung_up_does_not_change_how_lockring_ends(screen, steady, tmp_path, script, code):
    (tmp_path / "leader.py").write_text(LEADER)
    command = f"{script}echo 1 > on; while :; do sleep 0.05; done"
    under_way = screen(f'exec {sys.executable} leader.py "{command}"')
    written(tmp_path / "on")
    os.close(under_way.terminal)
    under_way.terminal = os.open(os.devnull, os.O_RDWR)
    assert int(written(tmp_path / "code")) == code
    with lockring.Client(steady.servers) as client:
        assert client.owner_of("hung up") is None
