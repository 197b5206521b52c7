"""The peers of lockring, by the names of their figures.

Modules of peers are imported on demand, so a client that is not installed does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple, cast

import uvloop

from bench.peers.base import AsyncClient, Client, Endpoint, Server


class Peer(NamedTuple):
    """The place of a peer.

    Attributes:
        module: its module in `bench.peers`.
        server: name of the server's class.
        has_asyncio: whether its library has an asyncio client; otherwise threads overlap.
        waits_in_asyncio: whether only its asyncio client is notified of a release, while the blocking one polls.
        is_compiled: whether it needs the compiled build of this project.
    """

    module: str
    server: str
    has_asyncio: bool = True
    waits_in_asyncio: bool = False
    is_compiled: bool = False


PEERS: Final[dict[str, Peer]] = {
    "lockring": Peer("lockring", "OneNode"),
    "lockring+process": Peer("lockring", "OneNodeWritten"),
    "lockring+disk": Peer("lockring", "OneNodeSynced"),
    "lockring+tls": Peer("lockring", "OneNodeTls"),
    "lockring+rights": Peer("lockring", "OneNodeRights"),
    "lockring+compiled": Peer("lockring", "OneNodeCompiled", is_compiled=True),
    "lockring+compiled+process": Peer("lockring", "OneNodeCompiledWritten", is_compiled=True),
    "lockring+compiled+disk": Peer("lockring", "OneNodeCompiledSynced", is_compiled=True),
    "lockring+compiled+tls": Peer("lockring", "OneNodeTlsCompiled", is_compiled=True),
    "lockring+compiled+rights": Peer("lockring", "OneNodeRightsCompiled", is_compiled=True),
    "lockring-3": Peer("lockring", "ThreeNodes"),
    "lockring-3+process": Peer("lockring", "ThreeNodesWritten"),
    "lockring-3+disk": Peer("lockring", "ThreeNodesSynced"),
    "lockring-3+compiled": Peer("lockring", "ThreeNodesCompiled", is_compiled=True),
    "lockring-3+compiled+process": Peer("lockring", "ThreeNodesCompiledWritten", is_compiled=True),
    "lockring-3+compiled+disk": Peer("lockring", "ThreeNodesCompiledSynced", is_compiled=True),
    "lockring+frames": Peer("prepared", "NodeAlone"),
    "redis": Peer("redis", "RedisServer"),
    "redis+wait": Peer("replicated_redis", "RedisReplicated"),
    "redis+sync": Peer("redis", "RedisSynced"),
    "postgres": Peer("postgres", "PostgresServer"),
    "zookeeper": Peer("zookeeper", "ZooKeeperServer", has_asyncio=False),
    "etcd": Peer("etcd", "EtcdServer", waits_in_asyncio=True),
    "zookeeper-3": Peer("zookeeper", "ZooKeeperEnsemble", has_asyncio=False),
    "etcd-3": Peer("etcd", "EtcdCluster", waits_in_asyncio=True),
    "zookeeper+tmpfs": Peer("zookeeper", "ZooKeeperInMemory", has_asyncio=False),
    "etcd+tmpfs": Peer("etcd", "EtcdInMemory", waits_in_asyncio=True),
}

OURS: Final = tuple(name for name in PEERS if name.startswith("lockring"))
"""The servers of this project; the first one is that with which all others are compared."""


def server_class(peer: str) -> type[Server]:
    """Return the class of a peer's server.

    Raises:
        ImportError: its client library is not installed.
    """
    return cast(type[Server], getattr(_module(peer), PEERS[peer].server))


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
