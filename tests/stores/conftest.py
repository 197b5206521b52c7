"""Real servers, started once for all tests that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockring.store.base import Store
from lockring.store.etcd.store import EtcdStore
from lockring.store.memory import MemoryStore
from lockring.store.postgresql import PostgresStore
from lockring.store.sqlite import SqliteStore
from tests.stores.servers import PostgresServer
from tests.stores.servers_etcd import EtcdServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    yield server
    server.kill()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the cluster of one test: they share a server."""
    return str(request.node.name)


MakeStore = Callable[[], Store]


@pytest.fixture
def stores(request: pytest.FixtureRequest, kind: str, name: str, tmp_path: Path) -> Iterator[MakeStore]:
    """Opens stores of one kind in the same place, and closes them at the end."""
    opened: list[Store] = []
    memory = MemoryStore()

    def make() -> Store:
        store: Store
        if kind == "memory":
            store = memory
        elif kind == "sqlite":
            store = SqliteStore(tmp_path / "state")
        elif kind == "etcd":
            cluster: EtcdServer = request.getfixturevalue("etcd")
            store = EtcdStore(cluster.url(name))
        else:
            server: PostgresServer = request.getfixturevalue("postgresql")
            store = PostgresStore(server.url(name=name))
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()
