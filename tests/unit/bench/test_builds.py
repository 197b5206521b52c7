"""A build of lockring is what its interpreter imports, and compiled if some module is."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import venv
from pathlib import Path

import pytest

from bench import builds
from bench.builds import VARIABLE, build_of, lack_of_compiled, lack_of_interpreted


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The site-packages of a virtual environment of this Python, named by the variable, without any library."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    return next((tmp_path / "env").glob("lib/python3*/site-packages"))


@pytest.fixture(autouse=True)
def named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(environment.parents[2] / "bin" / "python"))
    build_of.cache_clear()


def install(environment: Path, *modules: str) -> None:
    place = environment / "lockring"
    (place / "core").mkdir(parents=True)
    (place / "__init__.py").touch()
    for module in modules:
        (place / module).touch()


def test_a_build_with_an_extension_module_is_compiled(environment: Path) -> None:
    install(environment, "core/node.py", f"core/node{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    assert lack_of_compiled() == ""
    build = build_of(builds.compiled_python())
    assert (build.compiled, build.place) == (1, str(environment / "lockring"))


def test_a_build_without_one_is_not(environment: Path) -> None:
    install(environment, "core/node.py")
    assert f"no module of {os.path.relpath(environment / 'lockring')} is compiled" in lack_of_compiled()


def test_an_environment_without_lockring_is_named() -> None:
    assert "cannot import lockring" in lack_of_compiled()


def test_a_missing_interpreter_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    assert f"there is no {tmp_path / 'python'}" in lack_of_compiled()


def test_a_build_for_another_python_is_no_peer(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(environment, f"core/node{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    monkeypatch.setattr(sys, "version", "3.99 of another day")
    assert "and not 3.99 of another day" in lack_of_compiled()


def test_a_compiled_build_in_this_environment_is_not_taken_for_the_interpreted_one(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(environment, f"core/node{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    monkeypatch.setattr(sys, "executable", builds.compiled_python())
    assert "has 1 compiled modules" in lack_of_interpreted()
