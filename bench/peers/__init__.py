"""The peers of lockring, by the names of their figures.

Modules of peers are imported on demand, so a client that is not installed does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple, cast

import uvloop

from bench.peers.base import AsyncClient, Client, Endpoint, Server
from bench.peers.variants import VARIANTS


class Peer(NamedTuple):
    """A peer.

    Attributes:
        title: its name in tables.
        module: its module in `bench.peers`.
        server: name of the server's class.
        has_asyncio: whether its library has an asyncio client; otherwise threads overlap.
        waits_in_asyncio: whether only its asyncio client is notified of a release, while the blocking one polls.
        is_compiled: whether it needs the compiled build of this project.
    """

    title: str
    module: str
    server: str
    has_asyncio: bool = True
    waits_in_asyncio: bool = False
    is_compiled: bool = False


PEERS: Final[dict[str, Peer]] = {
    **{each.name: Peer(each.title, "lockring", "Servers", is_compiled=each.is_compiled) for each in VARIANTS},
    "lockring+frames": Peer("lockring's node alone", "prepared", "Servers"),
    "redis": Peer("redis-py `Lock`", "redis", "RedisServer"),
    "redis+wait": Peer("redis-py `Lock`, one replica, `WAIT 1`", "replicated_redis", "RedisReplicated"),
    "redis+sync": Peer("redis-py `Lock`, `appendfsync always`", "redis", "RedisSynced"),
    "redis+wait+sync": Peer(
        "redis-py `Lock`, `appendfsync always`, one replica", "replicated_redis", "RedisReplicatedSynced"
    ),
    "postgres": Peer("PostgreSQL advisory lock", "postgres", "PostgresServer"),
    "zookeeper": Peer("kazoo `Lock`", "zookeeper", "ZooKeeperServer", has_asyncio=False),
    "etcd": Peer("etcd", "etcd", "EtcdServer", waits_in_asyncio=True),
    "zookeeper-3": Peer("kazoo `Lock`, three servers", "zookeeper", "ZooKeeperServer", has_asyncio=False),
    "etcd-3": Peer("etcd, three members", "etcd", "EtcdServer", waits_in_asyncio=True),
    "zookeeper+tmpfs": Peer("kazoo `Lock`, data on tmpfs", "zookeeper", "ZooKeeperServer", has_asyncio=False),
    "etcd+tmpfs": Peer("etcd, data on tmpfs", "etcd", "EtcdServer", waits_in_asyncio=True),
}

OURS: Final = tuple(name for name in PEERS if name.startswith("lockring"))
"""The servers of this project; the first one is that with which all others are compared."""


def server(peer: str, directory: Path | None = None, *, is_patient: bool = False) -> Server:
    """Return a peer's server, not yet started.

    Args:
        peer: key of `PEERS`.
        directory: in which it makes its directory; None for the usual one of temporary files.
        is_patient: whether leases between servers last a minute, for a workload that slows one of them down.

    Raises:
        ImportError: its client library is not installed.
    """
    made = cast(type[Server], getattr(_module(peer), PEERS[peer].server))
    return made(peer, directory, is_patient=is_patient)


def blocking(endpoint: Endpoint) -> Client:
    """Return a peer's blocking client, connected or about to connect."""
    return cast(Client, _module(endpoint.peer).BlockingClient(endpoint))


def asynchronous(endpoint: Endpoint) -> AsyncClient:
    """Return a peer's asyncio client, not yet open."""
    return cast(AsyncClient, _module(endpoint.peer).AsyncioClient(endpoint))


class _Steps:
    """An asyncio client, driven one call after the other like a blocking one."""

    def __init__(self, client: AsyncClient) -> None:
        self._loop = uvloop.new_event_loop()
        self._client = client
        self._loop.run_until_complete(client.open(1))

    def acquire(self, name: str) -> Callable[[], object]:
        release = self._loop.run_until_complete(self._client.acquire(name))
        return lambda: self._loop.run_until_complete(_awaited(release))

    def hold_many(self) -> None:
        pass


async def _awaited(function: Callable[[], Awaitable[object]]) -> object:
    return await function()


def waiting(endpoint: Endpoint) -> Client:
    """Return the client of a peer, used as a blocking one, that waits best for a held lock."""
    return _Steps(asynchronous(endpoint)) if PEERS[endpoint.peer].waits_in_asyncio else blocking(endpoint)


def _module(peer: str) -> ModuleType:
    return import_module(f"bench.peers.{PEERS[peer].module}")
