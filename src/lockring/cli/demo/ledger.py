"""A resource that takes fencing tokens seriously: it refuses the writes of former holders.

It is a file with the highest token so far and the sum of the writes, locked while it is changed. A resource of your own
needs no more than the same comparison.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_CONTENT: Final = struct.Struct(">QQ")


class Entry(NamedTuple):
    """The content of a ledger.

    Attributes:
        token: the highest fencing token that has written.
        writes: how many writes were taken.
    """

    token: int
    writes: int


class Ledger:
    """See the module. Safe for use by any number of processes.

    Args:
        path: the file; it is made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, token: int) -> bool:
        """Write under a fencing token, and return whether the write was taken."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = _read(descriptor)
            if token < before.token:
                return False
            os.pwrite(descriptor, _CONTENT.pack(token, before.writes + 1), 0)
            return True
        finally:
            os.close(descriptor)

    def read(self) -> Entry:
        """Return its content."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Entry(0, 0)
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> Entry:
    content = os.pread(descriptor, _CONTENT.size, 0)
    return Entry(*_CONTENT.unpack(content)) if len(content) == _CONTENT.size else Entry(0, 0)
