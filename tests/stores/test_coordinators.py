"""Several coordinators on one store, as real processes: whichever dies, stands still or loses the store."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest

from lockring.clock import boot_id, monotonic_ns, wall_ns
from lockring.cluster_state import ClusterState, Farewell, SlotState
from lockring.core.election import Candidate
from lockring.errors import ProtocolError, Unavailable
from lockring.ids import NO_VERSION, Epoch, Generation, TermId, Version
from lockring.net.oneshot import ask_status
from lockring.server.local.children import child_environment
from lockring.slots import SLOTS
from lockring.store.postgresql import PostgresStore
from lockring.testing import LocalCluster
from tests.processes import address, eventually
from tests.stores.load import Holder
from tests.stores.servers import PostgresServer
from tests.stores.servers_etcd import EtcdServer

pytestmark = [pytest.mark.timeout(400)]

SETTLED_S = 60.0
LOCKS = 200


@pytest.fixture(params=["etcd", pytest.param("postgresql", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, name: str) -> Iterator[LocalCluster]:
    server: EtcdServer | PostgresServer = request.getfixturevalue(request.param)
    with LocalCluster(nodes=3, coordinators=3, store=server.url(name=name), stabilization_s=0.3) as cluster:
        yield cluster


@pytest.fixture
def holder(cluster: LocalCluster) -> Iterator[Holder]:
    holder = Holder(cluster.servers, LOCKS)
    yield holder
    holder.client.close()


def reigns(cluster: LocalCluster) -> list[int]:
    """When each slot's primary began: a moved slot shows here."""
    return [slot.since for slot in cluster.state().slots]


def leader_other_than(cluster: LocalCluster, former: str) -> str:
    """Wait until another coordinator leads and the nodes have its state."""

    def other() -> str:
        leader = cluster.leader
        return leader if leader != former else ""

    leader = eventually(other, cluster.logs)
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    return leader


def leader_according_to(cluster: LocalCluster, name: str) -> str:
    """The leader's address, as a coordinator says; "" while it ends its own lead, and all connections with it."""
    try:
        return ask_status(cluster.address_of(name)).leader
    except (ProtocolError, Unavailable):  # it closes all connections at the end of its lead
        return ""


def names_standbys(cluster: LocalCluster, name: str, standbys: list[str]) -> bool:
    """Whether a coordinator names these standbys. It looks at the store for them now and then."""
    return sorted(ask_status(cluster.address_of(name)).standbys) == standbys


@pytest.mark.slow
def test_one_coordinator_leads_and_the_others_say_so(cluster: LocalCluster) -> None:
    leader = cluster.leader
    standbys = [name for name in cluster.coordinators if name != leader]
    assert len(standbys) == 2
    addresses = sorted(map(cluster.address_of, standbys))
    for name in cluster.coordinators:
        eventually(partial(names_standbys, cluster, name, addresses), cluster.logs)
        status = ask_status(cluster.address_of(name))
        assert status.leader == cluster.address_of(leader)
        assert bool(status.note) == (name != leader)


def test_a_leader_that_is_killed_is_followed_without_a_moved_slot_or_a_lost_lock(
    cluster: LocalCluster, holder: Holder
) -> None:
    before = reigns(cluster)
    former = cluster.leader
    cluster.kill(former)
    leader_other_than(cluster, former)
    holder.check("the leader was killed")
    assert reigns(cluster) == before
    cluster.restart(former)
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    assert cluster.leader != former
    holder.check("the former leader came back")


@pytest.mark.slow
def test_a_leader_that_stands_still_is_followed_and_writes_nothing_when_it_goes_on(
    cluster: LocalCluster, holder: Holder
) -> None:
    before = reigns(cluster)
    former = cluster.leader
    cluster.freeze(former)
    leader = leader_other_than(cluster, former)
    holder.check("the leader stands still")
    term = cluster.state().term
    cluster.thaw(former)
    eventually(lambda: leader_according_to(cluster, former) == cluster.address_of(leader), cluster.logs)
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    assert cluster.state().term == term
    assert reigns(cluster) == before
    holder.check("the former leader goes on")


@pytest.mark.slow
def test_a_leader_that_is_stopped_in_order_is_followed_at_once(cluster: LocalCluster, holder: Holder) -> None:
    former = cluster.leader
    cluster.terminate(former)
    assert cluster.wait_for_exit(former) == 0
    leader_other_than(cluster, former)
    holder.check("the leader was stopped")


@pytest.mark.slow
def test_the_loss_of_every_coordinator_at_once_loses_no_lock(cluster: LocalCluster, holder: Holder) -> None:
    for name in cluster.coordinators:
        cluster.kill(name)
    time.sleep(2)  # the cluster is without a coordinator for a while
    holder.check("no coordinator is there")
    for name in cluster.coordinators:
        cluster.restart(name)
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    holder.check("the coordinators are back")


@pytest.mark.slow
def test_an_operator_may_name_any_coordinators_since_those_that_stand_by_name_the_leader(
    cluster: LocalCluster,
) -> None:
    leader = cluster.leader
    standbys = [name for name in cluster.coordinators if name != leader]

    def run(command: str, *names: str) -> subprocess.CompletedProcess[str]:
        servers = ",".join(map(cluster.address_of, names))
        words = [sys.executable, "-m", "lockring", command, "N1", "--server", servers]
        return subprocess.run(words, capture_output=True, text=True, env=child_environment())

    for names in (standbys, [*standbys, leader]):
        for command in ("drain", "undrain"):
            done = run(command, *names)
            assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_node_that_joins_under_a_new_leader_gets_slots(cluster: LocalCluster, holder: Holder) -> None:
    former = cluster.leader
    cluster.kill(former)
    leader_other_than(cluster, former)
    cluster.add_node()
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    holder.check("a node has joined")


@pytest.mark.slow
def test_the_restart_of_the_whole_store_loses_no_lock(name: str) -> None:
    store = PostgresServer()
    try:
        with LocalCluster(
            nodes=3, coordinators=3, store=store.url(name=name), stabilization_s=0.3
        ) as cluster:
            holder = Holder(cluster.servers, LOCKS)
            for freeze in (False, True):
                if freeze:
                    store.freeze()
                else:
                    store.kill()
                time.sleep(5)  # the store is away for a while, for which the nodes' leases suffice
                holder.check("the store is away")
                if freeze:
                    store.thaw()
                else:
                    store.start()
                eventually(lambda: cluster.leader, cluster.logs)
                cluster.wait_until_stable(timeout_s=SETTLED_S)
                holder.check("the store is back")
            holder.client.close()
    finally:
        store.remove()


def test_nodes_follow_to_a_coordinator_that_they_were_not_started_with(
    postgresql: PostgresServer, name: str
) -> None:
    """One is added to a running cluster, leads, and is named by the coordinator that the nodes know."""
    url, added = postgresql.url(name=name), address()
    with LocalCluster(nodes=2, coordinators=1, store=url, stabilization_s=0.3) as cluster:
        holder = Holder(cluster.servers, LOCKS)
        (known,) = cluster.coordinators
        words = [sys.executable, "-m", "lockring", "coordinator", "--listen", added, "--store", url]
        with subprocess.Popen(words, env=child_environment(), stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: _leader_at(added) == cluster.address_of(known), cluster.logs)
                cluster.terminate(known)
                assert cluster.wait_for_exit(known) == 0
                eventually(lambda: _leader_at(added) == added, cluster.logs)
                cluster.restart(known)
                eventually(lambda: _hears(added, 2), cluster.logs)
                holder.check("a coordinator was added")
                # Once it is gone, they go back to the one that they know.
                process.terminate()
                assert process.wait(30) == 0
                eventually(lambda: _hears(cluster.address_of(known), 2), cluster.logs)
                holder.check("the added coordinator was removed")
            finally:
                process.kill()
        holder.client.close()


def test_a_farewell_in_a_shared_store_is_not_trusted(postgresql: PostgresServer, name: str) -> None:
    """The store may have been set back to it, after which others may have granted locks in the same boot."""
    url, coordinator = postgresql.url(name=name), address()
    store, candidate = PostgresStore(url), Candidate(TermId("former"), "former:1")
    store.campaign(candidate, 60_000)
    free = SlotState(Epoch(2), Version(2), Version(1), None, None, None, Generation(1), Generation(9))
    farewell = Farewell(boot_id(), 0, monotonic_ns(), wall_ns(), Version(2))
    state = ClusterState(
        cluster="c", version=2, term=candidate.term, slots=(free,) * SLOTS, farewell=farewell
    )
    assert store.write(NO_VERSION, state)
    store.resign(candidate.term)
    words = [sys.executable, "-m", "lockring", "coordinator", "--listen", coordinator, "--store", url]
    with subprocess.Popen(words, env=child_environment(), stderr=subprocess.DEVNULL) as process:
        try:
            claimed = eventually(lambda: _other_than(store, state))
            assert claimed.farewell is None
        finally:
            process.terminate()
    store.close()


def _other_than(store: PostgresStore, former: ClusterState) -> ClusterState | None:
    """The state of a store once it is another one."""
    state = store.read()
    return None if state == former else state


def test_nodes_leave_a_frozen_leader_that_they_were_not_started_with(
    postgresql: PostgresServer, name: str
) -> None:
    """They know one coordinator by its address, which leads again once the one that it has named stands still."""
    url, added = postgresql.url(name=name), address()
    with LocalCluster(nodes=2, coordinators=1, store=url, stabilization_s=0.3) as cluster:
        holder = Holder(cluster.servers, LOCKS)
        (known,) = cluster.coordinators
        words = [sys.executable, "-m", "lockring", "coordinator", "--listen", added, "--store", url]
        with subprocess.Popen(words, env=child_environment(), stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: _leader_at(added) == cluster.address_of(known), cluster.logs)
                cluster.terminate(known)
                assert cluster.wait_for_exit(known) == 0
                eventually(lambda: _leader_at(added) == added, cluster.logs)
                cluster.restart(known)
                eventually(lambda: _hears(added, 2), cluster.logs)
                process.send_signal(signal.SIGSTOP)
                eventually(lambda: _hears(cluster.address_of(known), 2), cluster.logs)
                cluster.wait_until_stable(timeout_s=SETTLED_S)
                holder.check("the leader stands still")
            finally:
                process.kill()
        holder.client.close()


def _leader_at(coordinator: str) -> str:
    """The leader as a coordinator knows it, "" while it does not answer."""
    try:
        return ask_status(coordinator).leader
    except (ProtocolError, Unavailable):
        return ""


def _hears(coordinator: str, nodes: int) -> bool:
    """Whether this many nodes are with a coordinator."""
    try:
        heard = ask_status(coordinator).heard
    except (ProtocolError, Unavailable):
        return False
    return sum(0 <= ago_ms < 3_000 for _, ago_ms in heard) == nodes
