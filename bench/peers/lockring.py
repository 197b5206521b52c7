"""lockring itself: a coordinator and one node, or a coordinator and three nodes with `sync` replication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import lockring
import lockring.aio
from bench.builds import compiled_python
from bench.peers.base import Endpoint, Server
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


class OneNode(Server):
    """A coordinator and one node, each a process, so that the node's processor time has a count of its own."""

    peer = "lockring"
    title = "lockring, one node"
    renewals = "session"
    nodes: ClassVar[int] = 1
    durability: ClassVar[Durability] = "none"
    has_tls: ClassVar[bool] = False
    has_rights: ClassVar[bool] = False

    def __init__(self, directory: Path | None = None, *, is_patient: bool = False) -> None:
        super().__init__(directory, is_patient=is_patient)
        self.cluster = _Cluster(
            self.python(),
            self.directory,
            nodes=self.nodes,
            durability=self.durability,
            is_patient=is_patient,
            tls=self.has_tls,
            access=_enforced(self.directory) if self.has_rights else OPEN,
        )

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


class OneNodeTls(OneNode):
    """The same, with mutual TLS on all ports."""

    peer = "lockring+tls"
    title = "lockring, one node, TLS"
    has_tls = True


class OneNodeRights(OneNodeTls):
    """The same, with rights: each acquire is judged by a hundred rules."""

    peer = "lockring+rights"
    title = "lockring, one node, TLS and rights"
    has_rights = True


class ThreeNodes(OneNode):
    """A coordinator and three nodes: each grant is on two of them before it is answered."""

    peer = "lockring-3"
    title = "lockring, three nodes, sync"
    nodes = 3


class OneNodeCompiled(OneNode):
    """One node and its clients, with the modules of the hot path compiled."""

    peer = "lockring+compiled"
    title = "lockring, one node, compiled"

    def python(self) -> str:
        """Return the interpreter that has the compiled build."""
        return compiled_python()


class OneNodeTlsCompiled(OneNodeCompiled):
    """One compiled node and its clients, with mutual TLS on all ports."""

    peer = "lockring+compiled+tls"
    title = "lockring, one node, compiled, TLS"
    has_tls = True


class OneNodeRightsCompiled(OneNodeTlsCompiled):
    """The same, with rights."""

    peer = "lockring+compiled+rights"
    title = "lockring, one node, compiled, TLS and rights"
    has_rights = True


class ThreeNodesCompiled(OneNodeCompiled):
    """Three nodes and their clients, with the modules of the hot path compiled."""

    peer = "lockring-3+compiled"
    title = "lockring, three nodes, sync, compiled"
    nodes = 3


class OneNodeWritten(OneNode):
    """The same, with each grant written to the node's journal before it is answered: it survives the process."""

    peer = "lockring+process"
    title = "lockring, one node, process"
    durability = "process"


class OneNodeSynced(OneNode):
    """The same, with each grant synced to disk before it is answered: it survives the loss of power."""

    peer = "lockring+disk"
    title = "lockring, one node, disk"
    durability = "disk"


class ThreeNodesWritten(ThreeNodes):
    """Each grant is in two nodes' journals before it is answered."""

    peer = "lockring-3+process"
    title = "lockring, three nodes, sync, process"
    durability = "process"


class ThreeNodesSynced(ThreeNodes):
    """Each grant is on two nodes' disks before it is answered."""

    peer = "lockring-3+disk"
    title = "lockring, three nodes, sync, disk"
    durability = "disk"


class OneNodeCompiledWritten(OneNodeCompiled):
    """The compiled build, with each grant written before it is answered."""

    peer = "lockring+compiled+process"
    title = "lockring, one node, process, compiled"
    durability = "process"


class OneNodeCompiledSynced(OneNodeCompiled):
    """The compiled build, with each grant synced to disk before it is answered."""

    peer = "lockring+compiled+disk"
    title = "lockring, one node, disk, compiled"
    durability = "disk"


class ThreeNodesCompiledWritten(ThreeNodesCompiled):
    """The compiled build, with each grant in two nodes' journals before it is answered."""

    peer = "lockring-3+compiled+process"
    title = "lockring, three nodes, sync, process, compiled"
    durability = "process"


class ThreeNodesCompiledSynced(ThreeNodesCompiled):
    """The compiled build, with each grant on two nodes' disks before it is answered."""

    peer = "lockring-3+compiled+disk"
    title = "lockring, three nodes, sync, disk, compiled"
    durability = "disk"


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
