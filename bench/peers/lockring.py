"""lockring itself: a coordinator and one node, or a coordinator and three nodes with `sync` replication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import lockring
import lockring.aio
from bench.peers.base import Endpoint, Server
from lockring.testing import COORDINATOR, LocalCluster


class OneNode(Server):
    """A coordinator and one node, each a process, so that the node's processor time can be told apart."""

    peer = "lockring"
    title = "lockring, one node"
    renewals = "session"
    nodes: ClassVar[int] = 1

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        self.cluster = LocalCluster(nodes=self.nodes, directory=self.directory, log_level="warning")

    def start(self) -> None:
        """Start it, and wait until every slot is served."""
        self.cluster.start()

    def stop(self) -> None:
        """Kill its processes."""
        self.cluster.close()

    def pids(self) -> tuple[int, ...]:
        """The nodes."""
        return tuple(
            self.cluster.pid_of(name) for name in self.cluster.nodes if self.cluster.is_running(name)
        )

    def companions(self) -> tuple[int, ...]:
        """The coordinator: it is on the way of no lock operation."""
        return (self.cluster.pid_of(COORDINATOR),)

    @property
    def address(self) -> str:
        """Of all nodes."""
        return self.cluster.servers


class ThreeNodes(OneNode):
    """A coordinator and three nodes: each grant is on two of them before it is answered."""

    peer = "lockring-3"
    title = "lockring, three nodes, sync"
    nodes = 3


class BlockingClient:
    """`lockring.Client`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = lockring.Client(endpoint.address, ttl=endpoint.ttl_s)

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return what releases it."""
        return self._client.lock(name).acquire().release

    def hold_many(self) -> None:
        """Nothing is to be done."""


class AsyncioClient:
    """`lockring.aio.Client`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = lockring.aio.Client(endpoint.address, ttl=endpoint.ttl_s)

    async def open(self, overlapping: int) -> None:
        """The client connects by itself, once per node."""

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return what releases it."""
        return (await self._client.lock(name).acquire()).release
