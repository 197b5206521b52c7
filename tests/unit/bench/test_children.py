"""A client's process runs one job under the interpreter that it was given, and its end is noticed."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from bench.children import Child, ChildFailed
from tests.unit.bench.jobs import echo, fail, vanish, where


def test_a_job_runs_in_a_process_of_its_own_and_talks_with_its_parent() -> None:
    with Child(echo, 2) as child:
        for word in ("one", {"two": 2.0}):
            child.tell(word)
            assert child.hear() == word
        assert child.result() == child.pid


def test_a_job_runs_under_this_interpreter_or_under_another_one_with_libraries_of_its_own(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    with Child(where) as here, Child.under(str(tmp_path / "env" / "bin" / "python"), where) as there:
        assert (here.result(), there.result()) == (sys.prefix, str(tmp_path / "env"))


def test_an_error_comes_back_with_its_traceback() -> None:
    with Child(fail) as child, pytest.raises(ChildFailed, match="LookupError: nothing here"):
        child.result()


def test_an_end_without_notice_is_seen() -> None:
    with Child(vanish) as child, pytest.raises(ChildFailed, match="ended"):
        child.hear()


def test_a_closed_child_is_gone_and_can_be_closed_again() -> None:
    child = Child(echo, 1)
    child.close()
    child.close()
    assert not Path(f"/proc/{child.pid}").exists()
