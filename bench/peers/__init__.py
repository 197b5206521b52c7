"""What lockring is measured against, by the name under which its figures stand.

Modules of peers are imported when they are needed: one whose client is not installed is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple, cast

import uvloop

from bench.peers.base import AsyncClient, Client, Endpoint, Server


class Peer(NamedTuple):
    """Where a peer is to be found.

    Attributes:
        module: of `bench.peers`.
        server: the server's class.
        has_asyncio: whether its library has an asyncio client; otherwise threads overlap.
        waits_in_asyncio: whether only its asyncio client is told of a release, while the blocking one asks again and again.
    """

    module: str
    server: str
    has_asyncio: bool = True
    waits_in_asyncio: bool = False


PEERS: Final[dict[str, Peer]] = {
    "lockring": Peer("lockring", "OneNode"),
    "lockring-3": Peer("lockring", "ThreeNodes"),
    "lockring+frames": Peer("prepared", "NodeAlone"),
    "redis": Peer("redis", "RedisServer"),
    "postgres": Peer("postgres", "PostgresServer"),
    "zookeeper": Peer("zookeeper", "ZooKeeperServer", has_asyncio=False),
    "etcd": Peer("etcd", "EtcdServer", waits_in_asyncio=True),
    "zookeeper+tmpfs": Peer("zookeeper", "ZooKeeperInMemory", has_asyncio=False),
    "etcd+tmpfs": Peer("etcd", "EtcdInMemory", waits_in_asyncio=True),
}

OURS: Final = ("lockring", "lockring-3", "lockring+frames")


def server_class(peer: str) -> type[Server]:
    """The class of a peer's server.

    Raises:
        ImportError: its client library is not installed.
    """
    return cast(type[Server], getattr(_module(peer), PEERS[peer].server))


def blocking(endpoint: Endpoint) -> Client:
    """A peer's blocking client, connected or about to be."""
    return cast(Client, _module(endpoint.peer).BlockingClient(endpoint))


def asynchronous(endpoint: Endpoint) -> AsyncClient:
    """A peer's asyncio client, not yet open."""
    return cast(AsyncClient, _module(endpoint.peer).AsyncioClient(endpoint))


class _Steps:
    """An asyncio client that is driven one call after the other, as a blocking one."""

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
    """The client of a peer, to be used as a blocking one, that waits best for a lock which another holds."""
    return _Steps(asynchronous(endpoint)) if PEERS[endpoint.peer].waits_in_asyncio else blocking(endpoint)


def _module(peer: str) -> ModuleType:
    return import_module(f"bench.peers.{PEERS[peer].module}")
