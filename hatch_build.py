"""The build hook of hatch: with `LOCKRING_COMPILE` set, a wheel holds the compiled modules too, beside their sources.

    LOCKRING_COMPILE=1       compiled by mypyc, and laid out by a training run where the compiler is gcc
    LOCKRING_COMPILE=plain   compiled without a training run, in half the time
    LOCKRING_COMPILE=quick   compiled without optimizations either, in a quarter of it: for tests

Without it the wheel is pure, needs no compiler to be built, and runs everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE: Final = "LOCKRING_COMPILE"
_CHOICES: Final = {"": None, "0": None, "1": [], "plain": ["--plain"], "quick": ["--quick"]}


def _choice() -> list[str] | None:
    """Return the options of `python -m compiled`, None for a pure wheel.

    Raises:
        ValueError: the variable has another value.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in _CHOICES:
        raise ValueError(f"{VARIABLE} is 1, plain, quick, or 0 for a pure wheel, not {value!r}")
    return _CHOICES[value]


class CompiledModules(BuildHookInterface):
    """Puts the compiled modules into a wheel, if that is wanted."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what the build needs besides: nothing for a pure wheel."""
        if _choice() is None:
            return []
        requirements = (Path(self.root) / "compiled" / "requirements.txt").read_text(encoding="utf-8")
        return [line for line in requirements.splitlines() if line and not line.startswith("#")]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the results for the wheel.

        Args:
            version: "standard", or "editable" for an install in place.
            build_data: what hatch builds the wheel from.

        Raises:
            ValueError: an install in place cannot be compiled.
        """
        options = _choice()
        if options is None:
            return
        if version == "editable":
            raise ValueError(
                f"an install in place cannot be compiled, since a module that changes later would go on running as it was: "
                f"unset {VARIABLE}, or install without --editable"
            )
        made = Path(self.root) / "build" / "mypyc" / "lib"
        subprocess.run([sys.executable, "-m", "compiled", str(made), *options], cwd=self.root, check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(path): path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()
        }
