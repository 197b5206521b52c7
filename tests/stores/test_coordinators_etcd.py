"""Several coordinators on three members of etcd, as real processes, while members are lost and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lockring.errors import ProtocolError, Unavailable
from lockring.net.oneshot import ask_status
from lockring.slots import SLOTS
from lockring.testing import LocalCluster
from tests.processes import eventually
from tests.stores.load import Holder
from tests.stores.servers import HOST
from tests.stores.servers_etcd import EtcdServer
from tests.stores.test_coordinators import LOCKS, SETTLED_S, reigns

pytestmark = [pytest.mark.timeout(400)]

AWAY_S = 5
"""How long members are away: the nodes' leases last for longer."""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "etcd", 3)
    yield server
    server.kill()


@pytest.mark.slow
def test_members_of_the_store_come_and_go_without_a_moved_slot_or_a_lost_lock(three: EtcdServer) -> None:
    with LocalCluster(nodes=3, coordinators=3, store=three.url(), stabilization_s=0.3) as cluster:
        holder = Holder(cluster.servers, LOCKS)
        before = reigns(cluster)

        def settle(after: str) -> None:
            three.wait()
            eventually(lambda: cluster.leader, cluster.logs)
            cluster.wait_until_stable(timeout_s=SETTLED_S)
            holder.check(after)

        for member in three.members:
            three.kill(member)
            time.sleep(AWAY_S)
            holder.check("a member was killed")
            three.start(member)
            settle("the member is back")
        for member in three.members:
            three.freeze(member)
            time.sleep(AWAY_S)
            holder.check("a member stands still")
            three.thaw(member)
            settle("the member goes on")
        three.kill(0, 1)
        time.sleep(AWAY_S)
        holder.check("the majority is away")
        three.start(0)
        three.start(1)
        settle("the majority is back")
        three.kill()
        time.sleep(AWAY_S)
        holder.check("the store is away")
        for member in three.members:
            three.start(member)
        settle("the store is back")
        assert reigns(cluster) == before
        holder.client.close()


def test_a_standby_that_takes_over_a_store_without_its_state_grants_nothing_that_may_be_held(
    etcd: EtcdServer, name: str
) -> None:
    with LocalCluster(nodes=2, coordinators=2, store=etcd.url(name), stabilization_s=0.3) as cluster:
        former = cluster.leader
        (standby,) = (each for each in cluster.coordinators if each != former)
        # It has read the state, and knows that this cluster is not new any more.
        eventually(lambda: ask_status(cluster.address_of(standby)).version, cluster.logs)
        # Nor does a node say so.
        frozen = [former, *cluster.nodes]
        for each in frozen:
            cluster.freeze(each)
        delete(etcd, f"{name}/state")
        assert eventually(lambda: waiting_under(cluster, standby), cluster.logs) == [SLOTS]
        for each in frozen:
            cluster.thaw(each)


def waiting_under(cluster: LocalCluster, name: str) -> list[int]:
    """How many slots wait for earlier leases to end once this coordinator leads; empty before."""
    try:
        status = ask_status(cluster.address_of(name))
    except (ProtocolError, Unavailable):  # it closes all connections when it begins to lead
        return []
    return [status.waiting] if status.leader == cluster.address_of(name) and status.version else []


def delete(server: EtcdServer, key: str) -> None:
    """Delete a key, which lockring never does, by a message that is written by hand: its field 1 is the key."""
    request = b"\x0a" + bytes([len(key)]) + key.encode()
    with grpc.insecure_channel(
        f"{HOST}:{server.ports[0]}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/etcdserverpb.KV/DeleteRange"
        )
        method(request, timeout=30)
