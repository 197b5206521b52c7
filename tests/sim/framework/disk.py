"""A node's disk: the files of its journal in memory, and what is left of them after a process or a machine has died.

The real `Journal` works on it, through the same few operations as on a real disk. What those promise is kept, and no
more:

- The death of a process leaves all that was written. Only the write that it was in the middle of may be torn.
- A loss of power leaves what was synced. Of later writes any bytes may be there: those up to some byte, or some
  sectors and not others, with zeros in their places. Of the room that a file was given, any part may be there.
- Names that were not synced may be there or not, and so may the files that were deleted.
- After a failed sync the system has dropped what was not synced before, though it can still be read; a later sync says
  nothing about that.
- A copy of a file is another file: it has another identity, or shows that its times were set.
"""

from __future__ import annotations

import errno
import os
import random
from itertools import pairwise
from typing import Final

from lockring.errors import JournalError
from lockring.journal.codec import FileIdentity, decode_nameplate
from lockring.journal.files import LOCK_NAME
from lockring.journal.host import Host
from lockring.journal.journal import POSITION_NAME
from tests.sim.framework.world import MS, S, World

SECTOR_BYTES: Final = 512
"""The bytes that a disk writes at once or not at all."""

_WRITES_KEPT: Final = 64
"""A system does not keep written bytes in memory forever: of more writes than this, the oldest reach the disk."""

_LONG_NS: Final = 1 << 60

_RENEWED_NS: Final = 3 * S // 2
"""How long after a write the position file is another one, and on the disk: a second, the mark before it, and what
timers are late. Where answers wait for syncs, three of them may come before."""

_MARKED_NS: Final = 300 * MS
"""How long after an answer a mark vouches for it: a tenth of a second, and what timers are late."""


class Picture:
    """A backup of a directory, as it was at a moment.

    Attributes:
        files: by name.
        lacks_since: when the first record was written that it lacks, on the clock of its disk; None before that.
        met_failure: whether the disk failed since: then the position file may be as it was.
    """

    __slots__ = ("files", "lacks_since", "met_failure")

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.lacks_since: int | None = None
        self.met_failure = False


class Killed(BaseException):
    """The process is killed in the middle of a write."""


class _Inode:
    """A file's content.

    Attributes:
        data: what processes read.
        durable: what survives a loss of power.
        pending: what was written since, in order: offsets and bytes.
        identity: as `OpenFile.identity`.
        altered_ns: as `OpenFile.altered_ns`.
    """

    __slots__ = ("altered_ns", "data", "durable", "identity", "pending")

    def __init__(self, identity: FileIdentity, data: bytes = b"", altered_ns: int = 0) -> None:
        self.identity = identity
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.pending: list[tuple[int, bytes]] = []
        self.altered_ns = altered_ns

    def write(self, data: bytes, offset: int) -> None:
        _put(self.data, data, offset)
        self.pending.append((offset, bytes(data)))
        self.altered_ns = 0
        if len(self.pending) > _WRITES_KEPT:
            for where, written in self.pending[: _WRITES_KEPT // 2]:
                _put(self.durable, written, where)
            del self.pending[: _WRITES_KEPT // 2]

    def sync(self, size: int) -> None:
        later: list[tuple[int, bytes]] = []
        for offset, data in self.pending:
            room = max(0, size - offset)
            _put(self.durable, data[:room], offset)
            if room < len(data):
                later.append((offset + room, data[room:]))
        self.pending = later

    def lose_power(self, rng: random.Random) -> None:
        """Keep what was synced, and of what was written since as much as chance has it."""
        if rng.random() < 0.5:
            left = rng.randrange(sum(len(data) for _, data in self.pending) + 1)
            for offset, data in self.pending:
                _put(self.durable, data[:left], offset)
                left -= min(left, len(data))
        else:
            share = rng.choice((0.0, 0.5, 0.9, 1.0))
            for offset, data in self.pending:
                for begin, end in _sectors(offset, offset + len(data)):
                    if rng.random() < share:
                        _put(self.durable, data[begin - offset : end - offset], begin)
                    elif rng.random() < 0.5:
                        self.durable.extend(bytes(max(0, end - len(self.durable))))
        room = len(self.data) - len(self.durable)
        if room > 0 and rng.random() < 0.5:
            self.durable.extend(bytes(rng.randrange(room + 1)))
        self.pending = []
        self.data = bytearray(self.durable)


def _put(where: bytearray, data: bytes, offset: int) -> None:
    if data:
        where.extend(bytes(max(0, offset - len(where))))
        where[offset : offset + len(data)] = data


def _sectors(begin: int, end: int) -> list[tuple[int, int]]:
    cuts = [begin, *range(begin - begin % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    return list(pairwise(cuts))


class SimDisk:
    """The disk of one machine, with the directory of one journal.

    Attributes:
        host: the machine in its present boot.
        is_synced: whether the node's answers wait for a sync.
        is_full: whether no file can grow.
        fails: whether syncs fail.
        failures: how many writes and syncs have failed.
        slow_ns: longest time that a sync takes; the shortest is a tenth of it.
        tears: whether the next write to a segment kills its process halfway.
        reserve_bytes: as `Files.reserve_bytes`; some records, so that they are at the end of their room often.
        doubt: an event that makes the directory doubtful, "" for none. The life that reads it clears it.
    """

    def __init__(self, name: str, world: World, *, is_synced: bool) -> None:
        self.name = name
        self._world = world
        self.is_synced = is_synced
        self.host = Host(f"{name} boot 1", f"{name} machine")
        self.is_full = False
        self.fails = False
        self.failures = 0
        self.slow_ns = 2 * MS
        self.tears = False
        self.doubt = "it is new"
        self._rng = rng = world.rng(f"disk of {name}")
        self._pictures: list[Picture] = []
        self._stopped_ns = 0
        self._unused_since: int | None = world.now
        self._longest_sync_ns = 0
        self._unmarked_since: int | None = None
        self._mark_is_unsynced_since: int | None = None
        self._boots = 1
        self._inodes = 100
        self.reserve_bytes = rng.choice((0, 700, 5_000))
        self._knows_generations = rng.random() < 0.5
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._user: SimFiles | None = None

    # ------------------------------------------------------------------ processes

    def files(self) -> SimFiles:
        """Return the directory for a process that starts, and that does not have it yet."""
        return SimFiles(self)

    def process_died(self, files: SimFiles) -> None:
        """Let go of what a process had. It is dead, or has made the directory again."""
        files.is_over = True
        if self._user is files:
            self.used_by(None)

    def used_by(self, files: SimFiles | None) -> None:
        """Note that a process has the directory from now on, or none."""
        now = self._world.now
        if files is None:
            self._unused_since = now
        elif self._unused_since is not None:
            self._stopped_ns += now - self._unused_since
            self._unused_since = None
        self._user = files

    def lose_power(self) -> None:
        """Keep what survives a loss of power; the machine starts again. Its process must be over."""
        if not self.is_synced:
            self.doubt = "its machine lost its power"
        self._boots += 1
        self.host = self.host._replace(boot=f"{self.name} boot {self._boots}")
        rng = self._rng
        for name in sorted({*self._names, *self._durable_names}):
            now, then = self._names.get(name), self._durable_names.get(name)
            if now is not then and rng.random() < 0.5:
                if now is None:
                    del self._durable_names[name]
                else:
                    self._durable_names[name] = now
        self._names = dict(self._durable_names)
        for inode in self._names.values():
            inode.lose_power(rng)

    def sync_ns(self) -> int:
        """Draw how long the next sync takes."""
        drawn = self._rng.randrange(self.slow_ns // 10, self.slow_ns)
        self._longest_sync_ns = max(self._longest_sync_ns, drawn)
        return drawn

    def process_stops(self, duration_ns: int) -> None:
        """Let the time for which the process stands still not count: it does nothing in it."""
        self._stopped_ns += duration_ns

    def _now(self) -> int:
        """The time of the disk's own clock, which stands still with the process, and while none has the directory.

        So a mark that is still to be made when a process dies is never late.
        """
        return (self._world.now if self._unused_since is None else self._unused_since) - self._stopped_ns

    def _wrote_segment(self) -> None:
        """Note that every picture lacks something from now on, and that a mark must follow."""
        for each in self._pictures:
            if each.lacks_since is None:
                each.lacks_since = self._now()
        if not self.is_synced:
            self._must_mark()

    def _must_mark(self) -> None:
        if self._unmarked_since is None:
            self._unmarked_since = self._now()

    def _failed(self, number: int) -> OSError:
        """Excuse what is not done on a disk that fails, and return its error."""
        self.failures += 1
        for each in self._pictures:
            each.met_failure = True
        if self._unmarked_since is not None:
            self._unmarked_since = _LONG_NS
        return OSError(number, os.strerror(number))

    # ------------------------------------------------------------------ what goes wrong

    def heal(self) -> None:
        """Be a disk without faults from now on."""
        self.is_full = self.fails = self.tears = False
        self.slow_ns = 2 * MS

    def lose_directory(self) -> None:
        """Lose every file."""
        self.doubt = "it was lost"
        self._names.clear()
        self._durable_names.clear()
        if self._user is not None:
            self._user.is_gone = True
            self.used_by(None)

    def picture(self) -> Picture:
        """Return what a backup of the directory would have now."""
        made = Picture({name: bytes(inode.data) for name, inode in self._names.items()})
        self._pictures.append(made)
        return made

    def put_back(self, picture: Picture, *, style: str) -> None:
        """Restore the directory from a backup, as one of `STYLES` does it; its process must be over."""
        kept = dict(self._names) if style == "into the files" else {}
        if self._knows_generations and kept and self._lacks_a_second_at_most(picture):
            return  # nothing on a disk tells such a copy from what it is a copy of
        self.doubt = "it was replaced"
        self._names = {}
        for name, data in picture.files.items():
            there = kept.get(name)
            identity = self._identity() if there is None else there.identity
            self._names[name] = _Inode(identity, data, 0 if style == "new times" else _LONG_NS)
        self._durable_names = dict(self._names)

    def change_owner(self) -> None:
        """Change the owner of every file, which changes the time of their last change alone."""
        if not self._knows_generations:
            self.doubt = "it was altered"
        for inode in self._names.values():
            inode.altered_ns = _LONG_NS

    def _lacks_a_second_at_most(self, picture: Picture) -> bool:
        """Return whether a picture lacks only what was written in the last second, and so may not be found out.

        It is found out all the same if the position file was renewed since.
        """
        position = self._names.get(POSITION_NAME)
        then = decode_nameplate(picture.files.get(POSITION_NAME, b""))
        if position is None or position.identity != then:
            return False
        since = picture.lacks_since
        return since is None or picture.met_failure or self._now() - since <= self._renewed_ns()

    def _renewed_ns(self) -> int:
        return _RENEWED_NS + 3 * self._longest_sync_ns

    def flip_bit(self, rng: random.Random) -> bool:
        """Flip a bit somewhere in the files, and return whether that was possible.

        Not in the tenth of a second in which a mark may be still to come: damage to the last records is then taken for
        a torn write. Where answers wait for syncs, the position file is synced once a second. That second is over.
        """
        now, position = self._now(), self._names.get(POSITION_NAME)
        if self._unmarked_since is not None and now - self._unmarked_since <= _MARKED_NS:
            return False
        since = self._mark_is_unsynced_since
        if position is not None and since is not None and now - since <= self._renewed_ns():
            position.sync(len(position.data))
        inodes = [inode for name, inode in sorted(self._names.items()) if inode.data and name != LOCK_NAME]
        if not inodes:
            return False
        inode = rng.choices(inodes, [len(each.data) for each in inodes])[0]
        self._spoil(inode, rng.randrange(len(inode.data)), 1 << rng.randrange(8))
        return True

    def spoil_last_record(self) -> None:
        """Flip bits at the end of what was written."""
        inode = self._names[max(name for name in self._names if name.endswith(".log"))]
        self._spoil(inode, len(inode.data.rstrip(b"\0")) - 1, 255)

    def _spoil(self, inode: _Inode, place: int, bits: int) -> None:
        self.doubt = "it was altered"
        inode.sync(len(inode.data))
        inode.data[place] ^= bits
        inode.durable = bytearray(inode.data)

    def overwrite(self, found: bytes, by: bytes) -> None:
        """Put one byte in the place of each byte of a text, wherever the segments have it."""
        self.doubt = "it was altered"
        for name, inode in self._names.items():
            if name.endswith(".log"):
                inode.data = bytearray(inode.data.replace(found, by * len(found)))
                inode.durable = bytearray(inode.data)
                inode.pending = []

    def _identity(self) -> FileIdentity:
        self._inodes += 1
        generation = self._rng.getrandbits(31) | 1 if self._knows_generations else 0
        return FileIdentity(1, self._inodes, generation)


STYLES: Final = ("old times", "new times", "into the files")
"""How a backup comes back: as new files with their old times (`cp -a`), as new files (`cp`), or written into the files
that are there, with the old times (`rsync --inplace -a`)."""


class SimFiles:
    """The directory as one process sees it: `lockring.journal.files.Files`.

    Attributes:
        is_over: whether the process is dead; it must not do anything any more.
        is_gone: whether the directory was deleted since the process began.
    """

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.is_over = False
        self.is_gone = False

    @property
    def place(self) -> str:
        """The directory, for people."""
        return f"/{self._disk.name}/journal"

    @property
    def reserve_bytes(self) -> int:
        """The step in which files grow ahead of what is written; 0 where the file system cannot."""
        return self._disk.reserve_bytes

    def room(self) -> int:
        """How many bytes more the disk takes: it is never small."""
        return 1 << 62

    def lock(self) -> FileIdentity:
        """Take the directory for this process."""
        disk = self._disk
        if not self._may_lock():
            raise JournalError(f"the journal in {self.place} is in use by another node")
        disk.used_by(self)
        disk._longest_sync_ns = 0
        inode = disk._names.get(LOCK_NAME)
        if inode is None:
            inode = disk._names[LOCK_NAME] = _Inode(disk._identity(), b"1\n")
        return inode.identity

    def _may_lock(self) -> bool:
        """Whether no other process has the directory; a rule of its own, so that it can be switched off."""
        return self._disk._user is None

    def unlock(self) -> None:
        """Leave the directory to others."""
        if self._disk._user is self:
            self._disk.used_by(None)

    def names(self) -> list[str]:
        """Return the names of all files."""
        return list(self._disk._names)

    def create(self, name: str) -> SimFile:
        """Create a file that must not exist."""
        assert not self.is_over, "a dead process creates a file"
        if self.is_gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if name in self._disk._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        inode = self._disk._names[name] = _Inode(self._disk._identity())
        return SimFile(self, self._disk, name, inode)

    def open(self, name: str) -> SimFile:
        """Open a file that exists."""
        if name not in self._disk._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return SimFile(self, self._disk, name, self._disk._names[name])

    def replace(self, name: str, by: str) -> None:
        """Let a name lead to the file that has had another one."""
        assert not self.is_over, "a dead process renames a file"
        self._disk._names[name] = self._disk._names.pop(by)

    def delete(self, name: str) -> None:
        """Delete a file."""
        assert not self.is_over, "a dead process deletes a file"
        if self._disk._names.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def sync_names(self) -> None:
        """Make the names survive a loss of power, as they are."""
        if self._disk.fails:
            raise self._disk._failed(errno.EIO)
        self._disk._durable_names = dict(self._disk._names)

    def is_in_place(self, name: str, identity: FileIdentity) -> bool:
        """Return whether a name still leads to the file of this identity."""
        inode = self._disk._names.get(name)
        return inode is not None and inode.identity == identity

    def is_deleted(self) -> bool:
        """Return whether the directory was deleted."""
        return self.is_gone

    def salt(self) -> int:
        """Return a random number of 64 bits."""
        return self._disk._rng.getrandbits(64)


class SimFile:
    """A file that a process has open: `lockring.journal.files.OpenFile`."""

    def __init__(self, files: SimFiles, disk: SimDisk, name: str, inode: _Inode) -> None:
        self._files = files
        self._disk = disk
        self._name = name
        self._inode = inode
        self._is_open = True

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data`, or a part of it and fail."""
        assert self._is_open, "a closed file is written"
        assert not self._files.is_over, "a dead process writes"
        disk, inode = self._disk, self._inode
        if disk.tears and self._name.endswith(".log") and offset:
            disk.tears = False
            inode.write(data[: disk._rng.randrange(len(data))], offset)
            raise Killed
        if not self._name.startswith(POSITION_NAME):
            disk._wrote_segment()
        elif disk._names.get(POSITION_NAME) is inode:
            disk._unmarked_since = None
            if disk.is_synced and not inode.pending:
                disk._mark_is_unsynced_since = disk._now()
        room = len(inode.data) - offset
        if disk.is_full and len(data) > room:
            inode.write(data[: disk._rng.randrange(max(room, 0), len(data))], offset)
            raise disk._failed(errno.ENOSPC)
        inode.write(data, offset)

    def reserve(self, size: int) -> None:
        """Let the file be that long, with zeros behind what it has; on a full disk, a part of it."""
        assert self._is_open and not self._files.is_over, "a dead process reserves room"
        grows = max(0, size - len(self._inode.data))
        if self._disk.is_full and grows:
            self._inode.data.extend(bytes(self._disk._rng.randrange(grows)))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._inode.data.extend(bytes(grows))

    def cut(self, size: int) -> None:
        """Let the file end after `size` bytes."""
        assert self._is_open and not self._files.is_over, "a dead process cuts a file"
        del self._inode.data[size:]

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from an offset on."""
        assert self._is_open, "a closed file is read"
        return bytes(self._inode.data[offset : offset + size])

    def sync(self, size: int) -> None:
        """Make the first `size` bytes survive a loss of power. Later ones may have come too late for it."""
        assert self._is_open, "a closed file is synced"
        assert not self._files.is_over, "a dead process syncs"
        if self._disk.fails:
            self._inode.pending = []
            raise self._disk._failed(errno.EIO)
        if self._disk.is_synced and not self._name.startswith(POSITION_NAME):
            self._disk._must_mark()  # a mark says what was synced before
        self._inode.sync(size)

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return len(self._inode.data)

    def identity(self) -> FileIdentity:
        """Return what tells this file from a copy of it."""
        return self._inode.identity

    def altered_ns(self) -> int:
        """Return how long after its last write the file was changed in another way, in nanoseconds."""
        return self._inode.altered_ns

    def close(self) -> None:
        """Close the file, without a sync."""
        self._is_open = False
