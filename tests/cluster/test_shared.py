"""Locks to read and to write, with both clients, against a real cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import lockring
import lockring.aio
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S, eventually

pytestmark = [pytest.mark.cluster]


@pytest.fixture
def client(steady: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(steady.servers, owner="first") as made:
        yield made


@pytest.fixture
def other(steady: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(steady.servers, owner="second") as made:
        yield made


def waiters(client: lockring.Client, name: str) -> list[str]:
    return [each.owner for each in client.describe(name).waiters]


def test_readers_hold_at_once_under_tokens_of_their_own_and_a_writer_alone(
    client: lockring.Client, other: lockring.Client
) -> None:
    page = client.rwlock("page", ttl=30)
    assert (page.name, page.ttl, page.read().shared, page.write().shared) == ("page", 30.0, True, False)
    with page.read() as one, other.rwlock("page").read() as two:
        assert one.held
        assert two.held
        assert one.shared
        assert two.fencing_token > one.fencing_token
        info = client.describe("page")
        assert info.mode == "shared"
        assert {holder.owner for holder in info.holders} == {"first", "second"}
        assert other.rwlock("page").write().try_acquire() is None
        assert other.lock("page").try_acquire() is None, "the same lock"
    with page.write() as alone:
        assert not alone.shared
        assert alone.fencing_token > two.fencing_token
        assert other.rwlock("page").read().try_acquire() is None
        with pytest.raises(lockring.AcquireTimeout, match="held by 'first'"):
            other.lock("page").acquire(timeout=0)


def test_reader_behind_a_waiting_writer_waits_for_it_and_learns_of_it(
    client: lockring.Client, other: lockring.Client
) -> None:
    done: list[str] = []

    def write() -> None:
        with other.rwlock("ledger").write():
            done.append("written")

    reading = client.rwlock("ledger").read().acquire()
    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: waiters(client, "ledger") == ["second"])
    with pytest.raises(lockring.AcquireTimeout, match="shared by 'first', and 'second' waits before you"):
        client.rwlock("ledger").read().acquire(timeout=0)
    assert done == []
    reading.release()
    with client.rwlock("ledger").read().acquire(timeout=PATIENCE_S):
        assert done == ["written"]
    writer.join(PATIENCE_S)


def test_who_would_wait_for_itself_is_refused_at_once(client: lockring.Client) -> None:
    plan = client.rwlock("plan")
    with plan.read() as reading:
        with pytest.raises(lockring.InvalidRequest, match="would wait for itself to write"):
            plan.write().acquire()
        with pytest.raises(lockring.InvalidRequest, match="would wait for itself to write"):
            plan.write().try_acquire()
        elsewhere: list[lockring.Grant | None] = []
        thread = threading.Thread(target=lambda: elsewhere.append(plan.write().try_acquire()))
        thread.start()
        thread.join(PATIENCE_S)
        assert elsewhere == [None], "another thread only has to wait"
        reading.release()
        with plan.write() as writing:
            with pytest.raises(lockring.InvalidRequest, match="would wait for itself to read"):
                plan.read().acquire()
            assert writing.held
        with pytest.raises(lockring.NotHeld):
            reading.check()

    @plan.read().synchronized
    def upgrade() -> None:
        with plan.write():
            pass

    with pytest.raises(lockring.InvalidRequest, match="'plan'"):
        upgrade()
    assert client.describe("plan").holders == []


def test_several_locks_can_be_held_to_read(client: lockring.Client, other: lockring.Client) -> None:
    names = ["shelf/1", "shelf/2"]
    with client.acquire_all(names, shared=True) as ours, other.acquire_all(names, shared=True) as theirs:
        assert all(grant.shared for grant in (*ours, *theirs))
        assert "shared" in repr(ours[0])
        assert other.lock("shelf/2").try_acquire() is None


def test_readers_and_writers_with_asyncio(steady: LocalCluster) -> None:
    async def scene() -> list[str]:
        order: list[str] = []
        async with lockring.aio.Client(steady.servers) as client:
            table = client.rwlock("table")

            async def write() -> None:
                async with table.write() as grant:
                    assert not grant.shared
                    order.append("write")

            async def read() -> None:
                async with table.read() as grant:
                    assert grant.shared
                    order.append("read")

            async with table.read() as one, table.read() as two:
                assert one.held
                assert two.held
                with pytest.raises(lockring.InvalidRequest, match="would wait for itself"):
                    await table.write().acquire()
                assert await client.lock("table").try_acquire(timeout=0) is None
                writing = asyncio.create_task(write())
                while len((await client.describe("table")).waiters) < 1:  # noqa: ASYNC110 - seen at the node only
                    await asyncio.sleep(0.01)
                reading = asyncio.create_task(read())
                while len((await client.describe("table")).waiters) < 2:  # noqa: ASYNC110 - seen at the node only
                    await asyncio.sleep(0.01)
            await asyncio.gather(writing, reading)
            both = await client.acquire_all(["row/1", "row/2"], shared=True)
            assert [grant.shared for grant in both] == [True, True]
            await both.release()
        return order

    assert asyncio.run(scene()) == ["write", "read"]


def test_a_reader_keeps_its_lock_over_the_death_of_its_node_and_a_writer_still_waits(
    quick: LocalCluster,
) -> None:
    with lockring.Client(quick.servers, ttl=30) as one, lockring.Client(quick.servers, ttl=30) as two:
        first, second = one.rwlock("road").read().acquire(), two.rwlock("road").read().acquire()
        quick.kill(quick.primary_of("road"))
        quick.wait_until_stable(timeout_s=60)
        assert first.verify(timeout=30)
        assert second.verify(timeout=30)
        assert two.lock("road").try_acquire(timeout=1) is None
        first.release()
        second.release()
        with one.rwlock("road").write().acquire(timeout=30) as writing:
            assert writing.fencing_token > second.fencing_token
