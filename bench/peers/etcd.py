"""etcd as shipped (each change is on disk before it is answered): etcd3gw's `Lock` blocking, aetcd's with asyncio."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aetcd
import etcd3gw

from bench.peers.base import HOST, Endpoint, Server
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_POLL_S: Final = 0.1
"""The interval at which a waiter tries again, as often as redis-py does: etcd3gw's lock tries once."""


class EtcdServer(Server):
    """One etcd server."""

    peer = "etcd"
    title = "etcd (etcd3gw, aetcd)"
    renewals = "lock"

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        self._port, peer_port = free_ports(HOST, 2)
        client, peer = f"http://{HOST}:{self._port}", f"http://{HOST}:{peer_port}"
        flags = {
            "data-dir": str(self.directory / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "error",
        }
        self._process = ServerProcess(
            ["etcd", *(word for name, value in flags.items() for word in (f"--{name}", value))],
            self.directory / "log",
        )

    def start(self) -> None:
        """Start the server, and wait until it reports that it is healthy."""
        self._process.start(self._answers)

    def _answers(self) -> bool:
        with urllib.request.urlopen(f"http://{HOST}:{self._port}/health", timeout=2) as answer:
            return b'"true"' in answer.read()

    def stop(self) -> None:
        """Kill the server."""
        self._process.stop()

    def pids(self) -> tuple[int, ...]:
        """Return the server's process."""
        return (self._process.pid,)

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"{HOST}:{self._port}"


class EtcdInMemory(EtcdServer):
    """The same server with its data on tmpfs, so that the disk costs nothing."""

    peer = "etcd+tmpfs"
    title = "etcd, data on tmpfs"

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory or Path("/dev/shm"))


class BlockingClient:
    """`etcd3gw.lock.Lock`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = etcd3gw.client(host=HOST, port=endpoint.port, api_path="/v3/")
        self._ttl_s = endpoint.ttl_s

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""
        lock = self._client.lock(name, ttl=self._ttl_s)
        while not lock.acquire():
            time.sleep(_POLL_S)
        release: Callable[[], object] = lock.release
        return release

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""


class AsyncioClient:
    """`aetcd.locks.Lock` over one channel. A waiter watches the key."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._port, self._ttl_s = endpoint.port, endpoint.ttl_s
        self._client: aetcd.Client | None = None

    async def open(self, overlapping: int) -> None:
        """Connect."""
        self._client = aetcd.Client(HOST, self._port)
        await self._client.connect()

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return the function that releases it."""
        assert self._client is not None
        lock = self._client.lock(name.encode(), ttl=self._ttl_s)
        await lock.acquire(timeout=None)
        release: Callable[[], Awaitable[object]] = lock.release
        return release
