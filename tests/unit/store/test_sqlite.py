"""The store in a directory: compare-and-set, one coordinator, damage, and `kill -9`."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.errors import StoreError
from lockring.slots import SLOTS
from lockring.store.base import Store
from lockring.store.sqlite import DATABASE_NAME, LOCK_NAME, MARK_NAME, SqliteStore

A, B = Replica("a", 1), Replica("b", 7)
STATE = ClusterState(
    cluster="c",
    version=1_800_000_000_000_000_000,
    term="t",
    members={A.node: Member(A, "h:1", 2, "active"), B.node: Member(B, "h:2", 1, "draining")},
    slots=tuple(SlotState(9, 8, 7, A, Copy(B, 8), None, number, 10**6) for number in range(SLOTS)),
    replication="async",
    coordinator="h:9500",
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


@pytest.fixture
def store(directory: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(directory)
    yield opened
    opened.close()


def test_a_missing_directory_is_created_and_reported_as_new(store: Store, directory: Path) -> None:
    assert store.created
    assert store.read() is None
    assert sorted(path.name for path in directory.iterdir())[:1] == [LOCK_NAME]


def test_a_directory_that_was_there_is_not_new(directory: Path) -> None:
    directory.mkdir(parents=True)
    store = SqliteStore(str(directory))
    assert not store.created
    assert store.read() is None
    store.close()


def test_a_state_comes_back_whole_even_after_reopening(store: SqliteStore, directory: Path) -> None:
    assert store.write(0, STATE)
    assert store.read() == STATE
    store.close()
    again = SqliteStore(directory)
    assert again.read() == STATE
    assert again.read() is again.read(), "what has not changed is not decoded again"
    again.close()


def test_a_write_needs_the_version_that_is_stored(store: SqliteStore) -> None:
    assert not store.write(7, ClusterState(version=8))
    assert store.read() is None
    assert store.write(0, ClusterState(version=5))
    assert not store.write(0, ClusterState(version=6))
    assert not store.write(4, ClusterState(version=6))
    assert store.write(5, ClusterState(version=6))
    stored = store.read()
    assert stored is not None
    assert stored.version == 6


def test_of_many_writers_of_one_version_one_wins(store: SqliteStore) -> None:
    def attempt(number: int) -> bool:
        return store.write(0, ClusterState(version=number + 1, term=str(number)))

    with ThreadPoolExecutor(8) as threads:
        won = [number for number, ok in enumerate(threads.map(attempt, range(40))) if ok]
    stored = store.read()
    assert stored is not None
    assert [str(number) for number in won] == [stored.term]


def test_a_second_coordinator_on_the_same_directory_is_refused_by_name(
    store: SqliteStore, directory: Path
) -> None:
    with pytest.raises(StoreError, match="in use by another coordinator") as caught:
        SqliteStore(directory)
    assert str(directory) in str(caught.value)
    assert f"process {os.getpid()}" in str(caught.value)
    store.write(0, STATE)
    store.close()
    second = SqliteStore(directory)
    assert second.read() == STATE
    second.close()


def test_a_closed_store_refuses(store: SqliteStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.read()
    with pytest.raises(StoreError, match="closed"):
        store.write(0, STATE)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="is a file") as caught:
            SqliteStore(path)
        assert str(path) in str(caught.value)


def test_a_directory_that_cannot_be_written_is_refused(directory: Path) -> None:
    (directory / LOCK_NAME).mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be written") as caught:
        SqliteStore(directory)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"not a database, whatever its name says" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_not_a_database_is_refused(directory: Path, content: bytes) -> None:
    directory.mkdir(parents=True)
    (directory / DATABASE_NAME).write_bytes(content)
    for _ in range(2):  # the second time: the failed opening has left no lock behind
        with pytest.raises(StoreError, match="cannot be opened"):
            SqliteStore(directory)
    assert (directory / DATABASE_NAME).read_bytes() == content


def test_a_database_of_another_schema_is_refused(store: SqliteStore, directory: Path) -> None:
    store.close()
    with sqlite3.connect(directory / DATABASE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema version 99"):
        SqliteStore(directory)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE state SET data = x'c1'",
        "UPDATE state SET data = substr(data, 1, 500)",
        "UPDATE state SET data = 'text'",
        "UPDATE state SET version = version + 1",
    ],
)
def test_a_damaged_state_is_refused_rather_than_taken_for_none(
    store: SqliteStore, directory: Path, change: str
) -> None:
    store.write(0, STATE)
    store.close()
    with sqlite3.connect(directory / DATABASE_NAME) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(StoreError, match="damaged"):
        SqliteStore(directory)


def test_a_table_that_vanished_is_an_error_and_no_empty_store(store: SqliteStore, directory: Path) -> None:
    store.write(0, STATE)
    with sqlite3.connect(directory / DATABASE_NAME) as connection:
        connection.execute("DROP TABLE state")
    connection.close()
    with pytest.raises(StoreError, match="cannot be read"):
        store.read()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write(STATE.version, ClusterState(version=STATE.version + 1))


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.EACCES, "give it to the user of this server (chown -R), or "),
        (errno.EROFS, "mount it for writing, or "),
        (errno.EIO, ""),
    ],
)
def test_a_directory_that_cannot_be_used_is_named_with_the_ways_out(
    number: int, way: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(directory).close()
    opens = os.open

    def refuse(path: str | Path, *more: int) -> int:
        if Path(path) == directory / LOCK_NAME:
            raise OSError(number, os.strerror(number))
        return opens(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError) as caught:
        SqliteStore(directory)
    said = os.strerror(number)
    assert str(caught.value) == (
        f"the data directory {directory} cannot be written: {said[:1].lower()}{said[1:]}; {way}name another directory with"
        " --data-dir"
    )


@pytest.mark.parametrize("name", [LOCK_NAME, DATABASE_NAME, ""])
def test_a_directory_moved_or_replaced_under_the_store_is_noticed(
    store: SqliteStore, directory: Path, name: str
) -> None:
    store.write(0, STATE)
    if name:
        shutil.copy(directory / name, directory / "copy")
        os.replace(directory / "copy", directory / name)
    else:
        directory.rename(directory.with_name("aside"))
    with pytest.raises(StoreError, match="moved or replaced while it was in use; put it back within"):
        store.read()
    with pytest.raises(StoreError, match="moved or replaced"):
        store.write(STATE.version, ClusterState(version=STATE.version + 1))
    if not name:
        assert not directory.exists(), "the moved one may come back"
        directory.with_name("aside").rename(directory)
        assert store.read() == STATE


def test_a_directory_that_was_deleted_is_made_again_with_the_newest_state(directory: Path) -> None:
    store = SqliteStore(directory)
    store.write(0, ClusterState(version=STATE.version - 1))
    store.write(STATE.version - 1, STATE)
    shutil.rmtree(directory.parent)
    with pytest.raises(
        StoreError, match="was deleted while it was in use: it was made again, with the newest"
    ):
        store.write(STATE.version, ClusterState(version=STATE.version + 1))
    assert store.read() == STATE, "the write that found it out was not made"
    later = msgspec.structs.replace(STATE, version=STATE.version + 1)
    assert store.write(STATE.version, later)
    with pytest.raises(StoreError, match="in use by another coordinator"):
        SqliteStore(directory)
    store.close()
    again = SqliteStore(directory)
    assert again.read() == later
    assert (again.created, again.is_as_left) == (False, True)
    again.close()


def test_a_deleted_directory_that_never_had_a_state_is_made_again_without_one(directory: Path) -> None:
    store = SqliteStore(directory)
    shutil.rmtree(directory)
    with pytest.raises(StoreError, match="made again"):
        store.read()
    assert store.read() is None
    store.close()


def test_a_deleted_directory_that_another_coordinator_has_made_again_is_left_to_it(directory: Path) -> None:
    store = SqliteStore(directory)
    store.write(0, STATE)
    shutil.rmtree(directory)
    other = SqliteStore(directory)
    with pytest.raises(StoreError, match="moved or replaced"):
        store.read()
    assert other.read() is None
    other.close()
    with pytest.raises(StoreError, match="moved or replaced"):
        store.write(STATE.version, ClusterState(version=STATE.version + 1))
    store.close()
    last = SqliteStore(directory)
    assert last.read() is None
    last.close()


def test_a_deleted_directory_that_cannot_be_made_again_is_tried_again(directory: Path) -> None:
    store = SqliteStore(directory)
    store.write(0, STATE)
    shutil.rmtree(directory)
    directory.touch()
    for _ in range(3):
        with pytest.raises(StoreError, match="is a file"):
            store.read()
    directory.unlink()
    with pytest.raises(StoreError, match="made again"):
        store.read()
    assert store.read() == STATE
    store.close()


WRITER = """
import sys
from lockring.cluster_state import ClusterState
from lockring.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
state = store.read()
version = 0 if state is None else state.version
while True:
    assert store.write(version, ClusterState(version=version + 1, term="x" * 50_000))
    version += 1
    print(version, flush=True)
"""


def test_confirmed_writes_survive_kill_9(directory: Path) -> None:
    confirmed = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            for _ in range(15):
                confirmed = int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
            process.wait()
            process.stdout.close()
        confirmed = max([confirmed, *map(int, rest.split("\n")[:-1])])
        store = SqliteStore(directory)
        stored = store.read()
        store.close()
        assert stored is not None
        assert confirmed <= stored.version <= confirmed + 1, "at most the write that was under way is more"
        assert stored.term == "x" * 50_000


@pytest.mark.parametrize("is_new", [True, False])
def test_an_empty_file_in_the_place_of_the_store_is_not_taken_for_a_fresh_one(
    directory: Path, is_new: bool
) -> None:
    directory.mkdir(parents=True)
    if not is_new:  # a store with a past, cut off by a full disk
        SqliteStore(directory).close()
    (directory / DATABASE_NAME).write_bytes(b"")
    with pytest.raises(StoreError, match="is empty: it was truncated, or is not a store") as caught:
        SqliteStore(directory)
    assert str(directory / DATABASE_NAME) in str(caught.value)
    assert "--data-dir" in str(caught.value)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("table", ["", "CREATE TABLE state (id INTEGER)", "CREATE TABLE songs (name TEXT)"])
def test_another_programs_database_is_not_taken_for_a_fresh_store(
    directory: Path, version: int, table: str
) -> None:
    directory.mkdir(parents=True)
    foreign = sqlite3.connect(directory / DATABASE_NAME)
    foreign.execute("PRAGMA journal_mode = WAL")  # writes a header, even without a table
    foreign.execute(table)
    foreign.execute(f"PRAGMA user_version = {version}")
    foreign.close()
    with pytest.raises(StoreError, match="not a coordinator's store"):
        SqliteStore(directory)


def test_a_store_that_was_not_made_to_its_end_is_made_again(directory: Path) -> None:
    directory.mkdir(parents=True)
    for leftover in (f"{DATABASE_NAME}.new", f"{DATABASE_NAME}.new-journal"):
        (directory / leftover).write_bytes(b"cut off")
    store = SqliteStore(directory)
    assert not store.created
    assert store.write(0, STATE)
    store.close()
    assert not list(directory.glob("*.new*"))


def test_a_store_that_was_closed_in_order_is_known_as_it_was_left_and_once_only(directory: Path) -> None:
    first = SqliteStore(directory)
    assert not first.is_as_left
    first.write(0, STATE)
    first.close()
    second = SqliteStore(directory)
    assert second.is_as_left
    assert not (directory / MARK_NAME).exists(), "should this process crash, the next one knows"
    second.close()


@pytest.mark.parametrize("put_back", ["the directory", "the database", "all files in place"])
def test_a_store_that_was_put_back_from_a_copy_is_not_as_it_was_left(directory: Path, put_back: str) -> None:
    first = SqliteStore(directory)
    first.write(0, STATE)
    first.close()
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    later = SqliteStore(directory)
    assert later.write(STATE.version, msgspec.structs.replace(STATE, version=STATE.version + 1))
    later.close()
    if put_back == "the directory":
        shutil.rmtree(directory)
    if put_back == "the database":
        shutil.copy2(copy / DATABASE_NAME, directory / DATABASE_NAME)
    else:
        shutil.copytree(copy, directory, dirs_exist_ok=True)
    again = SqliteStore(directory)
    assert again.read() == STATE
    assert not again.is_as_left
    again.close()


def test_another_owner_or_mode_of_the_files_leaves_a_store_as_it_was(directory: Path) -> None:
    """Kubernetes changes both for all files of a volume each time that it is mounted."""
    store = SqliteStore(directory)
    store.write(0, STATE)
    store.close()
    for path in [directory, *directory.iterdir()]:
        os.chown(path, os.getuid(), os.getgid())
        path.chmod(0o770)
    again = SqliteStore(directory)
    assert again.is_as_left
    again.close()


def test_the_reason_for_a_failed_write_is_that_of_the_disk(tmp_path: Path) -> None:
    """SQLite ends the transaction by itself then, and there is none to roll back."""
    store = SqliteStore(tmp_path / "d")
    assert store.write(0, ClusterState(cluster="c", version=1))
    assert store._connection is not None
    store._connection.execute("PRAGMA max_page_count = 6")
    large = ClusterState(cluster="c", version=2, coordinator="x" * 200_000)
    with pytest.raises(StoreError, match="cannot be written: database or disk is full"):
        store.write(1, large)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.write(1, large)
    store.close()
