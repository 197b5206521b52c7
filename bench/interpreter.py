"""Find the fastest Python of this machine: `python3 bench/interpreter.py` prints its path, for `make bench`.

Interpreters of one version differ by a quarter: with profile feedback (PGO) or without, linked statically or not. Which
one a build is cannot be asked of it, so each is timed: a fixed loop of calls, in turn with the others. Run by any
Python, without a library.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

LEAST: Final = (3, 11)
_PASSES: Final = 5
_ANSWER_S_MAX: Final = 30.0
_PROBE: Final = """
import ensurepip, venv, sys, time
class Account:
    __slots__ = ("total", "names")
    def __init__(self):
        self.total, self.names = 0, {}
    def add(self, name, amount):
        self.names[name] = self.names.get(name, 0) + amount
        self.total += amount
        return self.total
def work():
    account = Account()
    for number in range(20000):
        account.add(f"name-{number & 63}", number)
work()
best = 1e9
for _ in range(4):
    begin = time.perf_counter()
    work()
    best = min(best, time.perf_counter() - begin)
print(*sys.version_info[:3], best * 1e3, sys.prefix != sys.base_prefix, sys.executable)
"""


class Timed(NamedTuple):
    """An interpreter that can make virtual environments.

    Attributes:
        path: its path, without links or a launcher's detour.
        version: its version, such as "3.11.2".
        ms: the time of the loop, in milliseconds.
    """

    path: str
    version: str
    ms: float


def candidates() -> list[str]:
    """Return the paths of all Pythons in the places of PATH and in the usual ones, each once."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    names = ["python3", *(f"python3.{minor}" for minor in range(LEAST[1], LEAST[1] + 8))]
    found: dict[str, str] = {}
    for path in (Path(place, name) for place in places if place for name in names):
        if path.is_file() and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), str(path))
    return list(found.values())


def timed(paths: Iterable[str]) -> list[Timed]:
    """Return the interpreters that serve, the fastest first; each was timed in turn with the others."""
    best = {found.path: found for path in paths if (found := _time(path)) is not None}
    for _ in range(_PASSES - 1):
        for path in best:
            found = _time(path)
            if found is not None and found.ms < best[path].ms:
                best[path] = found
    return sorted(best.values(), key=lambda each: each.ms)


def _time(path: str) -> Timed | None:
    """Time an interpreter once; None if it is too old, makes no environments, or lives in one."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            [path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=_ANSWER_S_MAX, check=True
        )
        major, minor, micro, ms, is_virtual, executable = done.stdout.strip().split(" ", 5)
        if (int(major), int(minor)) >= LEAST and is_virtual == "False":
            return Timed(os.path.realpath(executable), f"{major}.{minor}.{micro}", float(ms))
    return None


def main() -> None:
    """Print the path of the fastest interpreter, and on standard error how each did."""
    found = timed(candidates())
    if not found:
        sys.exit(
            "no Python 3.11 or newer here can make virtual environments; on Debian: apt install python3-venv"
        )
    for each in found:
        print(f"{each.path} ({each.version}): {each.ms:.2f} ms for a fixed loop", file=sys.stderr)
    print(found[0].path)


if __name__ == "__main__":
    main()
