"""The machine itself, in turn with the servers: a round trip between processes, and a sync of its disk.

A round trip of 64 bytes between two Python processes with blocking sockets is the floor: no lock that a server on this
machine keeps can be acquired faster. A sync is 64 bytes appended to a file, then `fdatasync`. Both move with the
machine's mood, so they have slices of their own between those of the servers.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.results import Values
from bench.workloads.base import RESUME_S, OneChild, Outcome, Runner

FLOOR: Final = "floor"
SYNC: Final = "a sync"

_SLICE_S: Final = 0.1
_RECORD: Final = b"x" * 64


class Beside(NamedTuple):
    """A measure of the machine.

    Attributes:
        title: its name in the tables.
        begin: takes the cores of the servers, () for any, and the directory of their files; returns a runner.
    """

    title: str
    begin: Callable[[tuple[int, ...], Path], Runner]


class Floor(Runner):
    """Two processes: one sends, and the other echoes it.

    Args:
        cores: the cores of both processes; () for any.
        directory: ignored.
    """

    def __init__(self, cores: tuple[int, ...], directory: Path) -> None:
        del directory
        self._echo = Child(_echo, cores)
        try:
            self._asker = OneChild(Child(_ask, self._echo.hear(), cores))
        except BaseException:
            self._echo.close()
            raise

    def slice(self) -> Values:
        """Exchange messages for a slice, and return the figures of a round trip."""
        return self._asker.slice()

    def total(self) -> Outcome:
        """Return the figures of all slices together."""
        return self._asker.total()

    def pids(self) -> tuple[int, ...]:
        """Return both processes."""
        return (self._echo.pid, *self._asker.pids())

    def close(self) -> None:
        """End both processes."""
        self._asker.close()
        self._echo.close()


def _sync(cores: tuple[int, ...], directory: Path) -> Runner:
    """Return a runner that syncs a file in a directory."""
    return OneChild(Child(_append, cores, directory))


def _echo(inbox: Inbox, cores: tuple[int, ...]) -> None:
    settle(cores)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.say(listener.getsockname()[1])
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(len(_RECORD)):
                sock.sendall(data)


def _ask(inbox: Inbox, port: int, cores: tuple[int, ...]) -> Values:
    settle(cores)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> None:
            sock.sendall(_RECORD)
            sock.recv(len(_RECORD))

        return _in_slices(inbox, round_trip)


def _append(inbox: Inbox, cores: tuple[int, ...], directory: Path) -> Values:
    settle(cores)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        fd = file.fileno()

        def append() -> None:
            os.write(fd, _RECORD)
            os.fdatasync(fd)

        return _in_slices(inbox, append)


def _in_slices(inbox: Inbox, operation: Callable[[], None]) -> Values:
    """Repeat an operation in slices, as `OneChild` asks for, and return the figures of all of them."""

    def repeat(seconds: float) -> list[int]:
        clock_ns = time.perf_counter_ns
        samples_ns = []
        end_ns = clock_ns() + int(seconds * 1e9)
        now_ns = 0
        while now_ns < end_ns:
            begin_ns = clock_ns()
            operation()
            now_ns = clock_ns()
            samples_ns.append(now_ns - begin_ns)
        return samples_ns

    repeat(RESUME_S)
    inbox.say("ready")
    all_ns: list[int] = []
    while inbox.hear():
        repeat(RESUME_S)
        samples_ns = repeat(_SLICE_S)
        inbox.say(latencies(samples_ns))
        all_ns += samples_ns
    return latencies(all_ns)


BESIDE: Final = {
    FLOOR: Beside("a round trip of 64 bytes (the floor)", Floor),
    SYNC: Beside("64 bytes appended and synced", _sync),
}
