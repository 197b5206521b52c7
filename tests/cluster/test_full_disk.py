"""A coordinator whose data directory takes no more: full, refused, or gone.

It says so seldom, and goes on by itself.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.running import Running, running
from tests.processes import address, eventually

pytestmark = pytest.mark.cluster

LOOK_S = 4.0
"""How long the log is watched: at one line per attempt without a pause that were thousands."""

WORKS = "the store works again: a write has worked"
"""Return what the coordinator says once it says anything."""


def _can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="needs root, to mount a file system of its own")


class Place(NamedTuple):
    """A small file system that only one coordinator sees."""

    directory: Path

    @property
    def within(self) -> tuple[str, ...]:
        script = f'mount -t tmpfs -o size=1m tmpfs {self.directory} && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", script, "sh")

    def seen_from(self, process: Running) -> Path:
        """The directory, for this process, which is outside."""
        return Path(f"/proc/{process.popen.pid}/root{self.directory}")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    directory = tmp_path / "small"
    directory.mkdir()
    return Place(directory)


def fails_quietly_and_recovers(
    coordinator: Running, where: str, breaks: Callable[[], object], mends: Callable[[], object], reason: str
) -> None:
    """Break the store, make the coordinator write, look at the log, mend the store, and see it work."""
    coordinator.wait_for("coordinator listens")
    eventually(lambda: "served" in coordinator.text, lambda: coordinator.text)
    breaks()
    with running("node", "--id", "n1", "--listen", "127.0.0.1:0", "--coordinator", where, "--no-grpc"):
        coordinator.wait_for(reason)
        before = len(coordinator.lines)
        time.sleep(LOOK_S)
        assert coordinator.lines[before:] == []
        assert WORKS not in coordinator.text
        mends()
        coordinator.wait_for(WORKS)
        coordinator.wait_for("n1 joined")


@needs_mounts
def test_a_full_disk_is_reported_once_and_works_again_when_a_write_has_worked(place: Place) -> None:
    where = address()
    arguments = ("coordinator", "--listen", where, "--data-dir", f"{place.directory}/data")
    with running(*arguments, within=place.within) as coordinator:

        def fill() -> None:
            ballast = place.seen_from(coordinator) / "ballast"
            with ballast.open("wb", buffering=0) as file:
                room = os.fstatvfs(file.fileno())
                file.write(bytes(room.f_bavail * room.f_frsize))
                assert os.fstatvfs(file.fileno()).f_bavail == 0

        def empty() -> None:
            (place.seen_from(coordinator) / "ballast").unlink()

        fails_quietly_and_recovers(coordinator, where, fill, empty, "database or disk is full")


def test_a_limit_of_the_size_of_files_is_reported_once(tmp_path: Path) -> None:
    where = address()
    with running("coordinator", "--listen", where, "--data-dir", str(tmp_path / "data")) as coordinator:
        pid = coordinator.popen.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        fails_quietly_and_recovers(
            coordinator,
            where,
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard)),
            lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard)),
            "cannot be written",
        )


def test_a_directory_that_has_vanished_is_reported_once(tmp_path: Path) -> None:
    where = address()
    data, aside = tmp_path / "data", tmp_path / "aside"
    with running("coordinator", "--listen", where, "--data-dir", str(data)) as coordinator:
        fails_quietly_and_recovers(
            coordinator,
            where,
            lambda: data.rename(aside),
            lambda: aside.rename(data),
            "was moved or replaced while it was in use; put it back within the coordinator lease",
        )
