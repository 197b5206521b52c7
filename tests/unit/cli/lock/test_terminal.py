"""A command under a lock has the terminal as if it had been started by the shell."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, eventually

PROGRAM = Path(__file__).with_name("supervised.py")


class Session:
    """A supervised command in the foreground of a terminal of its own, led by a process that acts as its shell."""

    def __init__(self, folder: Path, script: str, pipe: str = "", options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.seen = ""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # forking with threads: the child only calls exec
            self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            program = [
                sys.executable,
                str(PROGRAM),
                "--outcome",
                str(folder / "outcome"),
                *options,
                "--",
                "sh",
                "-c",
                script,
            ]
            # The shell with job control: it puts its job into a group of its own and waits for it to end or stop.
            shell = f"set -m; {' '.join(map(_quoted, program))}{pipe}; echo back in the shell $?; jobs; read line; $line"
            os.execvp("bash", ["bash", "--norc", "-c", shell])

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def sees(self, text: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{text!r} is not in {self.seen!r}"
            if select.select([self.terminal], [], [], left_s)[0]:
                try:
                    self.seen += os.read(self.terminal, 4096).decode(errors="replace")
                except OSError:
                    assert text in self.seen, f"the terminal was closed; {text!r} is not in {self.seen!r}"

    def outcome(self) -> dict[str, object]:
        found = json.loads((self.folder / "outcome").read_text())
        assert isinstance(found, dict)
        return found


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[object]:
    made: list[Session] = []

    def start(script: str, pipe: str = "", options: tuple[str, ...] = ()) -> Session:
        made.append(Session(tmp_path, script, pipe, options))
        return made[-1]

    yield start
    for each in made:
        os.close(each.terminal)  # hangs up: all of the session get SIGHUP
        try:
            os.kill(each.pid, signal.SIGKILL)
        finally:
            os.waitpid(each.pid, 0)


def test_the_command_can_read_the_terminal(session):
    under_way = session("echo ready; read line; echo got $line")
    under_way.sees("ready")
    under_way.type("words\n")
    under_way.sees("got words")
    under_way.sees("back in the shell 0")


def test_ctrl_c_reaches_the_command_once(session):
    under_way = session("trap 'echo told' INT; echo ready; until read line; do :; done; echo got $line")
    under_way.sees("ready")
    under_way.type("\x03")
    under_way.sees("told")
    under_way.type("more\n")
    under_way.sees("got more")
    under_way.sees("back in the shell 0")
    assert under_way.outcome()["signals"] == []
    assert under_way.seen.count("told") == 1


def test_the_shell_has_the_terminal_back_afterwards(session):
    under_way = session("exit 3")
    under_way.sees("back in the shell 0")
    under_way.type("echo the shell reads\n")
    under_way.sees("\nthe shell reads")  # at the beginning of a line: not the echo of what was typed


def test_ctrl_z_stops_the_command_and_fg_continues_it(session):
    under_way = session("echo ready; read line; echo got $line")
    under_way.sees("ready")
    under_way.type("\x1a")
    under_way.sees("back in the shell 1")  # 128 and a stop signal
    under_way.sees("Stopped")
    under_way.type("fg\n")
    under_way.type("words\n")
    under_way.sees("got words")


def test_a_command_stopped_for_longer_than_its_lease_is_lost_when_fg_comes(session):
    under_way = session(
        "echo $$ >group; echo ready; read line", options=("--ttl", "3", "--kill-after", "0.1")
    )
    under_way.sees("ready")
    under_way.type("\x1a")
    under_way.sees("back in the shell 1")
    group = int((under_way.folder / "group").read_text())
    eventually(lambda: not is_there(group), lambda: "the end of the stopped command")
    under_way.type("fg\n")
    eventually((under_way.folder / "outcome").exists)
    assert under_way.outcome()["lost"] is True


def test_with_output_into_a_pipe_the_command_gets_the_terminal_when_it_reads_it(session):
    foreground = "cut -d' ' -f 8 /proc/$$/stat"  # of the terminal: a process group
    under_way = session(f"test $({foreground}) = $$ || echo lent later; read line; echo got $line", " | cat")
    under_way.sees("lent later")
    under_way.type("words\n")
    under_way.sees("got words")
    under_way.sees("back in the shell 0")
