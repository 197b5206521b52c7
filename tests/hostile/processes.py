"""The processes under attack, watched from outside: alive, how much memory, how many descriptors, what they log."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lockring.cluster_state import ClusterState
from lockring.errors import LockringError
from lockring.net.oneshot import Dial, ask_state, dial_plain
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.local.children import command_of, free_ports
from lockring.server.settings import ServeSettings
from lockring.slots import SLOTS
from lockring.testing import COORDINATOR, LocalCluster
from lockring.testing.network import Place
from lockring.testing.process import TestedProcess
from tests.hostile.guises import Guises, acl_file_in

WAIT_S: Final = 60.0
"""Bound of every wait for something that takes a moment."""

BACKUP_LEASE_S: Final = 30.0
COORDINATOR_LEASE_S: Final = 120.0
"""Longer than a process on a busy machine stands still: a lock that moves shall have moved for another reason."""

MEMBER_LEASE_S: Final = 60.0


class _Record(msgspec.Struct):
    """The fields of every line of an audit log."""

    at: str
    server: str
    act: str
    outcome: str


_LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (\w+) +[\w.-]+: \S")
_LOG_BYTES: Final = 1 << 20


_records: Final = msgspec.json.Decoder(_Record)


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
        calls: the address of its gRPC API, "" for none.
        audit_path: its audit log, None for none.

    Attributes:
        outcomes: those in its audit log, once its troubles were asked for.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        addresses: list[str],
        is_alive: Callable[[], bool],
        log_path: Path,
        *,
        calls: str = "",
        audit_path: Path | None = None,
    ) -> None:
        self.name = name
        self.pid = pid
        self.addresses = addresses
        self._is_alive = is_alive
        self._log_path = log_path
        self.calls = calls
        self._audit_path = audit_path
        self.outcomes: Counter[str] = Counter()

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
        return found + self._troubles_of_audit()

    def _troubles_of_audit(self) -> list[str]:
        """Return what is wrong with its audit log: a line is not a record."""
        if self._audit_path is None:
            return []
        self.outcomes.clear()
        with self._audit_path.open("rb") as log:
            for line in log:
                try:
                    self.outcomes[_records.decode(line).outcome] += 1
                except msgspec.MsgspecError as error:
                    return [
                        f"{self.name} wrote a line of its audit log that is no record: {line[:200]!r}, {error}"
                    ]
        return []

    def last_words(self) -> str:
        """The end of its log."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join([f"--- {self.name}", *(each[:300] for each in lines[-25:])])


@contextlib.contextmanager
def guarded_cluster_of(nodes: int) -> Iterator[tuple[LocalCluster, list[Watched], Guises]]:
    """A cluster whose ports all speak TLS and demand rights; clients need certificates, also those of gRPC."""
    with tempfile.TemporaryDirectory(prefix="lockring-") as directory:
        made = LocalCluster(
            nodes=nodes,
            backup_lease_s=BACKUP_LEASE_S,
            coordinator_lease_s=COORDINATOR_LEASE_S,
            member_lease_s=MEMBER_LEASE_S,
            directory=directory,
            tls=True,
            grpc=True,
            access=AccessSettings(
                auth="enforcing",
                acl_file=str(acl_file_in(Path(directory) / "certs")),
                audit_log=str(_audit_log_in(Path(directory))),
            ),
        )
        assert made.certificates is not None
        guises = Guises(made.certificates)
        with made as cluster:
            yield cluster, [_watched(cluster, name) for name in (COORDINATOR, *cluster.nodes)], guises


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


def _audit_log_in(directory: Path) -> Path:
    """Return the audit log of all processes of a cluster: each writes whole lines."""
    return directory / "audit.log"


def _watched(cluster: LocalCluster, name: str) -> Watched:
    is_guarded = cluster.certificates is not None
    return Watched(
        name,
        cluster.pid_of(name),
        [cluster.address_of(name)],
        lambda: cluster.is_running(name),
        cluster.directory / f"{name}.log",
        calls=cluster.grpc_address_of(name) if is_guarded and name != COORDINATOR else "",
        audit_path=_audit_log_in(cluster.directory) if is_guarded else None,
    )


@contextlib.contextmanager
def served(*, descriptors: int = 0, guises: Guises | None = None) -> Iterator[Watched]:
    """`lockring serve`: a coordinator and a node in one process, with all slots assigned.

    Args:
        descriptors: how many files and sockets it may open; 0 for as many as this process.
        guises: with TLS and rights, and with their ACL file. Clients may come without a certificate; those of gRPC do.
    """
    with tempfile.TemporaryDirectory(prefix="lockring-") as directory:
        ports = free_ports("127.0.0.1", 3)
        calls, audit_path, access, tls = "", None, OPEN, {}
        if guises is not None:
            calls, audit_path = f"127.0.0.1:{ports[2]}", _audit_log_in(Path(directory))
            access = AccessSettings(
                auth="enforcing", acl_file=str(guises.acl_file), audit_log=str(audit_path)
            )
            tls = guises.certificates.server_settings("node-1", "127.0.0.1") | {"tls_client_auth": "optional"}
        settings = ServeSettings(
            listen=f"127.0.0.1:{ports[0]}",
            coordinator_listen=f"127.0.0.1:{ports[1]}",
            in_memory=True,
            new_cluster=True,
            backup_lease_s=BACKUP_LEASE_S,
            coordinator_lease_s=COORDINATOR_LEASE_S,
            member_lease_s=MEMBER_LEASE_S,
            grpc=True,
            grpc_listen=calls,
            **tls,
        )
        path = Path(directory) / "serve.log"
        command = command_of("serve", settings, access)
        if descriptors:
            command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
        process = TestedProcess(Place(settings.listen), command, path)
        process.spawn()
        try:
            _await_slots(process, settings.listen, dial_plain if guises is None else guises.dial)
            addresses = [settings.listen, settings.coordinator_listen]
            yield Watched(
                "serve",
                process.pid,
                addresses,
                lambda: process.is_running,
                path,
                calls=calls,
                audit_path=audit_path,
            )
        finally:
            process.kill()


def _await_slots(process: TestedProcess, address: str, dial: Dial) -> None:
    end_s = time.monotonic() + WAIT_S
    while True:
        state = ClusterState()
        with contextlib.suppress(LockringError):  # it does not listen yet
            state = ask_state(address, dial=dial).state
        if sum(slot.primary is not None for slot in state.slots) == SLOTS:
            return
        assert process.is_running and time.monotonic() < end_s, f"serve does not start\n{process.log()}"
        time.sleep(0.05)
