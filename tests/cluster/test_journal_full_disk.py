"""A node whose journal cannot be written: holders keep their locks, new ones wait and say why, until it goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import lockring
from lockring.net.oneshot import ask_status
from tests.cluster.running import Running, running
from tests.cluster.test_full_disk import Place, needs_mounts, place
from tests.processes import PATIENCE_S, address, eventually, see_renewed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

__all__ = ["place"]

TTL_S = 10.0
"""A held lock outlasts a pause of a busy machine. Whether it is renewed can be seen before it would end."""
WAIT_S = 4.0
"""So long a lock is waited for that is not granted."""


class Fault(NamedTuple):
    """A disk that takes no more, as the node sees it.

    Attributes:
        within: a command that starts the node.
        directory: its data directory.
        breaks: lets every write fail from now on.
        mends: lets them work again.
        reason: what the system says.
    """

    within: tuple[str, ...]
    directory: Path
    breaks: Callable[[Running], object]
    mends: Callable[[Running], object]
    reason: str


def limited(tmp_path: Path) -> Fault:
    """No file may grow: works for every user."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    return Fault(
        within=(),
        directory=tmp_path / "data",
        breaks=lambda node: resource.prlimit(node.popen.pid, resource.RLIMIT_FSIZE, (0, hard)),
        mends=lambda node: resource.prlimit(node.popen.pid, resource.RLIMIT_FSIZE, (hard, hard)),
        reason="file too large",
    )


def full(place: Place) -> Fault:
    """A small file system, filled to the last byte."""

    def fill(node: Running) -> None:
        with (place.seen_from(node) / "ballast").open("wb", buffering=0) as file:
            while (room := os.fstatvfs(file.fileno())).f_bavail:
                file.write(bytes(room.f_bavail * room.f_frsize))

    return Fault(
        within=place.within,
        directory=place.directory / "data",
        breaks=fill,
        mends=lambda node: (place.seen_from(node) / "ballast").unlink(),
        reason="no space left on device",
    )


@pytest.fixture(params=["limit", pytest.param("full", marks=needs_mounts)])
def fault(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Fault:
    return limited(tmp_path) if request.param == "limit" else full(place)


@pytest.fixture(params=["process", "disk"])
def node(request: pytest.FixtureRequest, fault: Fault) -> Iterator[tuple[Running, str]]:
    """A node with a journal, and where it listens."""
    coordinator, listen = address(), address()
    arguments = ("node", "--id", "n1", "--listen", listen, "--coordinator", coordinator, "--no-grpc")
    kept = ("--data-dir", str(fault.directory), "--durability", request.param)
    with (
        running("coordinator", "--listen", coordinator, "--new-cluster", "--stabilization", "0.2"),
        running(*arguments, *kept, within=fault.within) as started,
    ):
        eventually(lambda: "4096 of 4096" in started.text or serves(listen), lambda: started.text)
        yield started, listen


def serves(listen: str) -> bool:
    try:
        return ask_status(listen, timeout_s=2).serving == 4096
    except lockring.LockringError:
        return False


def acquire_until_the_disk_is_full(client: lockring.Client, grants: list[lockring.Grant]) -> None:
    """Acquire locks, one after the other, until one has to wait: the last block of a file has room for some."""
    while True:
        grants += [client.lock(f"more-{len(grants)}").acquire(timeout=WAIT_S)]


def test_while_the_journal_cannot_be_written_held_locks_stay_and_new_ones_wait_and_say_why(
    node: tuple[Running, str], fault: Fault
) -> None:
    process, listen = node
    with lockring.Client(listen, ttl=TTL_S) as a, lockring.Client(listen, ttl=TTL_S) as b:
        held = a.lock("held").acquire(timeout=PATIENCE_S)
        given_back = a.lock("given back").acquire(timeout=PATIENCE_S)
        fault.breaks(process)
        more: list[lockring.Grant] = []
        with pytest.raises(lockring.LockringError, match=f"(?i){fault.reason}"):
            acquire_until_the_disk_is_full(b, more)
        held.check()
        given_back.release()
        status = ask_status(listen)
        assert fault.reason in status.journal_trouble.lower()
        assert status.journal_trouble_ms > 0
        shown = subprocess.run(
            [sys.executable, "-m", "lockring", "status", "--server", listen],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert "n1 has not been able to write its journal for" in shown.stdout
        see_renewed(held)
        see_renewed(held)
        assert process.text.count("locks that are held stay held, and new ones wait") == 1, process.text
        fault.mends(process)
        b.lock("new").acquire(timeout=PATIENCE_S).release()
        for grant in more:
            grant.release()
        process.wait_for("the journal works again")
        eventually(lambda: not ask_status(listen).journal_trouble, lambda: process.text)
        held.check()
        token = held.fencing_token
        process.popen.kill()
        process.wait()
        assert token == held.fencing_token
