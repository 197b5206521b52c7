"""The gRPC API over the death of primaries: what waits goes on waiting, what is held stays held, and watches go on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.testing import LocalCluster
from tests.cluster.grpc_calls import PATIENCE_S, Caller
from tests.processes import eventually

pytestmark = pytest.mark.cluster

TTL_MS = 100_000
"""Of all locks here: none ends because the machine stands still for a while."""
PAUSE_S = 0.2
"""Between two renewals, whatever the TTL is."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        nodes=3,
        coordinator_lease_s=TTL_MS / 1000,
        stabilization_s=0.3,
        grpc=True,
    ) as cluster:
        yield cluster


class Keeper:
    """Keeps one lock alive over one stream, as a client does, and notes its deadline by its own clock."""

    def __init__(self, caller: Caller, name: str, key: str, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.renewed = 0
        self.lost = ""
        self._lock = caller.held(name, key, ttl_ms=TTL_MS)
        self._sent: list[float] = []
        self._stop = threading.Event()
        self._stream = caller.stub.KeepAlive(self._requests())
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _requests(self) -> Iterator[pb.KeepAliveRequest]:
        while not self._stop.is_set():
            self._sent.append(time.monotonic())
            yield pb.KeepAliveRequest(sequence=len(self._sent), locks=[self._lock])
            self._stop.wait(PAUSE_S)

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in self._stream:
                for kept in response.locks:
                    if kept.verdict == pb.VERDICT_LOST:
                        self.lost = kept.reason
                    elif kept.verdict == pb.VERDICT_HELD and time.monotonic() < self.deadline_s:
                        self.deadline_s = max(
                            self.deadline_s, self._sent[response.sequence - 1] + kept.lease_ms / 1000
                        )
                        self.renewed += 1

    def still(self, condition: Callable[[], object]) -> bool:
        """Return whether a condition holds; that the lock was lost fails the test at once."""
        assert not self.lost, f"the lock was lost: {self.lost}"
        assert time.monotonic() < self.deadline_s, "the lease was not renewed in time"
        return bool(condition())

    def close(self) -> None:
        self._stop.set()
        self._stream.cancel()
        self._thread.join()


def name_at(cluster: LocalCluster, primary: str) -> str:
    """A lock whose primary is that node."""
    return next(name for number in range(1000) if cluster.primary_of(name := f"failover/{number}") == primary)


def test_a_lock_and_its_waiters_survive_the_death_of_the_primary(cluster: LocalCluster) -> None:
    """The order between waiters of two nodes is left to the simulation: delays of their requests decide it here."""
    name = name_at(cluster, "N1")
    with (
        Caller(cluster.grpc_address_of("N2")) as second,
        Caller(cluster.grpc_address_of("N3")) as third,
    ):
        sent_s = time.monotonic()
        grant = second.lock(name, "holder", ttl_ms=TTL_MS)
        keeper = Keeper(second, name, "holder", sent_s + grant.lease_ms / 1000)
        states: list[pb.WatchResponse] = []
        watch = third.stub.Watch(pb.WatchRequest(name=name))

        def look() -> None:
            with contextlib.suppress(grpc.RpcError):
                states.extend(watch)

        watching = threading.Thread(target=look)
        watching.start()
        try:
            waiting: dict[str, tuple[Caller, Any]] = {}
            for key, caller in (("w0", second), ("w1", third), ("w2", second), ("w3", third)):
                waiting[key] = (caller, caller.begin_lock(name, key, ttl_ms=TTL_MS))
                third.see_waiters(name, *waiting)
            assert not any(state.gap for state in states)

            cluster.kill("N1")
            eventually(lambda: keeper.still(lambda: cluster.primary_of(name) not in ("", "N1")))
            eventually(
                lambda: keeper.still(lambda: sorted(third.waiters(name)) == sorted(waiting)),
                lambda: f"{sorted(waiting)}, not {third.waiters(name)}",
            )
            order = third.waiters(name)
            for node in (second, third):
                of_node = [key for key in order if waiting[key][0] is node]
                assert of_node == sorted(of_node), "one node's waits keep their order"
            found = third.find(name)
            assert (found.owner, found.generation) == ("holder", grant.generation)
            renewed = keeper.renewed
            eventually(lambda: keeper.still(lambda: keeper.renewed > renewed + 2))
            eventually(lambda: any(state.gap for state in states))

            second.unlock(name, "holder")
            tokens = [grant.generation]
            for key in order:
                caller, call = waiting[key]
                tokens.append(call.result().generation)
                caller.unlock(name, key)
            assert tokens == sorted(set(tokens))
            eventually(lambda: states[-1].lock.holder_count == states[-1].lock.waiter_count == 0)
        finally:
            keeper.close()
            watch.cancel()
            watching.join()


def test_a_wait_that_is_cancelled_after_a_failover_leaves_nothing(cluster: LocalCluster) -> None:
    name = name_at(cluster, "N1")
    with (
        Caller(cluster.grpc_address_of("N2")) as second,
        Caller(cluster.grpc_address_of("N3")) as third,
    ):
        second.lock(name, "holder", ttl_ms=TTL_MS)
        waiting = third.begin_lock(name, "w", ttl_ms=TTL_MS)
        third.see_waiters(name, "w")
        cluster.kill("N1")
        eventually(lambda: cluster.primary_of(name) not in ("", "N1"))
        second.see_waiters(name, "w")
        waiting.cancel()
        second.see_waiters(name)
        second.unlock(name, "holder")
        assert not second.find(name).held


def test_a_call_that_comes_while_a_primary_is_dead_is_answered_by_the_next(cluster: LocalCluster) -> None:
    name = name_at(cluster, "N1")
    with Caller(cluster.grpc_address_of("N2")) as second:
        token = second.lock(name, "a", ttl_ms=TTL_MS).generation
        cluster.kill("N1")
        assert second.find(name).generation == token
        second.unlock(name, "a")
        assert second.lock(name, "b", wait_ms=0).generation > token


def test_a_frozen_primary_holds_no_client_up_for_long(cluster: LocalCluster) -> None:
    name = name_at(cluster, "N1")
    with Caller(cluster.grpc_address_of("N2")) as second:
        token = second.lock(name, "a", ttl_ms=TTL_MS).generation
        cluster.freeze("N1")
        try:
            waiting = second.begin_lock(name, "b", ttl_ms=TTL_MS)
            eventually(lambda: cluster.primary_of(name) not in ("", "N1"))
            second.see_waiters(name, "b")
            second.unlock(name, "a")
            assert waiting.result().generation > token
        finally:
            cluster.thaw("N1")


def test_a_node_without_its_lease_does_not_claim_to_serve() -> None:
    with (
        LocalCluster(nodes=2, coordinator_lease_s=5.0, stabilization_s=0.3, grpc=True) as cluster,
        grpc.insecure_channel(cluster.grpc_address_of("N2")) as channel,
    ):
        check = health_pb2_grpc.HealthStub(channel).Check

        def serving() -> bool:
            response = check(
                health_pb2.HealthCheckRequest(service="lockring.v1.LockService"), timeout=PATIENCE_S
            )
            return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

        eventually(serving)
        cluster.kill("coordinator")
        eventually(lambda: not serving())
        cluster.restart("coordinator")
        eventually(serving)
