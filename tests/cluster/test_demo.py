"""`lockring demo`, as a newcomer runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "lockring", "demo", "--pace"]
_WHOLE_S = 300.0


def children_of(pid: int) -> list[int]:
    """Return the processes that are below another one."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    own = [int(each) for path in found for each in path.read_text().split()]
    return own + [each for child in own for each in children_of(child)]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_demo_shows_each_failure_and_the_outcome() -> None:
    environ = {
        **os.environ,
        "LOCKRING_TOKEN_FILE": "/gone",
        "LOCKRING_CA": "/gone",
        "LOCKRING_SERVER": "gone:1",
    }
    done = subprocess.run(
        [*COMMAND, "0"], env=environ, capture_output=True, text=True, timeout=_WHOLE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for words in (
        "one worker to the next in",
        "no lock was lost",
        "the ledger refuses its token",
        "learns that it has lost the lock: LockLost",
        "locks do not wait for the coordinator",
        "has nothing any more",
        "1 lock lost: that of the worker that was frozen",
        "times, the next holder was the worker that had asked first",
        "holders wrote, one after the other, and tokens only grew",
    ):
        assert words in done.stdout, done.stdout
    tokens = [int(each) for each in re.findall(r"holds it, token (\d+)", done.stdout)]
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_demo_that_is_ended(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        while "it serves" not in process.stdout.readline():
            assert process.poll() is None
        eventually(lambda: len(children_of(process.pid)) >= 8)
        below = children_of(process.pid)
        process.send_signal(number)
        process.wait(PATIENCE_S)
        eventually(lambda: not any(map(is_there, below)))


@pytest.mark.parametrize("pace", ["-1", "soon", "1000"])
def test_a_wrong_pace_is_refused_in_one_line(pace: str) -> None:
    done = subprocess.run([*COMMAND, pace], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 64
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
