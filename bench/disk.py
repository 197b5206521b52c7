"""The disk on which servers keep what must survive: its place and its file system.

A figure about durability means nothing on a file system in memory, where a sync costs nothing. So the directories of
all servers are made on one file system that a disk backs, and a sync there is timed in turn with them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
"""File systems whose files are gone with the power."""

_MOUNTS: Final = Path("/proc/self/mountinfo")


class NoDisk(RuntimeError):
    """Every directory in question lies in memory."""


class Disk(NamedTuple):
    """A place for files.

    Attributes:
        directory: the directory in which servers' directories are made.
        file_system: type of its file system, such as "ext4".
        device: the device below it.
    """

    directory: Path
    file_system: str
    device: str

    def __str__(self) -> str:
        return f"{self.file_system} on {self.device}"


def find_disk(directories: Iterable[Path] = ()) -> Disk:
    """Return the first of some directories that lies on a disk.

    Args:
        directories: the candidates; by default the one for temporary files, /var/tmp and the present one.

    Raises:
        NoDisk: there is none.
    """
    candidates = list(directories) or [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()]
    seen = []
    for directory in candidates:
        if not os.access(directory, os.W_OK):
            continue
        file_system, device = _mount_of(directory.resolve(), _MOUNTS.read_text(encoding="utf-8"))
        if file_system not in IN_MEMORY:
            return Disk(directory, file_system, device)
        seen.append(f"{directory} is on {file_system}")
    raise NoDisk(
        f"durability cannot be measured: {', '.join(seen) or 'there is no directory to write to'}. "
        "Set TMPDIR to a directory on a disk."
    )


def _mount_of(directory: Path, mounts: str) -> tuple[str, str]:
    """Return the file system's type and device of an absolute path, by the kernel's table of mounts.

    The deepest mount point above the path counts, and of several mounts on one point the last.
    """
    found, depth = ("unknown", "unknown"), -1
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))
        if directory.is_relative_to(point) and len(point.parts) >= depth:
            file_system, device = rest.split()[:2]
            found, depth = (file_system, device), len(point.parts)
    return found
