"""`lockring status` against clusters that serve, that serve for a while yet, and that do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import lockring
from lockring.net.oneshot import ask_state, ask_status
from lockring.server.local.up import state_if_served
from lockring.testing import COORDINATOR, LocalCluster
from tests.processes import PATIENCE_S, eventually

pytestmark = [pytest.mark.cluster]


def status(server: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockring", "status", *flags],
        env={**os.environ, "LOCKRING_SERVER": server},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def answers(server: str) -> bool:
    try:
        ask_status(server)
    except lockring.Unavailable:
        return False
    return True


def found(server: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(status(server, "--json").stdout)
    return facts


def has_lease(cluster: LocalCluster, node: str) -> bool:
    return ask_status(cluster.address_of(node)).lease_left_ms > 0


def test_a_cluster_whose_coordinator_is_gone_serves_for_its_lease_and_then_does_not() -> None:
    with LocalCluster(nodes=2, stabilization_s=0.3, backup_lease_s=2, coordinator_lease_s=30) as cluster:
        cluster.kill(COORDINATOR)
        done = status(cluster.servers)
        assert done.returncode == 0, done.stdout
        assert "SERVING, degraded: all 4096 slots are served" in done.stdout
        assert f"the coordinator at {cluster.address_of(COORDINATOR)} does not answer" in done.stdout
        assert "may serve for another" in done.stdout
        facts = found(cluster.servers)
        assert (facts["serving"], facts["health"], facts["coordinator_answers"]) == (True, "degraded", False)
        assert 0 < facts["lease_left_s"] <= 30
        assert all(each["slots_served"] == 2048 for each in facts["members"])
        eventually(lambda: not has_lease(cluster, "N1") and not has_lease(cluster, "N2"), cluster.logs)
        done = status(cluster.servers)
        assert done.returncode == 69, done.stdout
        assert "NOT SERVING for " in done.stdout
        assert "N1 has been without the coordinator's lease for " in done.stdout
        assert "all 4096 slots have" not in done.stdout
        facts = found(cluster.servers)
        assert (facts["serving"], facts["health"], facts["slots_served"]) == (False, "down", 0)
        assert facts["not_serving_s"] >= 0
        assert len(facts["reasons"]) == 2
        assert all(each["coordinator_away_s"] > 15 for each in facts["members"])
        eventually(
            lambda: "serving no more: the coordinator's lease of 30 s is over" in cluster.log_of("N1"),
            cluster.logs,
        )
        cluster.restart(COORDINATOR)
        eventually(lambda: status(cluster.servers).returncode == 0, cluster.logs)
        eventually(lambda: "serving again" in cluster.log_of("N1"), cluster.logs)


def test_a_cluster_whose_only_node_is_dead_does_not_serve_and_its_log_does_not_say_so() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster:
        cluster.kill("N1")
        coordinator = cluster.address_of(COORDINATOR)
        done = status(coordinator)
        assert done.returncode == 69, done.stdout
        assert "NOT SERVING for " in done.stdout
        assert f"N1 at {cluster.address_of('N1')} does not answer" in done.stdout
        assert "the coordinator last heard from it " in done.stdout
        eventually(lambda: "0 of 4096 slots served" in cluster.log_of(COORDINATOR), cluster.logs)
        eventually(lambda: "4096 slots of N1, which is gone" in cluster.log_of(COORDINATOR), cluster.logs)


def test_slots_of_a_frozen_node_are_not_served_and_the_answer_comes_within_a_bound() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3, member_lease_s=60) as cluster:
        cluster.freeze("N1")
        facts = found(cluster.address_of(COORDINATOR))
        assert (facts["health"], facts["members"][0]["answers"]) == ("down", False)
        assert "did not answer within 2 s" in facts["members"][0]["problem"]
        cluster.thaw("N1")
        eventually(lambda: found(cluster.address_of(COORDINATOR))["health"] == "degraded", cluster.logs)


def test_a_coordinator_without_nodes_does_not_serve() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster:
        cluster.terminate("N1")
        assert cluster.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0
        eventually(lambda: not cluster.state().members, cluster.logs)
        done = status(cluster.address_of(COORDINATOR))
        assert (done.returncode, "no node has joined yet" in done.stdout) == (69, True)


def test_a_node_that_was_not_the_first_to_fail_is_not_called_failed() -> None:
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster, lockring.Client(cluster.servers) as client:
        client.drain("N2")
        cluster.wait_until_stable(timeout_s=PATIENCE_S)
        cluster.terminate("N2")
        assert cluster.wait_for_exit("N2", timeout_s=PATIENCE_S) == 0
        for name in ("N1", "N3", COORDINATOR):
            assert "which failed" not in cluster.log_of(name)


def test_a_cluster_is_announced_only_while_its_nodes_serve_whatever_the_state_says() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster:
        coordinator, nodes = cluster.address_of(COORDINATOR), [cluster.address_of("N1")]
        assert state_if_served([coordinator], nodes) is not None
        cluster.kill("N1")
        assert all(slot.primary is not None for slot in ask_state(coordinator).state.slots)
        with pytest.raises(lockring.Unavailable):
            state_if_served([coordinator], nodes)
        cluster.restart("N1")  # a new life, which waits for the leases of the former one
        eventually(lambda: answers(nodes[0]), cluster.logs)
        assert state_if_served([coordinator], nodes) is None


def test_a_coordinator_of_another_cluster_is_named_and_says_nothing_for_this_one() -> None:
    with (
        LocalCluster(nodes=1, stabilization_s=0.3) as cluster,
        LocalCluster(nodes=1, stabilization_s=0.3) as other,
    ):
        cluster.kill(COORDINATOR)
        stranger = other.address_of(COORDINATOR)
        servers = f"{cluster.servers},{stranger}"
        done = status(servers)
        assert done.returncode == 69, done.stdout
        assert f"{stranger} belongs to another cluster" in done.stdout
        facts = found(servers)
        assert [each["server"] for each in facts["other_clusters"]] == [stranger]
        assert facts["cluster"] != facts["other_clusters"][0]["cluster"]
        assert facts["serving"]
        assert facts["store"] is None


def test_a_coordinator_that_was_started_on_another_store_does_not_speak_for_the_cluster() -> None:
    with (
        LocalCluster(nodes=1, stabilization_s=0.3) as cluster,
        LocalCluster(nodes=1, stabilization_s=0.3) as other,
    ):
        cluster.kill(COORDINATOR)
        other.kill(COORDINATOR)
        address = cluster.address_of(COORDINATOR)
        words = ("coordinator", "--listen", address, "--data-dir", str(other.directory / "data"))
        process = subprocess.Popen([sys.executable, "-m", "lockring", *words], stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: answers(address))
            facts = found(cluster.servers)
        finally:
            process.kill()
            process.wait()
        assert (facts["health"], facts["coordinator_answers"], facts["store"]) == ("degraded", False, None)
        assert any("a server of another cluster" in each for each in facts["reasons"] + facts["remarks"])
