"""A local file system as a storage.

A folder is removed by `rmdir`, which is atomic: it fails if the folder has an entry. Folders are inspected and
removed by way of open directories, from the root down, without following links: if a part of the path is replaced
by a link in the meantime, nothing outside of the root is touched. Other file systems than the root's are left alone
by default.

Names of folders are bytes to the system. Here they are read as UTF-8 in every locale (`lockring.native`), since a
folder's owner follows from its name: workers in two locales must compute the same one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import ROOT, FolderState, Reason
from lockring.apps.cleaner.storage import FoundFolder
from lockring.errors import Denied, InvalidRequest, RootMissing, Unavailable
from lockring.native import from_native

_DEPTH_OF_OPEN: Final = 64
"""Depth from which folders are read in one go, so that a deep tree does not use up all file descriptors."""

_PATH_ONLY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_REASONS: Final[dict[int, Reason]] = {
    errno.ENOTEMPTY: Reason.NOT_EMPTY,
    errno.EEXIST: Reason.NOT_EMPTY,
    errno.ENOENT: Reason.GONE,
    errno.ENOTDIR: Reason.NOT_A_FOLDER,
    errno.ELOOP: Reason.NOT_A_FOLDER,
    errno.EBUSY: Reason.BUSY,
    errno.EPERM: Reason.DENIED,
    errno.EACCES: Reason.DENIED,
    errno.EROFS: Reason.DENIED,
}


def _reason_of(error: OSError) -> Reason:
    return _REASONS.get(error.errno or 0, Reason.FAILED)


class _Level:
    """A folder on the path from the root to the scan's position."""

    __slots__ = ("count", "folder", "names", "path", "stamp")

    def __init__(self, folder: str, path: bytes, names: Iterator[os.DirEntry[bytes]], stamp: int) -> None:
        self.folder = folder
        self.path = path
        self.names = names
        self.stamp = stamp
        self.count = 0


class LocalStorage:
    """See the module.

    Args:
        path: the root, as Python's own file functions take it; a link to it is followed, links in it are not.
        crosses: whether to clean folders on other file systems too.

    Raises:
        InvalidRequest: the path is empty.
    """

    implies_parents = False

    def __init__(self, path: str, *, crosses: bool = False) -> None:
        if not path:
            # The value of an unset variable; the system would take it for the current folder.
            raise InvalidRequest("a root must not be empty: name a folder")
        self.name = from_native(path)
        self.restored = 0
        self._path = os.path.realpath(os.fsencode(path))
        self._crosses = crosses
        self._root = -1
        self._device = 0
        self.on_replaced: Callable[[], None] | None = None
        """Called by a scan that finds another folder in the root's place, after the change of root."""

    @property
    def path(self) -> str:
        """The root, absolute and without links."""
        return _text(self._path)

    def open(self) -> None:
        """See `Storage`."""
        try:
            self._root = os.open(self._path, _READ)
            with os.scandir(self._root):
                pass
        except PermissionError:
            raise Denied(f"{self.name}: no permission to read this folder", name=self.name) from None
        except NotADirectoryError:
            raise RootMissing(f"{self.name} is not a folder", name=self.name) from None
        except FileNotFoundError:
            raise RootMissing(f"there is no folder {self.name}", name=self.name) from None
        except OSError as error:
            raise Unavailable(
                f"{self.name} cannot be read: {error.strerror or error}", name=self.name
            ) from error
        self._device = os.fstat(self._root).st_dev

    def close(self) -> None:
        """See `Storage`."""
        if self._root != -1:
            os.close(self._root)
            self._root = -1

    def scan(self, policy: Policy) -> Iterator[FoundFolder]:
        """See `Storage`."""
        self._follow_root()
        try:
            levels = [_Level(ROOT, self._path, iter(os.scandir(self._path)), 0)]
        except OSError as error:
            raise Unavailable(
                f"{self.name} cannot be scanned: {error.strerror or error}", name=self.name
            ) from error
        try:
            while levels:
                level = levels[-1]
                below = None
                try:
                    for entry in level.names:
                        level.count += 1
                        if entry.is_dir(follow_symlinks=False):
                            below = self._enter(level, entry, policy, len(levels))
                            break
                    else:
                        levels.pop()
                        if level.folder != ROOT:
                            yield FoundFolder(level.folder, FolderState(level.count, level.stamp))
                        continue
                except OSError as error:
                    _close(levels.pop().names)
                    if level.folder == ROOT:
                        raise Unavailable(
                            f"{self.name} cannot be scanned: {error.strerror or error}", name=self.name
                        ) from error
                    yield FoundFolder(level.folder, _reason_of(error))
                    continue
                if isinstance(below, _Level):
                    levels.append(below)
                elif below is not None:
                    yield below
        finally:
            for level in levels:
                _close(level.names)

    def _follow_root(self) -> None:
        """Follow the root to the folder now in its place, which may have been created or mounted again."""
        try:
            there, here = os.stat(self._path), os.fstat(self._root)
            if os.path.samestat(there, here):
                return
        except OSError:
            pass  # `open` reports the failure
        root, self._root = self._root, -1
        try:
            self.open()
        except BaseException:
            if self._root == -1:
                self._root = root
            else:
                os.close(root)
            raise
        os.close(root)
        if self.on_replaced is not None:
            self.on_replaced()

    def _enter(
        self, level: _Level, entry: os.DirEntry[bytes], policy: Policy, depth: int
    ) -> _Level | FoundFolder | None:
        """Enter a folder, or return why not; None if it is gone."""
        name = _text(entry.name)
        folder = f"{level.folder}/{name}" if level.folder else name
        kept = policy.keeps_below(folder)
        if kept is not None:
            return FoundFolder(folder, kept)
        try:
            status = entry.stat(follow_symlinks=False)
            if status.st_dev != self._device and not self._crosses:
                return FoundFolder(folder, Reason.FOREIGN)
            path = level.path + b"/" + entry.name
            names: Iterator[os.DirEntry[bytes]] = os.scandir(path)
            if depth > _DEPTH_OF_OPEN:
                names = iter(list(names))
        except FileNotFoundError:
            level.count -= 1
            return None
        except OSError as error:
            return FoundFolder(folder, _reason_of(error))
        # The stamp is older than the list, so an entry created in between changes it.
        return _Level(folder, path, names, status.st_ctime_ns)

    def look(self, folder: str, *, entries_max: int) -> FolderState | Reason:
        """See `Storage`."""
        try:
            with self._opened(folder, _READ) as opened:
                status = os.fstat(opened)
                if status.st_dev != self._device and not self._crosses:
                    return Reason.FOREIGN
                count = 0
                with os.scandir(opened) as names:
                    for _entry in names:
                        count += 1
                        if count == entries_max:
                            break
                return FolderState(count, status.st_ctime_ns)
        except OSError as error:
            return _reason_of(error)

    def remove(self, folder: str) -> Reason | None:
        """See `Storage`."""
        parent, _, name = folder.rpartition("/")
        assert name not in ("", ".", ".."), "neither the root nor a folder outside of it"
        try:
            with self._opened(parent, _PATH_ONLY) as opened:
                status = os.stat(_bytes(name), dir_fd=opened, follow_symlinks=False)
                if status.st_dev != self._device and not self._crosses:
                    return Reason.FOREIGN
                os.rmdir(_bytes(name), dir_fd=opened)
        except OSError as error:
            return _reason_of(error)
        return None

    @contextlib.contextmanager
    def _opened(self, folder: str, flags: int) -> Iterator[int]:
        """Open a folder as a directory, reached from the root without following a link."""
        *above, last = _bytes(folder or ".").split(b"/")
        opened = self._root
        try:
            for part in above:
                deeper = os.open(part, _PATH_ONLY, dir_fd=opened)
                if opened != self._root:
                    os.close(opened)
                opened = deeper
            deeper = os.open(last, flags, dir_fd=opened)
            if opened != self._root:
                os.close(opened)
            opened = deeper
            yield opened
        finally:
            if opened != self._root:
                os.close(opened)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _close(names: Iterator[os.DirEntry[bytes]]) -> None:
    close = getattr(names, "close", None)  # a list that was read in one go has none
    if close is not None:
        close()
