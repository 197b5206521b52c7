"""Several coordinators on three members of etcd, as real processes, while members are lost and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.testing import LocalCluster
from tests.processes import eventually
from tests.stores.servers_etcd import EtcdServer
from tests.stores.test_coordinators import SETTLED_S, Holder, reigns

pytestmark = [pytest.mark.timeout(400)]

AWAY_S = 5
"""How long members are away: the nodes' leases last for longer."""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "etcd", 3)
    yield server
    server.kill()


def test_members_of_the_store_come_and_go_without_a_moved_slot_or_a_lost_lock(three: EtcdServer) -> None:
    with LocalCluster(nodes=3, coordinators=3, store=three.url(), stabilization_s=0.3) as cluster:
        holder = Holder(cluster)
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
