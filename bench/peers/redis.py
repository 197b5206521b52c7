"""Redis as shipped (occasional snapshots, no waits for writes) or with synced writes, through redis-py's `Lock`."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import redis
import redis.asyncio

from bench.peers.base import HOST, Endpoint, Server
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports


class RedisServer(Server):
    """One Redis server."""

    renewals = "lock"
    flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        super().__init__(peer, directory, is_patient=is_patient)
        (self._port,) = free_ports(HOST, 1)
        place = ("--bind", HOST, "--port", str(self._port), "--dir", str(self.directory))
        seldom = (
            ("--hz", "1") if is_patient else ()
        )  # its timer, not to be due in each turn that is slowed down
        self._process = ServerProcess(["redis-server", *place, *self.flags, *seldom], self.directory / "log")

    def start(self) -> None:
        """Start the server, and wait until it answers PING."""
        self._process.start(self._answers)

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self._port), timeout=1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")

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


class RedisSynced(RedisServer):
    """The same server with a log of all changes, synced before each answer."""

    flags = ("--appendonly", "yes", "--appendfsync", "always")


class BlockingClient:
    """`redis.lock.Lock` with its default settings."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._redis = redis.Redis(HOST, endpoint.port)
        self._ttl_s = endpoint.ttl_s

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""
        lock = self._redis.lock(name, timeout=self._ttl_s)
        lock.acquire()
        release: Callable[[], object] = lock.release
        return release

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""


class AsyncioClient:
    """`redis.asyncio.lock.Lock`, over a large pool: the default one refuses the 101st connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._port, self._ttl_s = endpoint.port, endpoint.ttl_s
        self._redis: redis.asyncio.Redis | None = None

    async def open(self, overlapping: int) -> None:
        """Create the pool."""
        self._redis = redis.asyncio.Redis(host=HOST, port=self._port, max_connections=2 * overlapping + 10)

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return the function that releases it."""
        assert self._redis is not None
        # A token kept per thread is lost between tasks of one thread; redis-py's documentation says to turn that off.
        lock = self._redis.lock(name, timeout=self._ttl_s, thread_local=False)
        await lock.acquire()
        release: Callable[[], Awaitable[object]] = lock.release
        return release
