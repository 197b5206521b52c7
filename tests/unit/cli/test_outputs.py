"""Outputs that are closed or full: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def shell(redirections: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m lockring version {redirections}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("redirections", [">&-", "--json >&-", "2>&-", ">&- 2>&-"])
def test_command_runs_with_closed_outputs(redirections: str) -> None:
    done = shell(redirections)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_output_is_told_in_a_line() -> None:
    done = shell(">/dev/full")
    assert done.returncode == 74
    assert done.stderr.startswith("lockring: the output cannot be written: ")
    assert done.stderr.count("\n") == 1
