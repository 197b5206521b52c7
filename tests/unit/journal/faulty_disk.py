"""A disk with faults, in memory, for the journal's files.

It keeps what a system keeps apart: the files as processes see them, and what of them survives a loss of power. Between
the two lies what was written and not synced. A loss of power keeps any part of that.

The disk outlives its processes. Each life of a node gets `FaultyDisk.files()`, and its death is `kill()`.
"""

from __future__ import annotations

import errno
import os
from random import Random

from lockring.errors import JournalError
from lockring.journal.codec import FileIdentity
from lockring.journal.files import LOCK_NAME
from lockring.journal.host import Host

SECTOR_BYTES = 512
"""The unit that a disk writes whole or not at all."""


RESERVE_BYTES = 300
"""The step in which a file grows ahead of what is written: a few records, so that they are at its end often."""


class ProcessKilled(Exception):
    """The process died in the middle of a write."""


class _Inode:
    """A file. `durable` is what survives a loss of power, `writes` what was written since, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.content = bytearray()
        self.durable = b""
        self.writes: list[tuple[int, bytes]] = []
        self.altered_ns = 0

    def copy(self, number: int) -> _Inode:
        made = _Inode(number)
        made.content, made.durable, made.writes = bytearray(self.content), self.durable, list(self.writes)
        made.altered_ns = self.altered_ns
        return made


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class FaultyDisk:
    """A directory on a machine, with its faults.

    Args:
        random: decides what a loss of power keeps, and where faults strike.
        machine: id of the machine.

    Attributes:
        free_bytes: how much may still be written; None for a disk that is never full.
        fails_writes, fails_syncs: whether each of these fails with EIO.
        fails_creations: whether no new file can be made, as for want of inodes.
        is_stale: whether the system says nothing of open files and the directory, as on a mount that is gone.
        torn_after: the bytes of the next write after which the process dies; None if it does not.
        syncs: how many syncs succeeded.
    """

    def __init__(self, random: Random, machine: str = "m" * 32) -> None:
        self._random = random
        self._machine = machine
        self._boot = 1
        self._inodes = 0
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._holder: FaultyFiles | None = None
        self._directory = 1
        self.free_bytes: int | None = None
        self.fails_writes = False
        self.fails_syncs = False
        self.fails_creations = False
        self.is_stale = False
        self.torn_after: int | None = None
        self.syncs = 0

    # ----------------------------------------------------------------------- lives

    @property
    def host(self) -> Host:
        """The machine in its present boot."""
        return Host(f"boot-{self._boot}", self._machine)

    def files(self) -> FaultyFiles:
        """Return the files, for the next life."""
        return FaultyFiles(self)

    def kill(self) -> None:
        """The process dies: what it wrote stays, and its lock ends."""
        self._holder = None
        self.torn_after = None

    def lose_power(self, *, in_order: bool | None = None) -> None:
        """The machine loses power: what was not synced is lost, in part or whole, and another boot begins.

        Args:
            in_order: whether what was written first survives first, cut at a random byte; if not, each sector that was
                written survives or not by itself. Drawn if None.
        """
        self.kill()
        self._boot += 1
        if in_order is None:
            in_order = self._random.random() < 0.5
        names = self._surviving_names()
        for inode in {id(inode): inode for inode in names.values()}.values():
            self._lose(inode, in_order=in_order)
        self._names, self._durable_names = names, dict(names)

    def _surviving_names(self) -> dict[str, _Inode]:
        found = {}
        for name in sorted({*self._names, *self._durable_names}):
            before, now = self._durable_names.get(name), self._names.get(name)
            inode = now if before is now or self._random.random() < 0.5 else before
            if inode is not None:
                found[name] = inode
        return found

    def _lose(self, inode: _Inode, *, in_order: bool) -> None:
        content, reserved = bytearray(inode.durable), len(inode.content)
        left = self._random.randint(0, sum(len(data) for _, data in inode.writes))
        for offset, data in inode.writes:
            if in_order:
                _write(content, offset, data[:left])
                left = max(0, left - len(data))
                continue
            start = offset
            while start < offset + len(data):
                end = min(offset + len(data), (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
                if self._random.random() < 0.5:
                    _write(content, start, data[start - offset : end - offset])
                start = end
        # The length goes by itself: any part of what was reserved may be there, as zeros.
        content.extend(bytes(self._random.randint(0, max(0, reserved - len(content)))))
        inode.content, inode.durable, inode.writes = content, bytes(content), []

    # ----------------------------------------------------------------------- what people do to a directory

    def copy(self) -> dict[str, bytes]:
        """Return a copy of all files as they are now: a backup."""
        return {name: bytes(inode.content) for name, inode in self._names.items()}

    def put_back(self, copy: dict[str, bytes], *, in_place: bool = False) -> None:
        """Put a copy in the place of all files: as new files, or over those of the same name, with their times."""
        before, self._names = self._names, {}
        for name, content in copy.items():
            inode = before.get(name) if in_place else None
            if inode is None:
                inode = self._inode()
            inode.content, inode.durable, inode.writes = bytearray(content), content, []
            inode.altered_ns = 3600 * 10**9
            self._names[name] = inode
        self._durable_names = dict(self._names)
        self._directory += not in_place

    def lose_directory(self) -> None:
        """All files are gone; a process that is running has its own, which no one else can reach."""
        self._names, self._durable_names = {}, {}
        self._directory += 1
        self._holder = None

    def change_machine(self, machine: str) -> None:
        """The disk moves to another machine."""
        self.kill()
        self._machine = machine
        self._boot += 1

    def size_of(self, name: str) -> int:
        """Return the length of a file."""
        return len(self._names[name].content)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._names)

    def flip_bit(self, name: str, bit: int) -> None:
        """Flip a bit of a file, where it is read as well as where it is durable."""
        inode = self._names[name]
        inode.content[bit // 8] ^= 1 << bit % 8
        inode.durable, inode.writes = bytes(inode.content), []

    def truncate(self, name: str, size: int) -> None:
        """Cut a file."""
        inode = self._names[name]
        del inode.content[size:]
        inode.durable, inode.writes = bytes(inode.content), []

    def delete(self, name: str) -> None:
        """Delete a file, at once and for good."""
        del self._names[name]
        self._durable_names.pop(name, None)

    # ----------------------------------------------------------------------- for the files

    def _demand_mounted(self) -> None:
        if self.is_stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _inode(self) -> _Inode:
        self._inodes += 1
        return _Inode(self._inodes)


class FaultyFiles:
    """The files of a `FaultyDisk`, as one life has them."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._names = disk._names
        self._directory = disk._directory

    @property
    def place(self) -> str:
        return "/data/journal"

    @property
    def reserve_bytes(self) -> int:
        return RESERVE_BYTES

    def room(self) -> int:
        return 1 << 62 if self._disk.free_bytes is None else self._disk.free_bytes

    def lock(self) -> FileIdentity:
        if self._disk._holder is not None:
            raise JournalError(
                f"the journal in {self.place} is in use by another node (process 1); stop that one, or name another"
                " directory with --data-dir"
            )
        self._disk._holder = self
        if LOCK_NAME not in self._disk._names:
            self._disk._names[LOCK_NAME] = self._disk._inode()
        return self._identity(self._disk._names[LOCK_NAME])

    def unlock(self) -> None:
        if self._disk._holder is self:
            self._disk._holder = None

    def names(self) -> list[str]:
        return list(self._here())

    def create(self, name: str) -> FaultyFile:
        if name in self._here():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if self._disk.free_bytes == 0 or self._disk.fails_creations:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inode = self._here()[name] = self._disk._inode()
        return FaultyFile(self._disk, inode)

    def open(self, name: str) -> FaultyFile:
        if name not in self._here():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return FaultyFile(self._disk, self._here()[name])

    def replace(self, name: str, by: str) -> None:
        here = self._here()
        here[name] = here.pop(by)

    def delete(self, name: str) -> None:
        inode = self._here().pop(name, None)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self._disk.free_bytes is not None:
            self._disk.free_bytes += len(inode.content)

    def sync_names(self) -> None:
        if self._disk.fails_syncs:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk._durable_names = dict(self._here())

    def is_in_place(self, name: str, identity: FileIdentity) -> bool:
        found = self._disk._names.get(name)
        return found is not None and self._identity(found) == identity

    def is_deleted(self) -> bool:
        self._disk._demand_mounted()
        return self._directory != self._disk._directory

    def salt(self) -> int:
        return self._disk._random.getrandbits(64)

    def _here(self) -> dict[str, _Inode]:
        if self._directory != self._disk._directory:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._disk._names

    def _identity(self, inode: _Inode) -> FileIdentity:
        return FileIdentity(1, inode.number, 0)


class FaultyFile:
    """One open file of a `FaultyDisk`."""

    def __init__(self, disk: FaultyDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes, offset: int) -> None:
        disk = self._disk
        if disk.fails_writes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if disk.torn_after is not None:
            self._put(data[: disk.torn_after], offset)
            raise ProcessKilled
        grows = max(0, offset + len(data) - len(self._inode.content))
        if disk.free_bytes is not None and grows > disk.free_bytes:
            self._put(data[: len(data) - grows + disk.free_bytes], offset)
            disk.free_bytes = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if disk.free_bytes is not None:
            disk.free_bytes -= grows
        self._put(data, offset)

    def _put(self, data: bytes, offset: int) -> None:
        _write(self._inode.content, offset, data)
        self._inode.writes.append((offset, bytes(data)))
        self._inode.altered_ns = 0

    def reserve(self, size: int) -> None:
        disk, grows = self._disk, size - len(self._inode.content)
        if grows <= 0:
            return
        room = grows if disk.free_bytes is None else min(grows, disk.free_bytes)
        self._inode.content.extend(bytes(room))
        if disk.free_bytes is not None:
            disk.free_bytes -= room
        if room < grows:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut(self, size: int) -> None:
        if self._disk.free_bytes is not None:
            self._disk.free_bytes += max(0, len(self._inode.content) - size)
        del self._inode.content[size:]

    def read(self, size: int, offset: int) -> bytes:
        return bytes(self._inode.content[offset : offset + size])

    def sync(self, size: int) -> None:
        inode = self._inode
        if self._disk.fails_syncs:
            # The system calls the bytes clean now, and a later sync writes only what is written from here on.
            inode.writes.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._disk.syncs += 1
        # A worker may sync while the process goes on to write: what is appended meanwhile stays.
        durable, left, found = bytearray(inode.durable), [], inode.writes[:]
        for offset, data in found:
            kept = data[: max(0, size - offset)]
            _write(durable, offset, kept)
            if len(kept) < len(data):
                left.append((offset + len(kept), data[len(kept) :]))
        inode.durable = bytes(durable)
        inode.writes[: len(found)] = left

    def size(self) -> int:
        return len(self._inode.content)

    def identity(self) -> FileIdentity:
        self._disk._demand_mounted()
        return FileIdentity(1, self._inode.number, 0)

    def altered_ns(self) -> int:
        return self._inode.altered_ns

    def close(self) -> None:
        pass
