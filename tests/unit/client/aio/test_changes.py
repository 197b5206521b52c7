"""`on_change` reports each change once, however far the client's own thread is ahead of the program's loop.

While a test does not await, nothing arrives on the program's loop, but the client's thread goes on: what it learns
then is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from lockring.aio import Client, KeySet, Membership
from lockring.protocol import ViewAck
from lockring.slots import SLOTS
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer


@contextlib.asynccontextmanager
async def joined(server: LockServer) -> AsyncIterator[Membership]:
    async with Client(server.address, own_thread=True) as client:
        yield await client.group("g").join("me")


class Listener:
    """A callback that notes how many keys it gains and loses, and returns from losses on request."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.may_return = asyncio.Event()

    async def __call__(self, gained: KeySet, lost: KeySet) -> None:
        self.told.append((len(gained), len(lost)))
        if len(lost):
            await self.may_return.wait()

    @property
    def balance(self) -> int:
        return sum(gained - lost for gained, lost in self.told)


def block_until(condition: Callable[[], bool]) -> None:
    """Wait without letting the program's loop run."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "the client's thread did not hear of it"
        time.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - seen at the server and in lists
            await asyncio.sleep(0.001)


def has_acknowledged(server: LockServer, view: int) -> bool:
    return any(isinstance(each, ViewAck) and each.view == view for each in server.seen)


async def everything_has_arrived(server: LockServer, member: Membership, number: int) -> None:
    """Wait for a view that changes nothing, which arrives after all before it."""
    waiting = asyncio.create_task(member.wait_settled(after=number - 1))
    await asyncio.sleep(0)
    owners = [each.id for each in member.members if each.id != "me"]
    server.regroup(number, *owners)
    await asyncio.wait_for(waiting, PATIENCE_S)
    await until(lambda: has_acknowledged(server, number))


def test_a_gain_that_is_on_its_way_at_the_registration_is_reported_once(server: LockServer) -> None:
    async def main() -> None:
        async with joined(server) as member:
            listener = Listener()
            server.regroup(2)
            block_until(lambda: len(member.owned) == SLOTS)
            member.on_change(listener)
            await until(lambda: listener.told != [])
            await everything_has_arrived(server, member, 3)
            assert listener.told == [(SLOTS, 0)]

    asyncio.run(main())


def test_keys_whose_loss_is_on_its_way_at_the_registration_are_never_reported(server: LockServer) -> None:
    async def main() -> None:
        async with joined(server) as member:
            server.regroup(2)
            await member.wait_settled(after=1)
            await asyncio.sleep(0)
            listener = Listener()
            server.regroup(3, "other", settled=False)
            server.wait_until(lambda: has_acknowledged(server, 3))  # so others may own what it takes away
            member.on_change(listener)
            left = len(member.owned)
            await everything_has_arrived(server, member, 4)
            assert 0 < left < SLOTS
            assert listener.told == [(left, 0)]

    asyncio.run(main())


def test_a_loss_right_after_the_registration_is_acknowledged_only_once_the_callback_has_returned(
    server: LockServer,
) -> None:
    async def main() -> None:
        async with joined(server) as member:
            server.regroup(2)
            block_until(lambda: member.version == 2)
            listener = Listener()
            member.on_change(listener)
            server.regroup(3, "other", settled=False)
            block_until(lambda: member.version == 3)
            left = len(member.owned)
            await until(lambda: len(listener.told) == 2)
            assert listener.told == [(SLOTS, 0), (0, SLOTS - left)]
            assert not has_acknowledged(server, 3)
            listener.may_return.set()
            await until(lambda: has_acknowledged(server, 3))

    asyncio.run(main())


def test_a_loss_that_an_older_callback_handles_is_no_business_of_a_newer_one(server: LockServer) -> None:
    async def main() -> None:
        async with joined(server) as member:
            older, newer = Listener(), Listener()
            member.on_change(older)
            server.regroup(2)
            await until(lambda: older.told == [(SLOTS, 0)])
            server.regroup(3, "other", settled=False)
            block_until(lambda: member.version == 3)
            member.on_change(newer)
            left = len(member.owned)
            await until(lambda: newer.told != [] and len(older.told) == 2)
            assert not has_acknowledged(server, 3)
            older.may_return.set()
            await everything_has_arrived(server, member, 4)
            assert (older.balance, newer.told) == (left, [(left, 0)])

    asyncio.run(main())


@pytest.mark.parametrize("how", ["left", "lost"])
def test_a_callback_that_is_registered_after_the_end_is_told_nothing(server: LockServer, how: str) -> None:
    async def main() -> None:
        async with joined(server) as member:
            server.regroup(2)
            await member.wait_settled(after=1)
            listener, before = Listener(), Listener()
            before.may_return.set()
            member.on_change(before)
            await until(lambda: bool(before.told))  # what it gained is under way no longer
            if how == "lost":
                server.lose("group:g")
                # Its grant ends a moment before its keys go, and a callback of that moment hears of both.
                block_until(lambda: member._following.ended)
                member.on_change(listener)
            else:
                await member.leave()
                member.on_change(listener)
            await until(lambda: len(before.told) == 2)
            assert (before.balance, listener.told) == (0, [])

    asyncio.run(main())
