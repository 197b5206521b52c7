"""Redis with one replica: a lock is acquired when the replica has it too, by WAIT.

redis-py's `Lock` does not wait for replicas, so the client adds WAIT 1 after each acquire, on the connection that wrote
the lock. A release waits for nothing, as with lockring: if it is lost, the lock ends with its lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, Final

import redis
import redis.asyncio

from bench.peers.base import HOST, Endpoint
from bench.peers.redis import RedisServer, RedisSynced
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_WAIT_MS: Final = 5000


class NotReplicated(RuntimeError):
    """The replica did not confirm a lock in time."""


class RedisReplicated(RedisServer):
    """A Redis server and its replica."""

    flags: ClassVar[tuple[str, ...]] = ("--repl-diskless-sync-delay", "0")
    replica_flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        super().__init__(peer, directory, is_patient=is_patient)
        (replica_port,) = free_ports(HOST, 1)
        where = self.directory / "replica"
        where.mkdir()
        place = ("--bind", HOST, "--port", str(replica_port), "--dir", str(where))
        self._replica = ServerProcess(
            [
                "redis-server",
                *place,
                "--replicaof",
                HOST,
                str(self._port),
                *self.replica_flags,
                *(("--hz", "1") if is_patient else ()),
            ],
            where / "log",
        )

    def start(self) -> None:
        """Start both servers, and wait until the replica follows."""
        super().start()
        self._replica.start(self._follows)

    def _follows(self) -> bool:
        with redis.Redis(HOST, self._port, protocol=2) as client:
            client.set("bench", "a write to confirm")
            return bool(client.execute_command("WAIT", 1, 100) == 1)

    def stop(self) -> None:
        """Kill both servers."""
        self._replica.stop()
        super().stop()

    def pids(self) -> tuple[int, ...]:
        """Return both servers' processes."""
        return (*super().pids(), self._replica.pid)


class RedisReplicatedSynced(RedisReplicated):
    """The same servers, each with a log of all changes, synced before it answers or confirms."""

    flags = (*RedisReplicated.flags, *RedisSynced.flags)
    replica_flags = RedisSynced.flags


class BlockingClient:
    """`redis.lock.Lock` and WAIT, on one connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._redis = redis.Redis(HOST, endpoint.port, single_connection_client=True)
        self._ttl_s = endpoint.ttl_s

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock and for the replica, and return the function that releases it.

        Raises:
            NotReplicated: the replica did not confirm it in time.
        """
        lock = self._redis.lock(name, timeout=self._ttl_s)
        lock.acquire()
        _check(self._redis.execute_command("WAIT", 1, _WAIT_MS))
        release: Callable[[], object] = lock.release
        return release

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""


class AsyncioClient:
    """A connection for each lock held or waited for at once, since WAIT is about the writes of its connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._port, self._ttl_s = endpoint.port, endpoint.ttl_s
        self._idle: list[redis.asyncio.Redis] = []

    async def open(self, overlapping: int) -> None:
        """Open the connections."""
        for _ in range(overlapping):
            client = redis.asyncio.Redis(host=HOST, port=self._port, single_connection_client=True)
            self._idle.append(await client.initialize())

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock and for the replica, and return the function that releases it.

        Raises:
            NotReplicated: the replica did not confirm it in time.
        """
        client = self._idle.pop()
        lock = client.lock(name, timeout=self._ttl_s, thread_local=False)
        await lock.acquire()
        _check(await client.execute_command("WAIT", 1, _WAIT_MS))

        async def release() -> None:
            await lock.release()
            self._idle.append(client)

        return release


def _check(replicas: object) -> None:
    if not isinstance(replicas, int) or replicas < 1:
        raise NotReplicated(f"no replica confirmed a lock within {_WAIT_MS} ms")
