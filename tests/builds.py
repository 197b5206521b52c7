"""The build of lockring that the tests run on: that of the interpreter that runs them.

`LOCKRING_BUILD=compiled` says which one it has to be, so that no test passes on another one by mistake.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Any, Final

import pytest

from lockring.build_kind import BUILD, COMPILED

VARIABLE: Final = "LOCKRING_BUILD"


def check() -> None:
    """Check that this is the build that should be tested.

    Raises:
        pytest.UsageError: it is another one.
    """
    wanted = os.environ.get(VARIABLE, BUILD)
    if wanted != BUILD:
        raise pytest.UsageError(
            f"{VARIABLE} is {wanted}, but {sys.executable} has the {BUILD} build of lockring"
        )


def skip_marked(items: list[pytest.Item]) -> None:
    """Mark the tests to be skipped that patch or inspect code that is compiled in this build."""
    if BUILD == COMPILED:
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip(reason="it patches or inspects code that is compiled"))


def refuse_if_compiled(reason: str) -> None:
    """Skip the test module that imports the caller, or end the program, in the compiled build."""
    if BUILD == COMPILED and "_pytest.main" in sys.modules:
        pytest.skip(reason, allow_module_level=True)
    if BUILD == COMPILED:
        sys.exit(f"{reason}: run it on the interpreted build")


def skip_if_compiled(target: Any) -> None:
    """Skip a test before it patches a compiled module or class: compiled code would not notice.

    Args:
        target: as for `monkeypatch.setattr`, or its dotted name.
    """
    if isinstance(target, str):
        target = _resolved(target.rpartition(".")[0])
    module = target if isinstance(target, ModuleType) else sys.modules.get(getattr(target, "__module__", ""))
    if module is None:
        return
    is_compiled = (getattr(module, "__file__", None) or "").endswith(tuple(EXTENSION_SUFFIXES))
    if is_compiled and module.__name__.startswith("lockring."):
        pytest.skip(f"it patches {module.__name__}, which is compiled")


def _resolved(name: str) -> Any:
    """Return the module or class of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        place, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(place), attribute)
