"""etcd as shipped (each change is on disk before it is answered): etcd3gw's `Lock` blocking, aetcd's with asyncio.

One server, or three that agree by Raft. The clients of three ask the leader, which spares them a hop.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aetcd
import etcd3gw

from bench.peers.base import HOST, Endpoint
from bench.peers.ensemble import Ensemble, Member
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_POLL_S: Final = 0.1
"""The interval at which a waiter tries again, as often as redis-py does: etcd3gw's lock tries once."""


class EtcdServer(Ensemble):
    """One etcd server, or three."""

    renewals = "lock"

    def prepare(self) -> Sequence[Member]:
        """Return the members, each with a directory of its own."""
        ports = free_ports(HOST, 2 * self.size)
        peers = [f"http://{HOST}:{port}" for port in ports[self.size :]]
        everybody = ",".join(f"m{number}={url}" for number, url in enumerate(peers))
        return [
            Member(port, self._process(number, port, url, everybody))
            for number, (port, url) in enumerate(zip(ports, peers, strict=False))
        ]

    def _process(self, number: int, port: int, peer: str, everybody: str) -> ServerProcess:
        client = f"http://{HOST}:{port}"
        where = self.directory / f"m{number}"
        where.mkdir()
        flags = {
            "name": f"m{number}",
            "data-dir": str(where / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": everybody,
            "log-level": "error",
        }
        words = (word for name, value in flags.items() for word in (f"--{name}", value))
        return ServerProcess(["etcd", *words], where / "log")

    def serves(self, member: Member) -> bool:
        """Return whether a member reports that it is healthy."""
        with urllib.request.urlopen(f"http://{HOST}:{member.port}/health", timeout=2) as answer:
            return b'"true"' in answer.read()

    def leads(self, member: Member) -> bool:
        """Return whether a member reports itself as the leader."""
        url = f"http://{HOST}:{member.port}/v3/maintenance/status"
        with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=2) as answer:
            status = json.load(answer)
        return bool(status["leader"] == status["header"]["member_id"])


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
