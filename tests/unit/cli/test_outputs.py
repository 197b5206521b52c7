"""Outputs that are closed or full: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def shell(redirections: str, words: str = "version") -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m lockring {words} {redirections}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("redirections", [">&-", "--json >&-", "2>&-", ">&- 2>&-"])
def test_command_runs_with_closed_outputs(redirections: str) -> None:
    done = shell(redirections)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["version", "--version", "--help", "lock --help"])
def test_a_full_output_is_reported_in_one_line(words: str) -> None:
    done = shell(">/dev/full", words)
    assert done.returncode == 74
    assert done.stderr.startswith("lockring: the output cannot be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["version", "version --json", "--version", "--help", "lock --help"])
def test_an_output_whose_reader_has_gone_gives_141_in_silence(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lockring", *words.split()]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "words", ["lock", "lock x --frob", "lock x -- /no/such/command", "status --server 127.0.0.1:1"]
)
def test_a_message_that_cannot_be_written_changes_no_exit_code(words: str) -> None:
    expected = shell("", words).returncode
    assert expected in (64, 69, 127)
    assert shell("2>/dev/full", words).returncode == expected
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lockring", *words.split()]
    done = subprocess.run(command, stderr=writer, timeout=60, check=False)
    os.close(writer)
    assert done.returncode == expected


def test_descriptors_that_are_used_up_are_not_taken_for_a_fault_of_the_output() -> None:
    """How few are too few depends on the Python; from some number on, the cluster is looked for."""
    command = f"{sys.executable} -m lockring lock x --server 127.0.0.1:1 --connect-timeout 0.5 -- true"
    said = ""
    for few in range(5, 9):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -n {few}; {command}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (69, 71)
        assert "output" not in done.stderr
        said += done.stderr
    assert "too many open files" in said


def test_an_output_that_does_not_block_and_is_full_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    full = 0
    try:
        while True:
            full += os.write(writer, bytes(4096))
    except BlockingIOError:
        pass
    process = subprocess.Popen(
        [sys.executable, "-m", "lockring", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    with open(reader, "rb") as output:
        assert output.read(full) == bytes(full)
        assert b"Usage: lockring" in output.read()
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
