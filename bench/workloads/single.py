"""One blocking client takes one free lock after the other, a thousand names in rotation, and releases each."""

from __future__ import annotations

import time
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
    return Outcome(run_in_child(_client, endpoint, scale.single_s, server.warm_up_s))


def _client(inbox: Inbox, endpoint: Endpoint, seconds: float, warm_up_s: float) -> Values:
    del inbox
    settle(endpoint.cores)
    client = peers.blocking(endpoint)
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
