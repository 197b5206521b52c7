"""A resource that takes fencing tokens seriously: it refuses the writes of former holders.

It is a file with the highest token so far and the counts of the writes, locked while it is changed. A resource of your
own needs no more than the comparison with the highest token.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_CONTENT: Final = struct.Struct(">QQQQ")


class Entry(NamedTuple):
    """The content of a ledger.

    Attributes:
        token: the highest fencing token that has written.
        writes: how many writes were taken.
        refused: how many were refused, since their token was below the highest.
        writers: how often a write was taken under a token above all before it: so many holders have written, one after
            the other.
    """

    token: int = 0
    writes: int = 0
    refused: int = 0
    writers: int = 0


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
            is_taken = token >= before.token
            if is_taken:
                is_next = token > before.token or before.writes == 0
                after = Entry(token, before.writes + 1, before.refused, before.writers + is_next)
            else:
                after = before._replace(refused=before.refused + 1)
            os.pwrite(descriptor, _CONTENT.pack(*after), 0)
            return is_taken
        finally:
            os.close(descriptor)

    def read(self) -> Entry:
        """Return its content."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Entry()
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> Entry:
    content = os.pread(descriptor, _CONTENT.size, 0)
    return Entry(*_CONTENT.unpack(content)) if len(content) == _CONTENT.size else Entry()
