"""The processes under attack, watched from outside: alive, how much memory, how many descriptors, what they log."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState
from lockring.errors import LockringError
from lockring.net.oneshot import ask_state
from lockring.server.local.children import command_of, free_ports
from lockring.server.settings import ServeSettings
from lockring.slots import SLOTS
from lockring.testing import COORDINATOR, LocalCluster
from lockring.testing.network import Place
from lockring.testing.process import TestedProcess

WAIT_S: Final = 60.0
"""Bound of every wait for something that takes a moment."""

BACKUP_LEASE_S: Final = 15.0
COORDINATOR_LEASE_S: Final = 30.0
"""Longer than a process on a busy machine stands still: a lock that moves shall have moved for another reason."""

MEMBER_LEASE_S: Final = 30.0

_LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (\w+) +[\w.-]+: \S")
_LOG_BYTES: Final = 1 << 20


class Failed(AssertionError):
    """Something did not hold."""


class Report:
    """The report of a run, in lines of Markdown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def table(self, *rows: tuple[object, ...]) -> None:
        """A table; the first row is its head."""
        head, *body = rows
        lines = [head, tuple("---" for _ in head), *body]
        self.lines += ["| " + " | ".join(f"{each}" for each in row) + " |" for row in lines] + [""]


class Sample(NamedTuple):
    """A process at one moment."""

    rss_kib: int
    descriptors: int


class Watched:
    """One process.

    Args:
        name: for the report.
        pid: its process id, now and at the end.
        addresses: its ports.
        is_alive: whether it has not ended.
        log_path: where it logs.
    """

    def __init__(
        self, name: str, pid: int, addresses: list[str], is_alive: Callable[[], bool], log_path: Path
    ) -> None:
        self.name = name
        self.pid = pid
        self.addresses = addresses
        self._is_alive = is_alive
        self._log_path = log_path

    def sample(self) -> Sample:
        """Its memory and descriptors now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None, f"{self.name} has no memory: it has ended"
        return Sample(int(found[1]), sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir()))

    def settled(self, descriptors_max: int, *, end_s: float | None = None) -> Sample:
        """Return its sample once its descriptors are down to so many, or when the monotonic clock calls it useless
        to wait any longer; by default after a minute."""
        end_s = time.monotonic() + WAIT_S if end_s is None else end_s
        while True:
            sample = self.sample()
            if sample.descriptors <= descriptors_max or time.monotonic() > end_s:
                return sample
            time.sleep(0.05)

    def troubles(self) -> list[str]:
        """Return what is wrong with it: it has ended, or logged what it should not."""
        found = []
        if not self._is_alive():
            found.append(f"{self.name} has ended")
        with self._log_path.open("rb") as log:
            for line in log:
                text = line.decode(errors="replace").rstrip("\n")
                event = _LINE.match(text)
                if event is None:
                    found.append(f"{self.name} logged a line that is no event: {text[:200]!r}")
                elif event[1] == "error":
                    found.append(f"{self.name} logged {text[:200]!r}")
                if len(found) > 20:
                    break
        return found

    def last_words(self) -> str:
        """The end of its log."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join([f"--- {self.name}", *(each[:300] for each in lines[-25:])])


@contextlib.contextmanager
def cluster_of(nodes: int) -> Iterator[tuple[LocalCluster, list[Watched]]]:
    """A cluster of a coordinator and nodes, each a process."""
    with LocalCluster(
        nodes=nodes,
        backup_lease_s=BACKUP_LEASE_S,
        coordinator_lease_s=COORDINATOR_LEASE_S,
        member_lease_s=MEMBER_LEASE_S,
    ) as cluster:
        yield cluster, [_watched(cluster, name) for name in (COORDINATOR, *cluster.nodes)]


def _watched(cluster: LocalCluster, name: str) -> Watched:
    return Watched(
        name,
        cluster.pid_of(name),
        [cluster.address_of(name)],
        lambda: cluster.is_running(name),
        cluster.directory / f"{name}.log",
    )


@contextlib.contextmanager
def served(*, descriptors: int = 0) -> Iterator[Watched]:
    """`lockring serve`: a coordinator and a node in one process, with all slots assigned.

    Args:
        descriptors: how many files and sockets it may open; 0 for as many as this process.
    """
    with tempfile.TemporaryDirectory(prefix="lockring-") as directory:
        ports = free_ports("127.0.0.1", 2)
        settings = ServeSettings(
            listen=f"127.0.0.1:{ports[0]}",
            coordinator_listen=f"127.0.0.1:{ports[1]}",
            in_memory=True,
            new_cluster=True,
            backup_lease_s=BACKUP_LEASE_S,
            coordinator_lease_s=COORDINATOR_LEASE_S,
            member_lease_s=MEMBER_LEASE_S,
        )
        path = Path(directory) / "serve.log"
        command = command_of("serve", settings)
        if descriptors:
            command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
        process = TestedProcess(Place(settings.listen), command, path)
        process.spawn()
        try:
            _await_slots(process, settings.listen)
            addresses = [settings.listen, settings.coordinator_listen]
            yield Watched("serve", process.pid, addresses, lambda: process.is_running, path)
        finally:
            process.kill()


def _await_slots(process: TestedProcess, address: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while True:
        state = ClusterState()
        with contextlib.suppress(LockringError):  # it does not listen yet
            state = ask_state(address).state
        if sum(slot.primary is not None for slot in state.slots) == SLOTS:
            return
        assert process.is_running and time.monotonic() < end_s, f"serve does not start\n{process.log()}"
        time.sleep(0.05)
