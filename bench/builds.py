"""The builds of lockring that can be measured: the interpreted one of this environment, and a compiled one in another.

Both come from the same sources and run on the same Python. The compiled one is found by the path of its interpreter.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

VARIABLE: Final = "BENCH_COMPILED"
"""Names the interpreter of an environment with a compiled lockring."""

_DEFAULT: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "compiled" / "bin" / "python"
_PROBE_S_MAX: Final = 60.0
_PROBE: Final = """
import importlib.machinery, json, pathlib, sys
import lockring
place = pathlib.Path(lockring.__file__).parent
endings = tuple(importlib.machinery.EXTENSION_SUFFIXES)
compiled = sum(path.name.endswith(endings) for path in place.rglob("*"))
print(json.dumps({"python": sys.version, "place": str(place), "compiled": compiled}))
"""


class Build(NamedTuple):
    """An installed lockring.

    Attributes:
        python: the version of its interpreter, in full.
        place: its directory.
        compiled: how many of its modules are compiled.
    """

    python: str
    place: str
    compiled: int


@functools.cache
def build_of(python: str) -> Build:
    """Return the build that an interpreter imports.

    Raises:
        OSError: there is no such interpreter.
        subprocess.SubprocessError: it has no lockring.
    """
    done = subprocess.run(
        [python, "-c", _PROBE],
        capture_output=True,
        text=True,
        timeout=_PROBE_S_MAX,
        check=True,
        cwd=Path(python).parent,
    )
    return Build(**json.loads(done.stdout))


def compiled_python() -> str:
    """Return the path of the interpreter whose environment should have the compiled build."""
    return os.environ.get(VARIABLE, str(_DEFAULT))


def lack_of_interpreted() -> str:
    """Return the reason that rules out measuring the interpreted build, as a sentence; "" for none."""
    build = build_of(sys.executable)
    if build.compiled:
        return f"lockring, interpreted: left out, {build.place} has {build.compiled} compiled modules"
    return ""


def lack_of_compiled() -> str:
    """Return the reason that rules out measuring the compiled build, as a sentence; "" for none."""
    python = compiled_python()
    try:
        build = build_of(python)
    except OSError:
        return f"lockring, compiled: left out, there is no {python}. Another one: {VARIABLE}=/path/to/python"
    except subprocess.SubprocessError:
        return f"lockring, compiled: left out, {python} cannot import lockring"
    if not build.compiled:
        return f"lockring, compiled: left out, no module of {os.path.relpath(build.place)} is compiled"
    if build.python != sys.version:
        return f"lockring, compiled: left out, {python} is Python {build.python}, and not {sys.version}"
    return ""
