"""The command inherits the caller's settings, as from env(1), and lockring neither fails nor lies because of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import after

PROGRAM = Path(__file__).parent / "lock" / "supervised.py"


def outcome_of(folder: Path, *command: str, before: str = "", **options: Any) -> Any:
    """Run a command under a lock that needs no network, after a line of Python, and return how it ended."""
    program = [sys.executable, str(PROGRAM), "--outcome", str(folder / "outcome"), "--", *command]
    subprocess.run(after(before, program), check=True, timeout=60, **options)
    return json.loads((folder / "outcome").read_text())


def ignore(*numbers: int) -> str:
    return f"[signal.signal(number, signal.SIG_IGN) for number in {[int(each) for each in numbers]}]"


def test_a_caller_that_ignores_the_end_of_children_gets_the_right_code(tmp_path):
    """Run a program without children: Python's own shells inherit the setting, and would learn of no child's end."""
    ended = outcome_of(tmp_path, sys.executable, "-c", "raise SystemExit(7)", before=ignore(signal.SIGCHLD))
    assert (ended["returncode"], ended["lost"], ended["left"]) == (7, False, False)


def signals_of(number: str) -> set[int]:
    """The signals of a mask, but for 32 and above: the C library keeps two of these for itself."""
    return {each for each in range(1, 32) if int(number, 16) >> (each - 1) & 1}


def test_a_command_ignores_what_the_caller_ignored(tmp_path):
    ignored = {signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTTOU, signal.SIGUSR2}
    with open(tmp_path / "seen", "w") as seen:
        outcome_of(tmp_path, "grep", "SigIgn", "/proc/self/status", before=ignore(*ignored), stdout=seen)
    assert signals_of((tmp_path / "seen").read_text().split()[1]) == ignored


def test_a_command_blocks_what_the_caller_blocked(tmp_path):
    blocked = {signal.SIGTERM, signal.SIGUSR1}
    with open(tmp_path / "seen", "w") as seen:
        outcome_of(
            tmp_path,
            "grep",
            "SigBlk",
            "/proc/self/status",
            before=f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(each) for each in blocked]})",
            stdout=seen,
        )
    assert signals_of((tmp_path / "seen").read_text().split()[1]) == blocked


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_were_closed_are_closed_for_the_command_too(tmp_path, closed):
    show = f"for fd in 0 1 2; do test -e /proc/$$/fd/$fd && echo $fd >> {tmp_path}/open; done; exit 4"
    ended = outcome_of(tmp_path, "sh", "-c", show, before=f"[os.close(fd) for fd in {closed}]")
    assert ended["returncode"] == 4
    found = (tmp_path / "open").read_text().split() if (tmp_path / "open").exists() else []
    assert found == [str(fd) for fd in (0, 1, 2) if fd not in closed]


def test_other_descriptors_reach_the_command(tmp_path):
    (tmp_path / "text").write_text("by descriptor")
    with open(tmp_path / "text") as text, open(tmp_path / "seen", "w") as seen:
        outcome_of(tmp_path, "cat", f"/proc/self/fd/{text.fileno()}", pass_fds=[text.fileno()], stdout=seen)
    assert (tmp_path / "seen").read_text() == "by descriptor"


def test_a_script_without_a_first_line_is_run_by_sh(tmp_path, monkeypatch):
    script = tmp_path / "plain"
    script.write_text('test "$1" = "an argument" && exit 6\n')
    script.chmod(0o755)
    assert outcome_of(tmp_path, str(script), "an argument")["returncode"] == 6
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert outcome_of(tmp_path, "plain", "an argument")["returncode"] == 6


def test_a_file_that_is_neither_a_program_nor_a_script_is_refused(tmp_path):
    script = tmp_path / "binary"
    script.write_bytes(b"\x7fELF\0\0\0of another machine\n")
    script.chmod(0o755)
    assert outcome_of(tmp_path, str(script))["failure"] == 8  # ENOEXEC


def test_a_later_folder_of_the_path_has_the_program_if_an_earlier_one_may_not_run_it(tmp_path, monkeypatch):
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job").write_text(f"#!/bin/sh\ntest {name} = second && exit 9\n")
        (tmp_path / name / "job").chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{tmp_path}/second:{os.environ['PATH']}")
    assert outcome_of(tmp_path, "job")["returncode"] == 9
