"""The real files of a journal: the lock, the identity of a file, and a directory that is taken away."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.errors import JournalError
from lockring.exits import CANNOT_CREATE, exit_code_of_server
from lockring.journal import files as files_module
from lockring.journal.files import LOCK_NAME, DirectoryFiles, what_to_do


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal"


@pytest.fixture
def files(directory: Path) -> Iterator[DirectoryFiles]:
    opened = DirectoryFiles(directory)
    yield opened
    opened.unlock()


def test_the_directory_and_its_files_are_for_their_owner_alone(
    files: DirectoryFiles, directory: Path
) -> None:
    files.lock()
    files.create("00000001.log").close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert sorted(files.names()) == ["00000001.log", LOCK_NAME]


def test_bytes_are_written_read_and_measured_at_any_offset(files: DirectoryFiles) -> None:
    file = files.create("a")
    file.write(b"head", 0)
    file.write(b"tail", 6)
    file.sync(10)
    files.sync_names()
    assert file.size() == 10
    assert file.read(100, 0) == b"head\0\0tail"
    assert file.read(3, 7) == b"ail"
    assert file.read(3, 10) == b""
    file.close()
    file.close()
    with pytest.raises(FileExistsError):
        files.create("a")
    again = files.open("a")
    assert again.read(4, 0) == b"head"
    again.close()
    files.delete("a")
    assert files.names() == []


def test_a_second_process_is_refused_with_the_first_one_s_number(
    files: DirectoryFiles, directory: Path
) -> None:
    files.lock()
    program = (
        "import sys\n"
        "from lockring.journal.files import DirectoryFiles\n"
        "from lockring.errors import JournalError\n"
        "try:\n    DirectoryFiles(sys.argv[1]).lock()\n"
        "except JournalError as error:\n    print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout == (
        f"the journal in {directory} is in use by another node (process {os.getpid()}); stop that one, or name another"
        " directory with --data-dir\n"
    )


def test_the_lock_ends_with_its_process_even_by_sigkill(files: DirectoryFiles, directory: Path) -> None:
    program = (
        "import sys, time\n"
        "from lockring.journal.files import DirectoryFiles\n"
        "DirectoryFiles(sys.argv[1]).lock()\n"
        "print('locked', flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(JournalError, match=f"process {process.pid}"):
            files.lock()
        process.send_signal(signal.SIGKILL)
        process.wait()
        files.lock()


def test_a_lock_that_was_left_can_be_taken_again(directory: Path) -> None:
    first = DirectoryFiles(directory)
    first.lock()
    first.unlock()
    first.unlock()
    second = DirectoryFiles(directory)
    second.lock()
    second.unlock()


def test_a_file_system_without_locks_is_refused(
    files: DirectoryFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files_module.fcntl, "flock", flock)
    with pytest.raises(JournalError) as caught:
        files.lock()
    assert str(caught.value) == (
        f"the journal in {directory} cannot be locked: no locks available; name a directory on a local disk with"
        " --data-dir, or keep no journal with --durability none"
    )


def test_a_file_in_the_directory_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "journal"):
        with pytest.raises(
            JournalError, match=r"is a file, or lies in one; name a directory with --data-dir$"
        ):
            DirectoryFiles(path)


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(JournalError, match=r"^the journal's directory /proc/no/journal cannot be made: "):
        DirectoryFiles("/proc/no/journal")


def test_a_supervisor_need_not_restart_a_node_whose_journal_cannot_be_used() -> None:
    assert exit_code_of_server(JournalError("in use")) == CANNOT_CREATE


def test_a_copy_has_another_identity(files: DirectoryFiles, directory: Path) -> None:
    file = files.create("a")
    file.write(b"content", 0)
    shutil.copy2(directory / "a", directory / "b")
    assert files.open("b").identity() != file.identity()
    assert files.open("a").identity() == file.identity()


def test_a_copy_that_gets_the_number_of_a_deleted_file_has_another_identity(
    files: DirectoryFiles, directory: Path
) -> None:
    """ext4 gives a new file the number of the one that was deleted last: a restored directory has the old numbers."""
    file = files.create("a")
    written = file.identity()
    file.close()
    shutil.copy2(directory / "a", directory.parent / "backup")
    (directory / "a").unlink()
    shutil.copy2(directory.parent / "backup", directory / "a")
    assert files.open("a").identity() != written


def test_a_write_leaves_no_sign_of_another_change(files: DirectoryFiles) -> None:
    file = files.create("a")
    for offset in range(100):
        file.write(b"x", offset)
    assert file.altered_ns() == 0


def test_a_copy_over_a_file_with_its_times_leaves_a_sign(files: DirectoryFiles, directory: Path) -> None:
    file = files.create("a")
    file.write(b"older", 0)
    backup = directory.parent / "backup"
    shutil.copy2(directory / "a", backup)
    os.utime(backup, ns=(0, backup.stat().st_mtime_ns - 3600 * 10**9))
    file.write(b"newer", 0)
    shutil.copy2(backup, directory / "a")
    assert file.read(9, 0) == b"older"
    assert file.altered_ns() >= 3600 * 10**9


def test_another_owner_leaves_a_sign(files: DirectoryFiles, directory: Path) -> None:
    file = files.create("a")
    os.utime(directory / "a", ns=(0, 0))
    assert file.altered_ns() > 10**18


def test_a_directory_that_is_moved_away_is_noticed_and_gets_the_writes(
    files: DirectoryFiles, directory: Path
) -> None:
    identity = files.lock()
    assert files.is_in_place(LOCK_NAME, identity)
    moved = directory.with_name("moved")
    directory.rename(moved)
    assert not files.is_in_place(LOCK_NAME, identity)
    other = DirectoryFiles(directory)
    other.lock()
    assert not files.is_in_place(LOCK_NAME, identity), "another directory has the place"
    files.create("a").close()
    assert sorted(files.names()) == ["a", LOCK_NAME]
    assert other.names() == [LOCK_NAME]
    assert (moved / "a").exists()
    other.unlock()


def test_a_deleted_directory_takes_no_new_files(files: DirectoryFiles, directory: Path) -> None:
    files.lock()
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError):
        files.create("a")


def test_a_close_that_fails_gives_the_number_up_all_the_same(
    files: DirectoryFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number may be another file's by then: a second close would end that one."""
    files.lock()
    file = files.create("a")
    closed: list[int] = []

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    real = os.close
    monkeypatch.setattr(os, "close", close)
    for _ in range(2):
        file.close()
        files.unlock()
    monkeypatch.undo()
    assert len(closed) == len(set(closed)) == 3
    for descriptor in closed:
        real(descriptor)


def test_a_write_that_the_system_cuts_short_fails_with_the_reason(
    files: DirectoryFiles, directory: Path
) -> None:
    """A limit on the size of files acts as a full disk does: a part is written, and the next call says why."""
    file = files.create("a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write(b"x" * 1500, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (directory / "a").stat().st_size == 1000


def test_salts_differ(files: DirectoryFiles) -> None:
    assert len({files.salt() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.ENOSPC, "free some space there, or name another directory with --data-dir"),
        (errno.EROFS, "mount it for writing, or name another directory with --data-dir"),
        (
            errno.EACCES,
            "give it to the user of this server (chown -R), or name another directory with --data-dir",
        ),
        (errno.EIO, "name another directory with --data-dir"),
    ],
)
def test_an_operator_learns_the_ways_out_of_an_error(number: int, way: str) -> None:
    assert what_to_do(OSError(number, "")) == way
