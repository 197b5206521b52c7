"""A second client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lockring
from tests.unit.client.lock_server import LockServer


@pytest.fixture
def other(server: LockServer) -> Iterator[lockring.Client]:
    with lockring.Client(server.address, owner="other") as client:
        yield client
