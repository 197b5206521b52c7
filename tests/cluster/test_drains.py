"""Drains of real processes: by whom, through which server, of the last one, and back again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import lockring
from lockring.errors import LastNode, NodeLeaving, UnknownNode
from lockring.net.oneshot import ask_undrain
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.grpc_calls import Caller, refusal
from tests.processes import PATIENCE_S, address, eventually

pytestmark = [pytest.mark.cluster]


def command(server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockring", *arguments],
        env={**os.environ, "LOCKRING_SERVER": server},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def pair() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=2, stabilization_s=0.3, member_lease_s=2) as cluster:
        yield cluster


@pytest.fixture
def slow_pair() -> Iterator[LocalCluster]:
    """Two nodes, whose slots move only after a while without changes of membership."""
    with LocalCluster(nodes=2, stabilization_s=10) as cluster:
        yield cluster


def conditions(cluster: LocalCluster) -> dict[str, str]:
    return {node: member.condition for node, member in cluster.state().members.items()}


# --------------------------------------------------------------------------- a store that fails


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_an_order_that_the_store_does_not_take_names_the_store_and_may_still_take_effect(
    order: str, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    with LocalCluster(nodes=2, stabilization_s=0.3, directory=tmp_path) as cluster:
        before, after = ("active", "draining") if order == "drain" else ("draining", "active")
        if order == "undrain":
            assert command(cluster.address_of(COORDINATOR), "drain", "--wait", "N1").returncode == 0
        directory = cluster.directory / "data"
        directory.rename(aside)
        done = command(cluster.address_of("N2"), order, "--connect-timeout", "2", "N1")
        assert done.returncode == 69
        assert f"the coordinator's store SQLite ({directory}) has not worked for" in done.stderr
        assert "was moved or replaced while it was in use; put it back" in done.stderr
        assert "the order may still take effect: see the node's condition in lockring status" in done.stderr
        assert "check the address" not in done.stderr
        assert conditions(cluster)["N1"] == before
        aside.rename(directory)
        eventually(lambda: conditions(cluster)["N1"] == after, cluster.logs)


def test_an_order_that_no_server_got_takes_no_effect(tmp_path: Path) -> None:
    nowhere = address()
    done = command(nowhere, "drain", "N1")
    assert done.returncode == 69
    assert f"{nowhere} cannot be reached: connection refused" in done.stderr
    assert "check the address" in done.stderr
    assert "may still take effect" not in done.stderr


# --------------------------------------------------------------------------- the last one


def test_the_only_node_is_not_drained_whichever_server_is_asked_and_keeps_its_locks() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster, lockring.Client(cluster.servers) as client:
        grant = client.lock("kept").acquire()
        for name in ("N1", COORDINATOR):
            done = command(cluster.address_of(name), "drain", "N1")
            assert (done.returncode, done.stdout) == (1, ""), name
            assert "node N1 is the last one that can serve" in done.stderr
            assert "let another node join first" in done.stderr
        assert conditions(cluster) == {"N1": "active"}
        grant.verify()
        assert client.describe("kept").holders[0].fencing_token == grant.fencing_token


def test_the_second_of_two_nodes_is_not_drained_through_any_server(pair: LocalCluster) -> None:
    done = command(pair.address_of("N1"), "drain", "N1", "--wait")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "N1 is drained and can be stopped")
    for name in ("N1", "N2", COORDINATOR):
        done = command(pair.address_of(name), "drain", "N2")
        assert (done.returncode, done.stdout) == (1, ""), name
        assert "N1 is draining" in done.stderr
        assert "lockring undrain N1" in done.stderr
    assert all(slot.primary is not None and slot.primary.node == "N2" for slot in pair.state().slots)


def test_both_clients_refuse_to_drain_the_last_node_at_once(pair: LocalCluster) -> None:
    with lockring.Client(pair.address_of("N2")) as client:
        client.drain("N1")
        with pytest.raises(LastNode):
            client.drain("N2")
        with pytest.raises(UnknownNode):
            client.undrain("N9")
        client.undrain("N1")
        client.undrain("N1")
    eventually(lambda: conditions(pair) == {"N1": "active", "N2": "active"}, pair.logs)


# --------------------------------------------------------------------------- back again


def test_an_undrained_node_serves_again_and_the_other_one_can_be_drained(pair: LocalCluster) -> None:
    with lockring.Client(pair.servers) as client:
        grant = client.lock("kept").acquire()
        assert command(pair.address_of("N2"), "drain", "N1", "--wait").returncode == 0
        done = command(pair.address_of("N1"), "undrain", "N1")
        assert (done.returncode, done.stdout) == (0, "N1 may have slots again; see lockring status\n")
        pair.wait_until_stable(timeout_s=PATIENCE_S)
        done = command(pair.address_of("N1"), "drain", "N2", "--wait")
        assert done.returncode == 0, done.stderr
        assert all(slot.primary is not None and slot.primary.node == "N1" for slot in pair.state().slots)
        grant.verify()


def test_a_wait_for_a_drain_that_another_operator_ends_says_so(slow_pair: LocalCluster) -> None:
    pair = slow_pair
    waiting = subprocess.Popen(
        [sys.executable, "-m", "lockring", "drain", "N1", "--wait"],
        env={**os.environ, "LOCKRING_SERVER": pair.address_of(COORDINATOR)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    assert "N1 still has" in waiting.stdout.readline()
    ask_undrain(pair.address_of(COORDINATOR), "N1")
    _, err = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 1
    assert "no longer draining: it was made active again" in err


def test_a_node_that_is_stopping_is_not_made_active_again(slow_pair: LocalCluster) -> None:
    pair = slow_pair
    pair.terminate("N1")
    eventually(lambda: conditions(pair).get("N1") == "draining", pair.logs)
    with pytest.raises(NodeLeaving, match="start it again"):
        ask_undrain(pair.address_of(COORDINATOR), "N1")
    done = command(pair.address_of(COORDINATOR), "undrain", "N1")
    assert (done.returncode, "has been asked to stop" in done.stderr) == (1, True)


# --------------------------------------------------------------------------- gRPC


def health_of(caller: Caller) -> int:
    stub = health_pb2_grpc.HealthStub(caller.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE_S).status)


def refused(method: Any, node: str) -> tuple[grpc.StatusCode, str]:
    """Status and reason of a call about a node."""
    with pytest.raises(grpc.RpcError) as caught:
        method(node)
    found = refusal(caught.value)
    return found.code, found.reason


def test_a_drain_by_grpc_is_an_operators_also_through_the_node_that_it_is_about() -> None:
    with LocalCluster(nodes=2, stabilization_s=0.3, grpc=True) as cluster:
        first, second = (Caller(cluster.grpc_address_of(name)) for name in ("N1", "N2"))
        with first, second:
            assert health_of(first) == health_pb2.HealthCheckResponse.SERVING
            first.drain("N1")
            eventually(lambda: health_of(first) == health_pb2.HealthCheckResponse.NOT_SERVING, cluster.logs)
            assert refused(first.drain, "N2") == (grpc.StatusCode.FAILED_PRECONDITION, "last-node")
            assert refused(second.drain, "N2") == (grpc.StatusCode.FAILED_PRECONDITION, "last-node")
            assert refused(first.undrain, "N9") == (grpc.StatusCode.NOT_FOUND, "unknown-node")
            assert refused(first.drain, "a/b")[0] is grpc.StatusCode.INVALID_ARGUMENT
            second.undrain("N1")
            eventually(lambda: conditions(cluster) == {"N1": "active", "N2": "active"}, cluster.logs)
            eventually(lambda: health_of(first) == health_pb2.HealthCheckResponse.SERVING, cluster.logs)


# --------------------------------------------------------------------------- SIGTERM


def test_the_last_node_leaves_at_once_and_says_that_its_locks_end_with_it() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster:
        with lockring.Client(cluster.servers) as client:
            held = [client.lock("one").acquire(), client.lock("two").acquire()]
            assert all(grant.held for grant in held)
            cluster.terminate("N1")
            assert cluster.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0
        assert "no other node could take the 2 locks" in cluster.log_of("N1")


def test_the_last_node_that_holds_no_lock_says_so() -> None:
    with LocalCluster(nodes=1, stabilization_s=0.3) as cluster:
        cluster.terminate("N1")
        assert cluster.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0
        assert "it is the last one, and held no lock" in cluster.log_of("N1")


def test_a_node_leaves_as_the_last_one_soon_after_the_others_were_killed(pair: LocalCluster) -> None:
    pair.kill("N1")
    pair.terminate("N2")
    assert pair.wait_for_exit("N2", timeout_s=PATIENCE_S) == 0
    assert "not drained in time" not in pair.log_of("N2")


def test_a_node_stops_soon_where_its_coordinator_is_gone(pair: LocalCluster) -> None:
    pair.kill(COORDINATOR)
    pair.terminate("N1")
    assert pair.wait_for_exit("N1", timeout_s=PATIENCE_S) == 75
    assert "stopping without a move, since the coordinator has been away for 5 s" in pair.log_of("N1")


def test_a_node_stops_soon_where_its_coordinator_hangs(pair: LocalCluster) -> None:
    pair.freeze(COORDINATOR)
    pair.terminate("N1")
    assert pair.wait_for_exit("N1", timeout_s=PATIENCE_S) == 75
    assert "stopping without a move" in pair.log_of("N1")
    pair.thaw(COORDINATOR)


def test_a_node_without_slots_stops_at_once_where_its_coordinator_is_gone(pair: LocalCluster) -> None:
    pair.drain("N1")
    pair.wait_until_stable(timeout_s=PATIENCE_S)
    eventually(lambda: "N1" not in {s.primary.node for s in pair.state().slots if s.primary}, pair.logs)
    pair.kill(COORDINATOR)
    pair.terminate("N1")
    assert pair.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0
    log = pair.log_of("N1")
    assert "stopping without a move" not in log
    assert "nothing is on this node" in log or "nothing is left on this node" in log
