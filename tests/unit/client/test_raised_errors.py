"""Errors that a client has raised: it keeps none of them, and with it nothing of the program."""

from __future__ import annotations

import asyncio

import pytest

import lockring
import lockring.aio
from lockring.errors import AcquireTimeout, InvalidRequest, NotHeld
from tests.unit.client.lock_server import LockServer
from tests.unit.freed import is_freed_after, is_freed_after_await


def test_a_blocking_client_keeps_no_error(server: LockServer, client: lockring.Client) -> None:
    with lockring.Client(server.address) as other:
        held = other.lock("x").acquire()
        assert is_freed_after(AcquireTimeout, lambda: client.lock("x").acquire(timeout=0))
        assert is_freed_after(NotHeld, lambda: client.break_lock("x", held.fencing_token + 1))
        assert is_freed_after(InvalidRequest, lambda: client.lock("x" * 5000).acquire())
        held.release()
        assert is_freed_after(NotHeld, held.release)
        several = other.acquire_all(["y", "z"])
        several.release()
        assert is_freed_after(NotHeld, several.release)


@pytest.mark.parametrize("own_thread", [False, True])
def test_an_asyncio_client_keeps_no_error(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with (
            lockring.aio.Client(server.address, own_thread=own_thread) as client,
            lockring.aio.Client(server.address, own_thread=own_thread) as other,
        ):
            held = await other.lock("x").acquire()
            assert await is_freed_after_await(AcquireTimeout, lambda: client.lock("x").acquire(timeout=0))
            assert await is_freed_after_await(NotHeld, lambda: client.break_lock("x", held.fencing_token + 1))
            assert await is_freed_after_await(
                InvalidRequest, lambda: client.lock("x" * 5000).acquire(timeout=0)
            )
            await held.release()
            assert await is_freed_after_await(NotHeld, held.release)
            several = await other.acquire_all(["y", "z"])
            await several.release()
            assert await is_freed_after_await(NotHeld, several.release)

    asyncio.run(main())
