"""Leases while the program that holds them is busy with something else."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable

import pytest

import lockring
import lockring.aio
from lockring.errors import LockLost
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S

TTL_S = 12.0
"""So long that a machine that stands still for some seconds ends no lease: renewals are looked at instead."""
SHORT_TTL_S = 1.0
LONG_S = 2.5 * SHORT_TTL_S
"""Long enough for an unrenewed lease to end."""


def until_renewed(grant: lockring.Grant | lockring.aio.Grant, busy: Callable[[], object]) -> None:
    """Do nothing but be busy until a lease has been renewed."""
    ends_s = time.monotonic() + grant.remaining()
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() + grant.remaining() <= ends_s + 0.1:
        assert grant.held
        assert time.monotonic() < until_s, "not renewed"
        busy()


def compute() -> None:
    """Keep the interpreter busy; it lets other threads run now and then."""
    sum(range(1000))


def sleep() -> None:
    """Block the thread, and no other one."""
    time.sleep(0.1)


def hold_the_interpreter(duration_s: float) -> None:
    """Compute without letting any other thread run, as an extension may."""
    ctypes.PyDLL(None).usleep(int(duration_s * 1e6))


def test_a_blocking_client_keeps_its_leases_while_its_program_computes(steady: LocalCluster) -> None:
    losses: list[LockLost] = []
    with lockring.Client(steady.servers, ttl=TTL_S) as client:
        grant = client.lock("busy/blocking").acquire()
        grant.on_lost(losses.append)
        until_renewed(grant, compute)
        for _ in range(2):
            hold_the_interpreter(0.1 * TTL_S)
            assert grant.held
            until_renewed(grant, sleep)  # other threads may run: renewed while this one is idle
        assert grant.verify()
        grant.release()
    assert losses == []


def test_an_asyncio_client_with_a_thread_of_its_own_keeps_its_leases_while_the_loop_is_blocked(
    steady: LocalCluster,
) -> None:
    async def main() -> None:
        losses: list[LockLost] = []
        async with lockring.aio.Client(steady.servers, ttl=TTL_S, own_thread=True) as client:
            grant = await client.lock("busy/asyncio").acquire()
            grant.on_lost(losses.append)
            until_renewed(grant, compute)
            until_renewed(grant, sleep)  # this blocks the loop all the time
            hold_the_interpreter(0.1 * TTL_S)
            assert grant.held
            assert await grant.verify()
            await grant.release()
        assert losses == []

    asyncio.run(main())


def test_an_asyncio_client_on_a_blocked_loop_knows_that_its_lease_is_over(steady: LocalCluster) -> None:
    async def main() -> None:
        async with lockring.aio.Client(steady.servers, ttl=SHORT_TTL_S) as client:
            grant = await client.lock("busy/loop").acquire()
            time.sleep(LONG_S)  # noqa: ASYNC251 - blocking the loop is what this is about
            assert not grant.held
            with pytest.raises(LockLost, match="could not be renewed"):
                grant.check()

    asyncio.run(main())


def test_a_loss_is_reported_on_the_loop_of_a_client_with_a_thread_of_its_own(steady: LocalCluster) -> None:
    async def main() -> None:
        told: asyncio.Queue[LockLost] = asyncio.Queue()
        async with lockring.aio.Client(steady.servers, own_thread=True) as client:
            grant = await client.lock("busy/broken").acquire()
            grant.on_lost(told.put_nowait)
            await client.break_lock("busy/broken", grant.fencing_token, force=True)
            loss = await asyncio.wait_for(told.get(), 30)
            assert loss.reason == "broken"
            assert not grant.held

    asyncio.run(main())
