"""The fastest Python is found among those that can make environments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import interpreter
from bench.interpreter import Timed, candidates, timed

BASE = os.path.realpath(sys.executable)


def script(path: Path, answer: str) -> str:
    """Write a program that answers as an interpreter would."""
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def test_this_python_is_timed_under_its_own_path() -> None:
    (found,) = timed([BASE])
    assert (found.path, found.version) == (BASE, "{}.{}.{}".format(*sys.version_info[:3]))
    assert found.ms > 0


def test_the_fastest_comes_first_and_each_counts_by_its_best_time(tmp_path: Path) -> None:
    slow = script(tmp_path / "slow", f"3 12 1 9.5 False {tmp_path}/slow")
    fast = script(tmp_path / "fast", f"3 11 2 3.5 False {tmp_path}/fast")
    assert timed([slow, fast]) == [Timed(fast, "3.11.2", 3.5), Timed(slow, "3.12.1", 9.5)]


@pytest.mark.parametrize(
    "answer", ["3 10 1 1.0 False /usr/bin/old", "3 12 1 1.0 True /an/environment", "nonsense"]
)
def test_an_old_python_one_in_an_environment_and_none_at_all_do_not_count(
    tmp_path: Path, answer: str
) -> None:
    assert timed([script(tmp_path / "other", answer)]) == []
    assert timed([str(tmp_path / "missing")]) == []


def test_a_python_under_two_names_is_one_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "python3.11", "")
    (tmp_path / "python3").symlink_to("python3.11")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [path for path in candidates() if path.startswith(str(tmp_path))] == [str(tmp_path / "python3")]


def test_the_program_prints_the_path_alone() -> None:
    done = subprocess.run(
        [BASE, interpreter.__file__],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(Path(BASE).parent)},
    )
    assert Path(done.stdout.strip()).is_file()
    assert "ms for a fixed loop" in done.stderr
