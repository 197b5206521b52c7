"""The previous version of lockring, taken from the history of the repository.

Its dependencies are those of this version, so that its sources are all that is needed: processes that have them first
in their PYTHONPATH run it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

PREVIOUS: Final = "250393264b96d57a50c11014274cf633f98345e0"
"""The last commit of the version before this one: one coordinator, and nodes that keep everything in memory.

Pin the commit of a release here, once that has become the previous version.
"""

ROOT: Final = Path(__file__).parents[2]

_MISSING: Final = f"""\
The test of an upgrade runs the previous version, which is commit {PREVIOUS} of this repository.
%s
Get the whole history with `git fetch --unshallow`; a job of a CI service clones it with a depth of 0."""


class PreviousMissing(RuntimeError):
    """The previous version is not in this clone; the text says how to get it."""


def unpack_previous(target: Path) -> Path:
    """Unpack the sources of the previous version, and return the folder that goes into PYTHONPATH.

    A clone that lacks the commit, as a shallow one does, tries to fetch it alone from its origin.

    Raises:
        PreviousMissing: this folder is not a clone, or has not got the commit and cannot fetch it.
    """
    if not _has_commit():
        _git("fetch", "--quiet", "--depth=1", "origin", PREVIOUS)
    archive = _git("archive", "--format=tar", PREVIOUS, "src")
    if archive.returncode:
        raise PreviousMissing(_MISSING % archive.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")
    sources = target / "src"
    found = _imported_from(sources)
    assert found == sources / "lockring", f"the previous version would be imported from {found}"
    return sources


def variables_for(sources: Path | None) -> dict[str, str]:
    """Return the variables of a process that runs these sources of lockring, or those of this version for None."""
    return {"PYTHONPATH": os.pathsep.join(map(str, [sources or ROOT / "src", ROOT]))}


def _imported_from(sources: Path) -> Path:
    code = "import lockring; print(lockring.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables_for(sources)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Path(found.stdout.strip()).parent


def _has_commit() -> bool:
    return _git("cat-file", "-e", f"{PREVIOUS}^{{commit}}").returncode == 0


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this repository, although another user may own its files: containers often run tests as root."""
    try:
        return subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise PreviousMissing(_MISSING % "git is not installed.") from None
