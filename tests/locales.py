"""Environments in which Python decodes what the system hands over by something else than UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

# Python takes UTF-8 for the C locale of its own accord; these two say that it must not.
_AS_THE_LOCALE_SAYS = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_OF_A_LOCALE = ("LANG", "LANGUAGE", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING")


def _plain() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_A_LOCALE and not name.startswith("LC_")
    }


def encoding_of(environ: dict[str, str]) -> str:
    """Return the encoding by which a Python started in this environment decodes its arguments."""
    code = "import sys; print(sys.getfilesystemencoding())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def environments(folder: Path) -> dict[str, dict[str, str]]:
    """Environments by the encoding that they stand for: UTF-8, ASCII, and Latin-1 where its locale can be had."""
    found = {
        "utf-8": {**_plain(), "LC_ALL": "C.UTF-8"},
        "C": {**_plain(), "LC_ALL": "C"},
        "ascii": {**_plain(), **_AS_THE_LOCALE_SAYS, "LC_ALL": "POSIX"},
    }
    name = "en_US.ISO-8859-1"
    if which("localedef") is not None:
        # Reports missing charmaps by its exit code; then there is no Latin-1 here.
        done = subprocess.run(
            ["localedef", "-f", "ISO-8859-1", "-i", "en_US", str(folder / name)], capture_output=True
        )
        if done.returncode == 0:
            found["latin-1"] = {**_plain(), **_AS_THE_LOCALE_SAYS, "LC_ALL": name, "LOCPATH": str(folder)}
            assert encoding_of(found["latin-1"]).replace("-", "").startswith("iso8859")
    assert encoding_of(found["ascii"]) == "ascii"
    return found
