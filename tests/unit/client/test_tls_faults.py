"""Faults of TLS on a connection that has worked: both clients dial again, and their calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lockring
import lockring.aio
from lockring.errors import ProtocolError
from lockring.protocol import Acquire
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer
from tests.unit.client.tls_door import TlsDoor


@pytest.fixture
def door(server: LockServer, tmp_path: Path) -> Iterator[TlsDoor]:
    with TlsDoor(server, tmp_path) as door:
        yield door


@pytest.fixture
def holder(door: TlsDoor) -> Iterator[lockring.Grant]:
    """Another client's grant of the lock x."""
    with lockring.Client(f"lockrings://{door.address}", ca=door.ca) as other:
        yield other.lock("x").acquire()


def break_all(door: TlsDoor, server: LockServer) -> None:
    """Break the connections of the holder and the waiter, once the latter waits, until both have greeted again."""
    server.wait_until(lambda: server.count(Acquire) == 2)
    door.say_without_tls()
    server.wait_until(lambda: server.greeted >= 4)


def test_a_waiting_call_of_the_blocking_client_goes_on(
    door: TlsDoor, server: LockServer, holder: lockring.Grant
) -> None:
    with (
        lockring.Client(f"lockrings://{door.address}", ca=door.ca) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.lock("x").acquire, timeout=PATIENCE_S)
        break_all(door, server)
        assert holder.held
        holder.release()
        waiting.result(PATIENCE_S).release()


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_waiting_call_of_the_asyncio_client_goes_on(
    door: TlsDoor, server: LockServer, holder: lockring.Grant, own_thread: bool
) -> None:
    async def work() -> None:
        address = f"lockrings://{door.address}"
        async with lockring.aio.Client(address, ca=door.ca, own_thread=own_thread) as client:
            waiting = asyncio.create_task(client.lock("x").acquire(timeout=PATIENCE_S))
            await asyncio.to_thread(break_all, door, server)
            assert holder.held
            await asyncio.to_thread(holder.release)
            await (await waiting).release()

    asyncio.run(work())


def test_a_fault_before_the_greeting_is_final_in_both(server: LockServer, tmp_path: Path) -> None:
    with TlsDoor(server, tmp_path, breaks_at_once=True) as door:
        with (
            lockring.Client(f"lockrings://{door.address}", ca=door.ca) as client,
            pytest.raises(ProtocolError, match="does not speak TLS"),
        ):
            client.lock("x").acquire(timeout=PATIENCE_S)

        async def work() -> None:
            async with lockring.aio.Client(f"lockrings://{door.address}", ca=door.ca) as client:
                with pytest.raises(ProtocolError, match="does not speak TLS"):
                    await client.lock("x").acquire(timeout=PATIENCE_S)

        asyncio.run(work())
