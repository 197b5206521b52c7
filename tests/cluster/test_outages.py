"""A client whose network or cluster fails silently: connections that were dropped on the way,
a coordinator that is gone, and another cluster where its own was."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import lockring
import lockring.aio
from lockring.errors import LockLost, Unavailable, WrongCluster
from lockring.testing import LocalCluster
from tests.cluster.test_cli import Cli
from tests.middlebox import Middlebox
from tests.processes import PATIENCE_S, eventually, see_renewed

pytestmark = [pytest.mark.cluster]

TRIES = 3
"""Of a call that has only a second: a machine that stands still takes that from one of them, not from each."""

IDLE_S = 1.2
"""After so long without a message a connection is idle for the client."""


@pytest.fixture
def box(steady: LocalCluster) -> Iterator[Middlebox]:
    """A way to a node of a cluster that has the lock `x`."""
    with Middlebox(steady.address_of(steady.primary_of("x"))) as box:
        yield box


def has_answer(call: Callable[[], object], prepare: Callable[[], None]) -> object:
    """Return the answer of a call that has only a second, made again if that was over; `prepare` comes first each time."""
    for _ in range(TRIES - 1):
        prepare()
        with suppress(Unavailable):
            return call()
    prepare()
    return call()


def forget_idle(box: Middlebox, *, there: bool, back: bool) -> None:
    """Let the connections be idle for long enough, and drop them on the way."""
    time.sleep(IDLE_S)
    box.forget(there=there, back=back)


@pytest.mark.parametrize(("there", "back"), [(True, True), (True, False), (False, True)])
class TestForgottenConnections:
    def test_the_blocking_client_has_what_it_asks_for_within_its_time(
        self, box: Middlebox, there: bool, back: bool
    ) -> None:
        with lockring.Client(box.address) as client:
            lock = client.lock("x")
            lock.acquire().release()
            calls: list[Callable[[], object]] = [
                lambda: lock.try_acquire(),
                lambda: lock.acquire(timeout=5),
                lambda: client.describe("x", timeout=5),
                lambda: client.locks(timeout=5),
            ]
            for call in calls:
                found = has_answer(call, lambda: forget_idle(box, there=there, back=back))
                assert found is not None, "the lock is free"
                if isinstance(found, lockring.Grant):
                    found.release()

    def test_a_grant_is_kept_and_released(self, box: Middlebox, there: bool, back: bool) -> None:
        with lockring.Client(box.address, ttl=12) as client:
            grant = client.lock("x").acquire()
            forget_idle(box, there=there, back=back)
            see_renewed(grant)
            forget_idle(box, there=there, back=back)
            began_s = time.monotonic()
            grant.release()
            assert time.monotonic() - began_s < 12, "not only when the lease was over"

    def test_the_asyncio_client_has_what_it_asks_for_within_its_time(
        self, box: Middlebox, there: bool, back: bool
    ) -> None:
        async def use() -> None:
            async with lockring.aio.Client(box.address) as client:
                lock = client.lock("x")
                await (await lock.acquire()).release()
                for timeout in (0.0, 5.0):
                    for more in reversed(range(TRIES)):
                        await asyncio.to_thread(forget_idle, box, there=there, back=back)
                        try:
                            grant = await lock.try_acquire(timeout=timeout)
                        except Unavailable:
                            if not more:
                                raise
                            continue
                        assert grant is not None, "the lock is free"
                        await grant.release()
                        break

        asyncio.run(use())

    def test_a_watch_goes_on(self, box: Middlebox, steady: LocalCluster, there: bool, back: bool) -> None:
        seen: list[bool] = []
        news = threading.Event()

        def watch(client: lockring.Client) -> None:
            with suppress(lockring.ClientClosed):
                for update in client.watch("x"):
                    seen.append(bool(update.holders))
                    news.set()

        with lockring.Client(steady.servers) as other, lockring.Client(box.address) as client:
            thread = threading.Thread(target=watch, args=(client,))
            thread.start()
            assert news.wait(PATIENCE_S)
            forget_idle(box, there=there, back=back)
            with other.lock("x"):
                eventually(lambda: seen[-1], lambda: "the holder")
            client.close()
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def headless() -> Iterator[LocalCluster]:
    """Nodes whose coordinator has been gone for longer than its lease."""
    with LocalCluster(nodes=2, coordinator_lease_s=4.0, stabilization_s=0.3) as cluster:
        cluster.kill("coordinator")
        with lockring.Client(cluster.servers, ttl=1) as client:

            def is_over() -> bool:
                try:
                    client.describe("x", timeout=0.2)
                except Unavailable as error:
                    return error.reason == "no-coordinator"
                return False

            eventually(is_over, lambda: "the end of the coordinator's lease")
        yield cluster


class TestWithoutACoordinator:
    """Its lease is over: nothing is served, and nothing is known of whether locks are held."""

    @pytest.fixture
    def cli(self, headless: LocalCluster) -> Iterator[Cli]:
        made = Cli(headless)
        yield made
        made.close()

    def test_a_wait_and_a_try_end_as_an_outage_with_the_reason_and_since_when(
        self, headless: LocalCluster
    ) -> None:
        with lockring.Client(headless.servers, ttl=1) as client:
            for timeout in (0, 2):
                with pytest.raises(Unavailable, match="has not renewed the right of node") as caught:
                    client.lock("x").try_acquire(timeout=timeout)
                assert caught.value.reason == "no-coordinator"
                assert caught.value.since_s is not None
                assert caught.value.since_s >= 4

    def test_the_asyncio_client_says_the_same(self, headless: LocalCluster) -> None:
        async def wait() -> None:
            async with lockring.aio.Client(headless.servers, ttl=1) as client:
                with pytest.raises(Unavailable, match="has not renewed the right of node"):
                    await client.lock("x").acquire(timeout=2)
                with pytest.raises(Unavailable):
                    await client.group("g").join(timeout=1)

        asyncio.run(wait())

    def test_a_list_is_an_error_and_no_empty_list(self, headless: LocalCluster, cli: Cli) -> None:
        with lockring.Client(headless.servers) as client, pytest.raises(Unavailable):
            client.locks(timeout=2)
        done = cli.run("ls", "--connect-timeout", "2")
        assert (done.returncode, done.stdout) == (69, "")
        assert "coordinator" in done.stderr

    @pytest.mark.parametrize("wait", [["-n"], ["-w", "1"]])
    def test_the_command_tells_an_outage_from_a_busy_lock(self, cli: Cli, wait: list[str]) -> None:
        done = cli.run("lock", "x", "--ttl", "1", *wait, "--", sys.executable, "-c", "print('ran')")
        assert (done.returncode, done.stdout) == (69, "")
        assert "has not renewed the right of node" in done.stderr

    def test_what_a_call_waits_for_can_be_asked(self, headless: LocalCluster) -> None:
        with lockring.Client(headless.servers, ttl=1) as client:

            def acquire() -> None:
                with suppress(Unavailable, lockring.ClientClosed):
                    client.lock("x").acquire(timeout=PATIENCE_S)

            thread = threading.Thread(target=acquire)
            thread.start()
            (wait,) = eventually(
                lambda: [each for each in client.waits() if each.reason == "no-coordinator"],
                lambda: "the reason",
            )
            assert (wait.name, wait.left_s) == ("x", None)
            assert wait.since_s >= 4
            client.close()
            thread.join(PATIENCE_S)


def test_a_lock_that_others_hold_is_not_an_outage(steady: LocalCluster) -> None:
    with lockring.Client(steady.servers) as one, lockring.Client(steady.servers) as two, one.lock("x"):
        assert two.lock("x").try_acquire() is None
        with pytest.raises(lockring.AcquireTimeout, match="held by"):
            two.lock("x").acquire(timeout=1.5)


def test_an_answer_of_another_cluster_ends_a_question_about_a_grant(steady: LocalCluster) -> None:
    with (
        LocalCluster(nodes=1) as other,
        Middlebox(other.address_of("N1")) as box,
        lockring.Client(box.address, ttl=30) as client,
    ):
        grant = client.lock("x").acquire()
        other.close()
        box.target = steady.address_of("N1")
        box.reset()
        began_s = time.monotonic()
        try:
            is_holder = grant.verify(timeout=PATIENCE_S)
        except (WrongCluster, Unavailable, LockLost):
            is_holder = False
        assert not is_holder
        assert time.monotonic() - began_s < PATIENCE_S / 2


def test_after_a_start_the_wait_for_earlier_leases_is_reported_with_the_time_left() -> None:
    with LocalCluster(nodes=1, coordinator_lease_s=25, stabilization_s=0.3) as cluster:
        with lockring.Client(cluster.servers) as client:
            client.lock("x").acquire().release()
        cluster.kill("N1")
        cluster.restart("N1")
        with lockring.Client(cluster.servers) as client:

            def acquire() -> None:
                with suppress(Unavailable, lockring.ClientClosed):
                    client.lock("x").acquire(timeout=PATIENCE_S)

            thread = threading.Thread(target=acquire)
            thread.start()
            (wait,) = eventually(
                lambda: [each for each in client.waits() if each.reason == "leases"], lambda: "the reason"
            )
            assert wait.name == "x"
            assert wait.left_s is not None
            assert 0 < wait.left_s <= 25 * 1.05 + 0.1
            client.close()
            thread.join(PATIENCE_S)
