"""Crashes, restarts, moves and frozen processes, as holders and waiters see them: real ones.

Waits have generous bounds, since machines that run tests are slow and shared; none is there to measure speed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockring
from lockring.errors import LockLost
from lockring.ids import NodeId
from lockring.testing import COORDINATOR, LocalCluster
from tests.processes import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TTL_S = 30.0
"""A lock that has to survive outlasts a pause of a busy machine, besides the failover."""
RENEWED_TTL_S = 10.0
"""Of a lock that has to be renewed meanwhile, and its end waited for: it outlasts such a pause, too."""

SETTLED_S = 60.0
"""Bound for a cluster to re-form: a failover takes about two seconds, and several may follow each other."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        yield cluster


@pytest.fixture
def patient() -> Iterator[LocalCluster]:
    """A cluster that waits for a second whether more changes before it acts on a change."""
    with LocalCluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """For what a test does not wait for at once."""
    with ThreadPoolExecutor() as threads:
        yield threads


@pytest.fixture
def hasty() -> Iterator[LocalCluster]:
    """A cluster whose leases are short, for what must wait them out."""
    with LocalCluster(
        nodes=3, backup_lease_s=1.0, coordinator_lease_s=4.0, member_lease_s=2.0, stabilization_s=0.3
    ) as cluster:
        yield cluster


@pytest.mark.timeout(400)
def test_two_hundred_locks_survive_the_kill_and_restart_of_every_process_in_turn(
    cluster: LocalCluster,
) -> None:
    with lockring.Client(cluster.servers, ttl=TTL_S) as client:
        grants = [client.lock(f"job/{number}").acquire(timeout=SETTLED_S) for number in range(200)]
        tokens = [grant.fencing_token for grant in grants]
        told: list[str] = []
        for grant in grants:
            grant.on_lost(lambda lost: told.append(lost.name))
        for name in (*cluster.nodes, COORDINATOR):
            cluster.kill(name)
            if name != COORDINATOR:
                cluster.wait_until_stable(timeout_s=SETTLED_S)
                assert all(grant.held for grant in grants), f"after the kill of {name}"
            cluster.restart(name)
            cluster.wait_until_stable(timeout_s=SETTLED_S)
            assert all(grant.held for grant in grants), f"after the restart of {name}"
        assert told == []
        assert all(grant.verify() for grant in grants)
        assert [grant.fencing_token for grant in grants] == tokens
        for grant in grants:
            grant.release()
        for grant in grants:
            with client.lock(grant.name).acquire(timeout=SETTLED_S) as again:
                assert again.fencing_token > grant.fencing_token


def test_backup_has_the_lock_with_a_valid_token_after_the_crash_of_the_primary(
    cluster: LocalCluster, thread: ThreadPoolExecutor
) -> None:
    with lockring.Client(cluster.servers) as holder, lockring.Client(cluster.servers) as other:
        grant = holder.lock("nightly").acquire(timeout=SETTLED_S)
        backup = cluster.backup_of("nightly")
        cluster.kill(cluster.primary_of("nightly"))
        next_one = thread.submit(other.lock("nightly").acquire, timeout=SETTLED_S)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        assert cluster.primary_of("nightly") == backup
        eventually(lambda: other.describe("nightly").waiters)
        assert grant.held
        assert grant.verify()
        assert not next_one.done()
        holding = other.owner_of("nightly")
        assert holding is not None
        assert holding.fencing_token == grant.fencing_token
        grant.release()
        with next_one.result(SETTLED_S) as next_grant:
            assert next_grant.fencing_token > grant.fencing_token


def test_crash_of_the_backup_disturbs_no_holder_and_no_acquire(cluster: LocalCluster) -> None:
    with lockring.Client(cluster.servers) as client:
        grant = client.lock("nightly").acquire(timeout=SETTLED_S)
        cluster.kill(cluster.backup_of("nightly"))
        grant.release()
        with client.lock("nightly").acquire(timeout=SETTLED_S) as again:
            assert again.fencing_token > grant.fencing_token
            cluster.wait_until_stable(timeout_s=SETTLED_S)
            assert again.held
            assert again.verify()


def test_crash_of_both_copies_is_reported_to_the_holder_before_another_client_gets_the_lock(
    hasty: LocalCluster,
) -> None:
    with lockring.Client(hasty.servers, ttl=2) as holder, lockring.Client(hasty.servers, ttl=2) as other:
        grant = holder.lock("nightly").acquire(timeout=SETTLED_S)
        told = threading.Event()
        grant.on_lost(lambda _: told.set())
        primary, backup = hasty.primary_of("nightly"), hasty.backup_of("nightly")
        hasty.kill(primary)
        hasty.kill(backup)
        after = other.lock("nightly").acquire(timeout=60)
        assert not grant.held
        assert told.wait(SETTLED_S)
        assert after.fencing_token > grant.fencing_token
        with pytest.raises(LockLost, match="nightly"):
            grant.check()


def test_tokens_grow_over_the_loss_of_every_node_and_of_the_coordinator(hasty: LocalCluster) -> None:
    with lockring.Client(hasty.servers, ttl=2) as client:
        before = client.lock("nightly").acquire(timeout=SETTLED_S).fencing_token
    for name in (*hasty.nodes, COORDINATOR):
        hasty.kill(name)
    for name in (COORDINATOR, *hasty.nodes):
        hasty.restart(name)
    with lockring.Client(hasty.servers, ttl=2) as client:
        assert client.lock("nightly").acquire(timeout=SETTLED_S).fencing_token > before


def test_rolling_restart_of_every_node_loses_nothing(cluster: LocalCluster) -> None:
    with lockring.Client(cluster.servers, ttl=TTL_S) as client:
        grants = [client.lock(f"job/{number}").acquire(timeout=SETTLED_S) for number in range(50)]
        for name in cluster.nodes:
            cluster.terminate(name)
            assert cluster.wait_for_exit(name, timeout_s=SETTLED_S) == 0
            cluster.restart(name)
            cluster.wait_until_stable(timeout_s=SETTLED_S)
            assert all(grant.held for grant in grants), f"after the restart of {name}"
        assert all(grant.verify() for grant in grants)


def test_locks_are_renewed_and_acquired_while_slots_move_to_a_joining_node(cluster: LocalCluster) -> None:
    with lockring.Client(cluster.servers, ttl=RENEWED_TTL_S) as client:
        grants = [client.lock(f"job/{number}").acquire(timeout=SETTLED_S) for number in range(50)]
        would_have_ended = threading.Timer(RENEWED_TTL_S, lambda: None)
        would_have_ended.start()
        joining = cluster.add_node()
        tokens: list[int] = []
        while not cluster.state().members.get(NodeId(joining)) or len(tokens) < 200:
            with client.lock("busy").acquire(timeout=SETTLED_S) as busy:
                tokens.append(busy.fencing_token)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        assert tokens == sorted(set(tokens))
        would_have_ended.join()
        assert all(grant.held for grant in grants)
        assert all(grant.verify() for grant in grants)
        moved = [grant for grant in grants if cluster.primary_of(grant.name) == joining]
        assert moved, "no held lock has moved, so this shows nothing"


def test_drop_and_join_at_once_disrupt_nothing_that_survived(patient: LocalCluster) -> None:
    with lockring.Client(patient.servers, ttl=TTL_S) as client:
        grants = [client.lock(f"job/{number}").acquire(timeout=SETTLED_S) for number in range(50)]
        before = {grant.name: patient.primary_of(grant.name) for grant in grants}
        patient.kill("N2")
        joining = patient.add_node()
        patient.wait_until_stable(timeout_s=SETTLED_S)
        assert all(grant.held for grant in grants)
        assert all(grant.verify() for grant in grants)
        after = {grant.name: patient.primary_of(grant.name) for grant in grants}
        moved = {name for name in before if after[name] not in (before[name], joining)}
        assert {before[name] for name in moved} <= {"N2"}, "a slot has moved between two survivors"


def test_frozen_primary_finds_its_rights_gone_when_it_wakes(
    cluster: LocalCluster, thread: ThreadPoolExecutor
) -> None:
    with (
        lockring.Client(cluster.servers, ttl=TTL_S) as holder,
        lockring.Client(cluster.servers, ttl=TTL_S) as other,
    ):
        grant = holder.lock("nightly").acquire(timeout=SETTLED_S)
        frozen = cluster.primary_of("nightly")
        cluster.freeze(frozen)
        next_one = thread.submit(other.lock("nightly").acquire, timeout=2 * SETTLED_S)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        eventually(lambda: other.describe("nightly").waiters)
        assert grant.held
        cluster.thaw(frozen)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        assert grant.held
        assert grant.verify()
        assert other.lock("nightly").try_acquire() is None
        assert not next_one.done()
        grant.release()
        assert next_one.result(SETTLED_S).fencing_token > grant.fencing_token


def test_node_that_restarts_while_the_coordinator_is_frozen_is_let_in_again(cluster: LocalCluster) -> None:
    with lockring.Client(cluster.servers) as client:
        grant = client.lock("nightly").acquire(timeout=SETTLED_S)
        cluster.freeze(COORDINATOR)
        cluster.kill("N3")
        cluster.restart("N3")
        cluster.thaw(COORDINATOR)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        assert cluster.is_running("N3")
        assert grant.verify()


def test_held_and_new_locks_go_on_without_the_coordinator() -> None:
    with (
        LocalCluster(nodes=3, stabilization_s=0.3, coordinator_lease_s=120) as cluster,
        lockring.Client(cluster.servers, ttl=RENEWED_TTL_S) as client,
    ):
        grant = client.lock("nightly").acquire(timeout=SETTLED_S)
        cluster.kill(COORDINATOR)
        for number in range(20):
            client.lock(f"new/{number}").acquire(timeout=SETTLED_S).release()
        assert not grant.lost.wait(1.2 * RENEWED_TTL_S), "longer than a TTL"
        assert grant.verify()
        cluster.restart(COORDINATOR)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        assert grant.verify()


def test_client_frozen_past_its_ttl_finds_its_grant_lost_at_the_very_next_look(steady: LocalCluster) -> None:
    program = """
        import os, signal, sys, time
        import lockring
        client = lockring.Client(sys.argv[1], ttl=10)
        grant = client.lock("frozen-client").acquire(timeout=60)
        print("held", grant.held, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        print("held", grant.held, flush=True)
        print("lost", grant.lost.is_set(), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), steady.servers], stdout=subprocess.PIPE, text=True
    ) as frozen:
        assert frozen.stdout is not None
        try:
            assert frozen.stdout.readline() == "held True\n"
            with lockring.Client(steady.servers) as other:
                other.lock("frozen-client").acquire(timeout=SETTLED_S).release()
            frozen.send_signal(signal.SIGCONT)
            assert frozen.stdout.readline() == "held False\n"
            assert frozen.stdout.readline() == "lost True\n"
        finally:
            frozen.kill()


def test_waiters_are_served_in_order_and_pushed_not_polled(steady: LocalCluster) -> None:
    order: list[int] = []
    queued = threading.Event()

    def wait_for_lock(number: int) -> None:
        with lockring.Client(steady.servers) as client, client.lock("in-order"):
            order.append(number)

    with lockring.Client(steady.servers) as client:
        threads = []
        with client.lock("in-order").acquire(timeout=SETTLED_S):
            for number in range(5):
                threads.append(threading.Thread(target=wait_for_lock, args=(number,)))
                threads[-1].start()
                while len(client.describe("in-order").waiters) <= number:
                    queued.wait(0.01)
        for thread in threads:
            thread.join(30)
    assert order == [0, 1, 2, 3, 4]
