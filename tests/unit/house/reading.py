"""The files that the rules of the house look at, each read and parsed once for all rules."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from tests.unit.house import rules

T = TypeVar("T")

MODULES: Final = sorted(path for path in rules.SOURCE.rglob("*.py") if not rules.is_generated(path))
"""The modules of the package that are written by hand."""


def name_of(path: Path) -> str:
    """Return the path of a file below the package, or below the repository if it is not part of the package."""
    return path.relative_to(rules.SOURCE if rules.SOURCE in path.parents else rules.ROOT).as_posix()


@functools.cache
def text_of(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module. No caller changes it."""
    return ast.parse(text_of(path), filename=str(path))


def findings(paths: Iterable[Path], rule: Callable[[Path], Iterable[T]]) -> dict[str, list[T]]:
    """Return by file what a rule finds in it, without the files in which it finds nothing.

    The rules are looked at for all files in one test each: thousands of tests would take longer to collect than to run.
    """
    found = {name_of(path): list(rule(path)) for path in paths}
    assert found, "a rule without files finds nothing"
    return {name: each for name, each in found.items() if each}
