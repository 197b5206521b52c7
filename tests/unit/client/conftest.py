"""A lock server over real TCP for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lockring
from tests.unit.client.lock_server import LockServer


@pytest.fixture
def server() -> Iterator[LockServer]:
    with LockServer() as server:
        yield server


@pytest.fixture
def client(server: LockServer) -> Iterator[lockring.Client]:
    with lockring.Client(server.address, owner="tester") as client:
        yield client
