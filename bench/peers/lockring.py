"""lockring itself: a coordinator and one node, or a coordinator and three nodes with `sync` replication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lockring
import lockring.aio
from bench.builds import compiled_python
from bench.peers.base import Endpoint, Server
from bench.peers.variants import Variant
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.testing import COORDINATOR, Durability, LocalCluster
from lockring.testing.process import TestedProcess


class _Cluster(LocalCluster):
    """A cluster whose processes run under a given interpreter.

    Args:
        python: the path of the interpreter.
        directory: for logs and data.
        nodes: how many nodes there are.
        durability: what the nodes keep on disk.
        is_patient: whether leases between its processes last a minute or more, rather than some seconds.
        tls: whether all ports speak TLS.
        access: identities and rights.
    """

    def __init__(
        self,
        python: str,
        directory: Path,
        *,
        nodes: int,
        durability: Durability,
        is_patient: bool,
        tls: bool,
        access: AccessSettings,
    ) -> None:
        super().__init__(
            nodes=nodes,
            durability=durability,
            directory=directory,
            log_level="warning",
            backup_lease_s=60.0 if is_patient else 2.0,
            coordinator_lease_s=120.0 if is_patient else 30.0,
            member_lease_s=120.0 if is_patient else 5.0,
            tls=tls,
            access=access,
        )
        self._python = python

    def _spawn(self, process: TestedProcess) -> None:
        process.command = [self._python, *process.command[1:]]
        super()._spawn(process)


def _enforced(directory: Path) -> AccessSettings:
    """Return rights for the cluster's own client: to the benchmark's locks among many others, and to every state."""
    others = [f"acquire team-{number}/*" for number in range(95)]
    rules = ["acquire lock-*", "read *", "drain *", "deny acquire secret/*", "deny watch secret/*", *others]
    path = directory / "acl.toml"
    listed = ", ".join(f'"{each}"' for each in rules)
    path.write_text(
        f'[[role]]\nname = "bench"\nrules = [{listed}]\n[[certificate]]\nsan = "test"\nroles = ["bench"]\n'
    )
    return AccessSettings(auth="enforcing", acl_file=str(path))


class Servers(Server):
    """A coordinator and nodes, each a process, so that the nodes' processor time has a count of its own.

    Args:
        peer: the name of its figures, which says how the nodes and their clients are built and set up.
        directory: in which it makes its directory; None for the usual one of temporary files.
        is_patient: whether leases between servers last a minute, for a workload that slows one of them down.
    """

    renewals = "session"

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        super().__init__(peer, directory, is_patient=is_patient)
        self._variant = variant = Variant.of(peer)
        self.cluster = _Cluster(
            self.python(),
            self.directory,
            nodes=variant.nodes,
            durability=variant.durability,
            is_patient=is_patient,
            tls=variant.has_tls,
            access=_enforced(self.directory) if variant.has_rights else OPEN,
        )

    def python(self) -> str:
        """Return the interpreter of its processes and clients: the one that has their build."""
        return compiled_python() if self._variant.is_compiled else super().python()

    def start(self) -> None:
        """Start the cluster, and wait until every slot is served."""
        self.cluster.start()

    def stop(self) -> None:
        """Kill the cluster's processes."""
        self.cluster.close()

    def pids(self) -> tuple[int, ...]:
        """Return the nodes' processes."""
        return tuple(
            self.cluster.pid_of(name) for name in self.cluster.nodes if self.cluster.is_running(name)
        )

    def companions(self) -> tuple[int, ...]:
        """Return the coordinator's process: it is not on the path of any lock operation."""
        return (self.cluster.pid_of(COORDINATOR),)

    @property
    def address(self) -> str:
        """The addresses of all nodes."""
        return self.cluster.servers

    def files(self) -> dict[str, Any]:
        """Return the files of the cluster's own client."""
        certificates = self.cluster.certificates
        return {} if certificates is None else dict(certificates.client_files)


class BlockingClient:
    """`lockring.Client`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = lockring.Client(endpoint.address, ttl=endpoint.ttl_s, **endpoint.files)

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""
        return self._client.lock(name).acquire().release

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""


class AsyncioClient:
    """`lockring.aio.Client`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = lockring.aio.Client(endpoint.address, ttl=endpoint.ttl_s, **endpoint.files)

    async def open(self, overlapping: int) -> None:
        """Do nothing: the client connects by itself, once per node."""

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return the function that releases it."""
        return (await self._client.lock(name).acquire()).release
