"""The files of a journal: the few operations that it needs of a disk, and their implementation.

The journal sees a disk through `Files` and `OpenFile` alone, so that tests and the simulation can put one with faults
in the place of the real one. The operations promise as little as a POSIX system does:

- `write` reaches the system: the bytes survive the process, not the machine. A failed one may have written a part.
- `sync` makes bytes survive the machine. After a failed one, nothing that was not synced before may be relied on.
  A later success proves nothing about it: the system may have dropped the bytes and called them clean.
- A name survives the machine only after `sync_names`. Until then, names come and go in any order.

An exclusive lock (`flock`) shows that no other process uses the directory. It ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from lockring.errors import JournalError
from lockring.file_editions import edition_of
from lockring.journal.codec import FileIdentity
from lockring.system_errors import reason_of, way_out_of

LOCK_NAME: Final = "lock"

_PID_BYTES: Final = 32

_pwrite: Final = os.pwrite
"""Bound once, for each record: compiled code looks a module's functions up in a dictionary."""

_RESERVE_BYTES: Final = 1024 * 1024 if hasattr(os, "posix_fallocate") else 0
"""Thousands of records, so that one of thousands of syncs has to write down where the file's bytes are."""

_UNKNOWN_ROOM: Final = 1 << 61

_EXISTING: Final = os.O_RDWR | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def what_to_do(error: OSError) -> str:
    """Return an operator's ways out of an error of the journal's directory, as the end of a sentence."""
    way = way_out_of(error)
    return f"{f'{way}, or ' if way else ''}name another directory with --data-dir"


class OpenFile(Protocol):
    """A file that is open for reading and writing. Calls on different files may run in different threads at once."""

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at an offset.

        Raises:
            OSError: as the system says; a part may have been written.
        """

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from an offset on; fewer only at the end of the file."""

    def reserve(self, size: int) -> None:
        """Let the file be `size` bytes long, with zeros behind what it has, and have room for them on the disk.

        Raises:
            OSError: as the system says; the file may be longer than it was.
        """

    def cut(self, size: int) -> None:
        """Let the file end after `size` bytes."""

    def sync(self, size: int) -> None:
        """Make the first `size` bytes, or more, survive a loss of power. May take seconds."""

    def size(self) -> int:
        """Return the length of the file in bytes."""

    def identity(self) -> FileIdentity:
        """Return the numbers by which the file differs from a copy of it.

        Raises:
            OSError: the system does not say.
        """

    def altered_ns(self) -> int:
        """Return how long after its last write the file was changed in another way, in nanoseconds; near 0 if never."""

    def close(self) -> None:
        """Close the file, without a sync. Never fails, and a second call is harmless."""


class Files(Protocol):
    """A directory that belongs to one journal.

    Attributes:
        place: names the directory in messages to people.
        reserve_bytes: the step in which a file should grow that is synced again and again; 0 if by each write.
    """

    @property
    def place(self) -> str:
        """The directory, for people."""

    @property
    def reserve_bytes(self) -> int:
        """The step in which a file should grow that is synced again and again; 0 if by each write."""

    def room(self) -> int:
        """Return how many bytes more the volume takes; a large number where that is unknown."""

    def lock(self) -> FileIdentity:
        """Take the directory for this process, and return the identity of the lock file.

        Raises:
            JournalError: another process has it, or the file system cannot lock. The text names the directory.
        """

    def unlock(self) -> None:
        """Leave the directory to others."""

    def names(self) -> list[str]:
        """Return the names of all files, in any order."""

    def create(self, name: str) -> OpenFile:
        """Create a file that must not exist."""

    def open(self, name: str) -> OpenFile:
        """Open a file that exists."""

    def replace(self, name: str, by: str) -> None:
        """Let a name lead to the file that has had another one, at once: to the former file or to that one."""

    def delete(self, name: str) -> None:
        """Delete a file."""

    def sync_names(self) -> None:
        """Make the directory's names survive a loss of power, as they are."""

    def is_in_place(self, name: str, identity: FileIdentity) -> bool:
        """Return whether a name still leads to the file of this identity."""

    def is_deleted(self) -> bool:
        """Return whether the locked directory was deleted for good, rather than moved or unmounted.

        Raises:
            OSError: the system does not say.
        """

    def salt(self) -> int:
        """Return a random number of 64 bits."""


class DirectoryFiles:
    """The files in a real directory. Safe for use by several threads, as far as they use different files.

    All operations go to the directory that was opened, even if another one has its path meanwhile.

    Args:
        path: the directory; created, with its parents, if missing. Only its owner may enter it.

    Raises:
        JournalError: the directory cannot be made or opened. The text names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock_fd = -1
        self._fd = self._opened()

    @property
    def place(self) -> str:
        """The directory's path."""
        return str(self._path)

    @property
    def reserve_bytes(self) -> int:
        """The step in which files should grow: syncs of bytes that have a place already are shorter."""
        return _RESERVE_BYTES

    def room(self) -> int:
        """Return how many bytes more the volume takes."""
        try:
            volume = os.fstatvfs(self._fd)
        except OSError:
            return _UNKNOWN_ROOM
        return volume.f_bavail * volume.f_frsize

    def lock(self) -> FileIdentity:
        """Take the directory for this process, as `Files.lock`."""
        try:
            descriptor = os.open(LOCK_NAME, _EXISTING | os.O_CREAT, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise JournalError(
                f"the journal in {self._path} cannot be written: {reason_of(error)}; {what_to_do(error)}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, _PID_BYTES, 0).decode(errors="replace").strip()
            os.close(descriptor)
            who = f" (process {holder})" if holder else ""
            raise JournalError(
                f"the journal in {self._path} is in use by another node{who}; stop that one, or name another directory"
                " with --data-dir"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise JournalError(
                f"the journal in {self._path} cannot be locked: {reason_of(error)}; name a directory on a local disk with"
                " --data-dir, or keep no journal with --durability none"
            ) from error
        with contextlib.suppress(
            OSError
        ):  # on a full disk the next process just does not learn the number of this one
            os.pwrite(descriptor, f"{os.getpid()}\n".ljust(_PID_BYTES).encode(), 0)
            os.fsync(descriptor)
        self._lock_fd = descriptor
        return _identity_of(descriptor)

    def unlock(self) -> None:
        """Leave the directory to others. Nothing else may be called afterwards; a second call is harmless."""
        descriptors = (self._lock_fd, self._fd)
        self._lock_fd = self._fd = -1
        for descriptor in descriptors:
            _close(descriptor)

    def names(self) -> list[str]:
        """Return the names of all files."""
        return os.listdir(self._fd)

    def create(self, name: str) -> OpenFile:
        """Create a file that must not exist, for its owner alone."""
        return _DirectoryFile(os.open(name, _EXISTING | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._fd))

    def open(self, name: str) -> OpenFile:
        """Open a file that exists."""
        return _DirectoryFile(os.open(name, _EXISTING, dir_fd=self._fd))

    def replace(self, name: str, by: str) -> None:
        """Let a name lead to the file that has had another one, at once."""
        os.rename(by, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def delete(self, name: str) -> None:
        """Delete a file."""
        os.unlink(name, dir_fd=self._fd)

    def sync_names(self) -> None:
        """Sync the directory."""
        _sync_directory(self._fd)

    def is_in_place(self, name: str, identity: FileIdentity) -> bool:
        """Return whether the directory's path still leads to this file under this name."""
        try:
            found = os.stat(self._path / name)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (identity.device, identity.inode)

    def is_deleted(self) -> bool:
        """Return whether the lock file has no name any more.

        No segment counts without the lock file that it names. So what was deleted with it can never be vouched for.
        """
        return self._lock_fd >= 0 and os.fstat(self._lock_fd).st_nlink == 0

    def salt(self) -> int:
        """Return a random number of 64 bits."""
        return int.from_bytes(os.urandom(8), "big")

    def _opened(self) -> int:
        try:
            missing = [each for each in (self._path, *self._path.parents) if not each.exists()]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.mkdir(mode=0o700, exist_ok=True)
            # If a loss of power undid the creation, everything in it would be lost too.
            for made in missing:
                parent = os.open(made.parent, _DIRECTORY)
                try:
                    _sync_directory(parent)
                finally:
                    os.close(parent)
            return os.open(self._path, _DIRECTORY)
        except (FileExistsError, NotADirectoryError) as error:
            raise JournalError(
                f"the journal's directory {self._path} is a file, or lies in one; name a directory with --data-dir"
            ) from error
        except OSError as error:
            raise JournalError(
                f"the journal's directory {self._path} cannot be made: {reason_of(error)}; {what_to_do(error)}"
            ) from error


class _DirectoryFile:
    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    def write(self, data: bytes, offset: int) -> None:
        written = _pwrite(self._fd, data, offset)
        while written < len(data):
            # The disk is full, or a limit of the process is reached: the next call fails, and says why.
            written += _pwrite(self._fd, data[written:], offset + written)

    def read(self, size: int, offset: int) -> bytes:
        found = os.pread(self._fd, size, offset)
        while len(found) < size:
            more = os.pread(self._fd, size - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    def reserve(self, size: int) -> None:
        # Where the file system cannot, the C library writes a zero into each block: no thread may write meanwhile.
        os.posix_fallocate(self._fd, 0, size)

    def cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self, size: int) -> None:
        _fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def identity(self) -> FileIdentity:
        return _identity_of(self._fd)

    def altered_ns(self) -> int:
        found = os.fstat(self._fd)
        return abs(found.st_ctime_ns - found.st_mtime_ns)

    def close(self) -> None:
        descriptor, self._fd = self._fd, -1
        _close(descriptor)


def _close(descriptor: int) -> None:
    """Close a descriptor, if it is one. It is free afterwards, whatever the system says of bytes that it kept back."""
    if descriptor >= 0:
        with contextlib.suppress(OSError):  # a sync has said so before, or nothing depends on these bytes
            os.close(descriptor)


def _fdatasync(descriptor: int) -> None:
    """Sync the content of a file and what is needed to read it, such as its length; not its times."""
    if hasattr(fcntl, "F_FULLFSYNC"):  # where the other calls leave it to the disk when to write
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _identity_of(descriptor: int) -> FileIdentity:
    found = os.fstat(descriptor)
    return FileIdentity(found.st_dev, found.st_ino, edition_of(descriptor))


def _sync_directory(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # the file system cannot, and keeps names safe by itself
            raise
