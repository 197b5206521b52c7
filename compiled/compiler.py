"""The C compiler of this machine: `python -m compiled.compiler` says why there is none for this Python, and fails then.

It asks nothing of other packages, so that any Python can be asked before anything is installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def command() -> list[str]:
    """Return the command of the C compiler: that of the variable CC, or the one that has made this Python."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def lack() -> str:
    """Return the reason for which nothing can be compiled here, as a sentence; "" for none."""
    program = command()[0]
    if shutil.which(program) is None:
        return f"there is no C compiler ({program}); on Debian and Ubuntu: apt install gcc"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return (
            f"there are no headers of this Python ({header}); on Debian and Ubuntu: apt install python3-dev"
        )
    return ""


def is_gcc() -> bool:
    """Return whether the compiler is gcc, whatever its command is called; clang says that it is gcc, too."""
    done = subprocess.run(
        [*command(), "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True, check=False
    )
    macros = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("#define ")}
    return "__GNUC__" in macros and "__clang__" not in macros


def main() -> None:
    """Say what is missing."""
    reason = lack()
    if reason:
        sys.exit(reason)


if __name__ == "__main__":
    main()
