"""Whether lockring can be compiled is said before anything is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiled import compiler

ROOT = Path(__file__).parents[2]


def said(module: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a module without any program on its path."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": "", "CC": "cc"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_machine_without_a_compiler_is_told_its_package() -> None:
    code, text = said("compiled.compiler")
    assert (code, text) == (1, "there is no C compiler (cc); on Debian and Ubuntu: apt install gcc\n")


def test_nothing_is_built_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    code, text = said("compiled", str(tmp_path / "lib"))
    assert code == 1
    assert text.startswith("lockring cannot be compiled: there is no C compiler (cc)")
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_its_headers_is_told_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda _name: str(tmp_path))
    assert compiler.lack() == (
        f"there are no headers of this Python ({tmp_path}/Python.h); on Debian and Ubuntu: apt install python3-dev"
    )


@pytest.mark.parametrize(
    ("macros", "is_gcc"),
    [
        ("#define __GNUC__ 12\n#define __x86_64__ 1", True),
        ("#define __GNUC__ 4\n#define __clang__ 1", False),
        ("", False),
    ],
)
def test_gcc_is_known_by_its_macros(
    macros: str, is_gcc: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "cc"
    program.write_text(f"#!/bin/sh\ncat <<END\n{macros}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    assert compiler.is_gcc() == is_gcc
