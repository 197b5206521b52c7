"""A store in a directory: one row in SQLite, one lock file, nothing else.

- *Durable.* Write-ahead log with `synchronous=FULL`: a confirmed `write` survives `kill -9` and power loss.
- *One coordinator per directory.* An exclusive lock (`flock`) on the lock file is held for the life of the store and
  ends with the process, however that ends. It guards against a mistake, such as starting the same service twice;
  between coordinators, the term in the state decides.
- *The same directory.* If a directory is deleted or replaced under a running coordinator, it would go on writing to
  files that are no longer reachable, while a second coordinator starts with new ones. So every call checks that its own
  files are still in place.
- *A directory that was deleted is made again*, with the newest state that was read or written. Nothing that was deleted
  comes back, so that cannot be mistaken for an older one. A directory that was only moved or unmounted may come back.
- *A fresh store is whole or absent.* The database is made under another name and renamed. So an empty database, or one
  with other tables, was truncated or belongs to another program: it is refused rather than mistaken for a fresh one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Final

from lockring.cluster_state import ClusterState, decode_state, encode_state
from lockring.errors import ProtocolError, StoreError
from lockring.file_editions import edition_of
from lockring.ids import Version
from lockring.system_errors import reason_of, way_out_of

DATABASE_NAME: Final = "state.db"
LOCK_NAME: Final = "coordinator.lock"
MARK_NAME: Final = "closed"
_UNFINISHED_SUFFIX: Final = ".new"
_COLUMNS: Final = ["id", "version", "data"]

SCHEMA_VERSION: Final = 1
"""Raised when the tables change. A store of another version is refused rather than guessed at."""

_WHAT_TO_DO: Final = "; restore it from a copy, or name an empty directory with --data-dir"
_BUSY_TIMEOUT_S: Final = 5.0
"""How long a reader of the file from outside (a backup, the sqlite3 shell) may delay a write."""


class SqliteStore:
    """Keeps the state in `state.db` in a directory of its own. Thread-safe.

    Args:
        data_dir: the directory; created, with its parents, if missing.

    Attributes:
        created: whether the directory was missing.
        place: the engine and where it is, for people.
        is_as_left: whether the database is the very one that the last store here closed in order, unchanged since: not
            one left by a crash, nor a copy put in its place.

    Raises:
        StoreError: the directory cannot be made, read or written, is in use by another coordinator, or does not hold
            a store of this version. The text names the directory.
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self._dir = Path(data_dir)
        self._mutex = Lock()
        self._connection: sqlite3.Connection | None = None
        self._lock_fd = -1
        self._database: os.stat_result | None = None
        self._cached: tuple[int, ClusterState] | None = None
        self.is_as_left = self._has_written = False
        self.place = f"SQLite ({self._dir})"
        self.created = self._make_directory()
        try:
            self._lock_fd = self._take_lock()
            self._open()
        except BaseException:
            self.close()
            raise

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        Raises:
            StoreError: the store is closed or damaged, or its files are gone.
        """
        with self._transaction("read") as connection:
            row = connection.execute("SELECT version FROM state").fetchone()
            if row is None:
                return None
            # A version names one state forever, so an unchanged one need not be decoded again.
            if self._cached is not None and self._cached[0] == row[0]:
                return self._cached[1]
            version, data = connection.execute("SELECT version, data FROM state").fetchone()
        state = self._decoded(version, data)
        self._cached = (version, state)
        return state

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Store the state durably if the stored version is the expected one, and return whether it was stored.

        Raises:
            StoreError: the store is closed, full or damaged, or its files are gone. Whether the state was stored is
                then unknown.
        """
        data = encode_state(state)
        with self._transaction("write") as connection:
            row = connection.execute("SELECT version FROM state").fetchone()
            if (0 if row is None else row[0]) != expected_version:
                return False
            connection.execute(
                "INSERT OR REPLACE INTO state (id, version, data) VALUES (1, ?, ?)", (state.version, data)
            )
        self._cached = (state.version, state)
        self._has_written = True
        return True

    def close(self) -> None:
        """Release the directory, which another coordinator may then open. Closing twice is harmless."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._leave_mark()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    # ----------------------------------------------------------------------- opening

    def _make_directory(self) -> bool:
        missing = [self._dir, *(each for each in self._dir.parents if not each.exists())]
        try:
            self._dir.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._dir.mkdir(mode=0o700)
            except FileExistsError:
                if not self._dir.is_dir():
                    raise
                return False
            # If a power failure undid the creation, the next start would mistake the directory for a new cluster's.
            for made in missing:
                _sync(made.parent)
        except FileExistsError as error:
            raise StoreError(f"the data directory {self._dir} is a file; name a directory") from error
        except OSError as error:
            raise StoreError(
                f"the data directory {self._dir} cannot be made: {reason_of(error)}; {_what_to_do(error)}"
            ) from error
        return True

    def _take_lock(self) -> int:
        path, lock_fd = self._dir / LOCK_NAME, -1
        try:
            lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip()
            os.close(lock_fd)
            who = f" (process {holder})" if holder else ""
            raise StoreError(
                f"the data directory {self._dir} is in use by another coordinator{who}; stop that one, or name another "
                "directory with --data-dir"
            ) from error
        except OSError as error:
            if lock_fd >= 0:
                os.close(lock_fd)
            raise StoreError(
                f"the data directory {self._dir} cannot be written: {reason_of(error)}; {_what_to_do(error)}"
            ) from error
        # On a full disk the next process just does not learn this one's number.
        with contextlib.suppress(OSError):
            os.ftruncate(lock_fd, 0)
            os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        return lock_fd

    def _open(self) -> None:
        path = self._dir / DATABASE_NAME
        try:
            if not path.exists():
                self._create(path)
            elif path.stat().st_size == 0:
                raise StoreError(f"{path} is empty: it was truncated, or is not a store{_WHAT_TO_DO}")
            self.is_as_left = self._take_mark(path)
            self._connection = connection = _opened(path)
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            columns = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('state')")]
            if schema not in (0, SCHEMA_VERSION):
                raise StoreError(
                    f"{path} has schema version {schema}, but this release supports {SCHEMA_VERSION}: start the release that wrote"
                    " it, or name another directory with --data-dir"
                )
            if schema == 0 or columns != _COLUMNS:
                raise StoreError(f"{path} is a database, but not a coordinator's store{_WHAT_TO_DO}")
        except sqlite3.Error as error:
            raise self._broken("opened", error) from error
        except OSError as error:
            raise StoreError(
                f"the store {path} cannot be opened: {reason_of(error)}; {_what_to_do(error)}"
            ) from error
        self._database = os.stat(path)
        # Find damage now, while someone is watching the start, rather than at the first change.
        self.read()

    def _take_mark(self, path: Path) -> bool:
        """Remove the mark of the last close, and return whether it names the database as it is now."""
        mark = self._dir / MARK_NAME
        if not mark.exists():
            return False
        named, found = mark.read_text(errors="replace"), _mark_of(path, mark)
        mark.unlink()
        return named == found

    def _leave_mark(self) -> None:
        """Record which file was closed in order. Without the mark, the next start only waits for longer.

        A copy that was put in place gets no mark by being looked at: it may be older than its cluster.
        """
        if self._database is not None and (self.is_as_left or self._has_written):
            mark = self._dir / MARK_NAME
            with contextlib.suppress(OSError):
                mark.touch(mode=0o600, exist_ok=False)
                mark.write_text(_mark_of(self._dir / DATABASE_NAME, mark))

    def _create(self, path: Path, state: ClusterState | None = None) -> None:
        """Create a store, by default without a state, whole or not at all."""
        unfinished = path.with_name(path.name + _UNFINISHED_SUFFIX)
        for leftover in self._dir.glob(f"{unfinished.name}*"):
            leftover.unlink()
        with contextlib.closing(_connect(unfinished)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, data BLOB NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            if state is not None:
                connection.execute(
                    "INSERT INTO state (id, version, data) VALUES (1, ?, ?)",
                    (state.version, encode_state(state)),
                )
            connection.execute("COMMIT")
        unfinished.rename(path)
        _sync(self._dir)

    # ----------------------------------------------------------------------- using

    @contextlib.contextmanager
    def _transaction(self, verb: str) -> Iterator[sqlite3.Connection]:
        """Run a transaction on the connection: committed durably at the end, or rolled back by an error."""
        with self._mutex:
            connection = self._connection
            if connection is None:
                raise StoreError(f"the store in {self._dir} is closed")
            self._check_in_place()
            try:
                connection.execute("BEGIN IMMEDIATE" if verb == "write" else "BEGIN")
                try:
                    yield connection
                except BaseException:
                    # A full disk, among others, has ended the transaction already, and is the reason to report.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if connection.in_transaction:
                    connection.rollback()
                raise self._broken("read" if verb == "read" else "written", error) from error

    def _check_in_place(self) -> None:
        assert self._database is not None
        try:
            in_place = os.path.samestat(os.fstat(self._lock_fd), os.stat(self._dir / LOCK_NAME))
            in_place = in_place and os.path.samestat(self._database, os.stat(self._dir / DATABASE_NAME))
        except OSError:
            in_place = False
        if in_place:
            return
        if os.fstat(self._lock_fd).st_nlink == 0 and not (self._dir / DATABASE_NAME).exists():
            self._make_again()
            raise StoreError(
                f"the data directory {self._dir} was deleted while it was in use: it was made again, with the newest state"
            )
        raise StoreError(
            f"the data directory {self._dir} was moved or replaced while it was in use; put it back within the coordinator"
            " lease. If it is gone for good, start the coordinator on an empty directory: the locks are lost then, once"
            " their leases have ended"
        )

    def _make_again(self) -> None:
        """Make the deleted directory again, under a lock of its own: another process may have done so before.

        The connection to the deleted database stays open until then, so that no other file gets its number.
        """
        path = self._dir / DATABASE_NAME
        self._make_directory()
        lock_fd = self._take_lock()
        try:
            if path.exists():
                raise StoreError(f"another coordinator has made {path} after the directory was deleted")
            self._create(path, None if self._cached is None else self._cached[1])
            database, connection = os.stat(path), _opened(path)
        except sqlite3.Error as error:
            os.close(lock_fd)
            raise self._broken("made again", error) from error
        except OSError as error:
            os.close(lock_fd)
            raise StoreError(f"the store {path} cannot be made again: {reason_of(error)}") from error
        except BaseException:
            os.close(lock_fd)
            raise
        assert self._connection is not None, "it is checked before each use"
        self._connection.close()
        os.close(self._lock_fd)
        self._connection, self._lock_fd, self._database = connection, lock_fd, database
        self._has_written = True

    def _decoded(self, version: Version, data: object) -> ClusterState:
        try:
            if not isinstance(data, bytes):
                raise ProtocolError("not bytes")
            state = decode_state(data)
            if state.version != version:
                raise ProtocolError(f"it bears version {state.version}, not {version}")
        except ProtocolError as error:
            raise StoreError(f"the store in {self._dir} is damaged: {error}{_WHAT_TO_DO}") from error
        return state

    def _broken(self, verb: str, error: sqlite3.Error) -> StoreError:
        text = f"the store {self._dir / DATABASE_NAME} cannot be {verb}: {error}"
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            text += _WHAT_TO_DO
        return StoreError(text)


def _mark_of(path: Path, mark: Path) -> str:
    """Return the word of a mark about a database and about itself: both are these very files, and unchanged.

    The mark is another file after each close, so an older copy of both, written into the two files, names another mark.
    Owner and mode have no part in it: Kubernetes changes them for all files of a volume that it mounts. Where the file
    system keeps no editions, the time of the last change of any kind must do, which users cannot set.
    """
    with path.open("rb") as file, mark.open("rb") as own:
        found, itself = os.fstat(file.fileno()), os.fstat(own.fileno())
        edition, its_edition = edition_of(file.fileno()), edition_of(own.fileno())
    if not edition:
        return f"{found.st_dev} {found.st_ino} {found.st_ctime_ns}\n"
    return f"{found.st_ino} {edition} {found.st_size} {found.st_mtime_ns} {itself.st_ino} {its_edition}\n"


def _what_to_do(error: OSError) -> str:
    """Return an operator's ways out of an error of the data directory, as the end of a sentence."""
    way = way_out_of(error)
    return f"{f'{way}, or ' if way else ''}name another directory with --data-dir"


def _opened(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _sync(directory: Path) -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # the file system cannot, and SQLite ignores that too
            raise
    finally:
        os.close(descriptor)
