"""One blocking client takes one free lock after the other, a thousand names in rotation, and releases each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench import peers
from bench.children import Inbox, run_in_child, settle
from bench.figures import latencies
from bench.peers.base import Client, Endpoint
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import ONE_CORE, Outcome, Usage, Workload, cores_of, names

UNPINNED = "unpinned"


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure latency of a pair, pairs per second, and processor time per pair."""
    endpoint = server.endpoint(cores_of(variant))
    values = run_in_child(
        one_at_a_time, endpoint, peers.blocking, seconds=scale.single_s, warm_up_s=server.warm_up_s
    )
    return Outcome(values)


def one_at_a_time(
    inbox: Inbox,
    endpoint: Endpoint,
    connect: Callable[[Endpoint], Client],
    *,
    seconds: float,
    warm_up_s: float,
) -> Values:
    """Take one lock after the other in this process, a child, and return the figures.

    Args:
        inbox: of the child.
        endpoint: of the servers.
        connect: returns the client, such as `peers.blocking`.
        seconds: the duration of the measurement.
        warm_up_s: the duration of the work before it.
    """
    del inbox
    settle(endpoint.cores)
    client = connect(endpoint)
    _pairs(client, warm_up_s)
    usage = Usage(endpoint)
    samples_ns = _pairs(client, seconds)
    return latencies(samples_ns) | usage.per(len(samples_ns))


def _pairs(client: Client, seconds: float) -> list[int]:
    clock_ns = time.perf_counter_ns
    samples_ns = []
    end_ns = clock_ns() + int(seconds * 1e9)
    for name in names():
        begin_ns = clock_ns()
        client.acquire(name)()
        now_ns = clock_ns()
        samples_ns.append(now_ns - begin_ns)
        if now_ns >= end_ns:
            break
    return samples_ns


_MAIN = ("lockring", "lockring-3", "lockring+frames", "redis", "postgres", "zookeeper", "etcd")

WORKLOAD = Workload(
    name="single",
    title="One blocking client, one lock at a time",
    peers={
        UNPINNED: (*_MAIN, "zookeeper+tmpfs", "etcd+tmpfs"),
        ONE_CORE: _MAIN,
    },
    measure=measure,
    rounds=lambda scale: scale.rounds,
)
