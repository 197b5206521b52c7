"""One blocking client takes one free lock after the other, a thousand names in rotation, and releases each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench import peers
from bench.beside import FLOOR
from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.peers.base import Client, Endpoint
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import (
    ONE_CORE,
    RESUME_S,
    InSlices,
    OneChild,
    Runner,
    Usage,
    Workload,
    cores_of,
    names,
)

UNPINNED = "unpinned"


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    """Start a client that measures latency of a pair, pairs per second, and processor time per pair."""
    return one_client(server, variant, scale, peers.blocking)


def one_client(server: Any, variant: str, scale: Scale, connect: Callable[[Endpoint], Client]) -> OneChild:
    """Start a client that takes one lock after the other.

    Args:
        server: the started server.
        variant: gives the cores of client and server.
        scale: has the length of a slice.
        connect: returns the client, such as `peers.blocking`.
    """
    endpoint = server.endpoint(cores_of(variant))
    return OneChild(
        Child.under(
            endpoint.python,
            _one_at_a_time,
            endpoint,
            connect,
            slice_s=scale.slice_s,
            warm_up_s=server.warm_up_s,
        )
    )


def _one_at_a_time(
    inbox: Inbox,
    endpoint: Endpoint,
    connect: Callable[[Endpoint], Client],
    *,
    slice_s: float,
    warm_up_s: float,
) -> Values:
    settle(endpoint.cores)
    client = connect(endpoint)
    _pairs(client, warm_up_s)
    inbox.say("ready")
    all_ns: list[int] = []
    while inbox.hear():
        _pairs(client, RESUME_S)
        usage = Usage(endpoint)
        samples_ns = _pairs(client, slice_s)
        inbox.say(latencies(samples_ns) | usage.per(len(samples_ns)))
        all_ns += samples_ns
    return latencies(all_ns)


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


_MAIN = (
    *("lockring", "lockring+compiled", "lockring-3", "lockring-3+compiled", "lockring+frames"),
    *("redis", "redis+wait", "postgres", "zookeeper", "zookeeper-3", "etcd", "etcd-3"),
)

WORKLOAD = Workload(
    name="single",
    title="One blocking client, one lock at a time",
    peers={
        UNPINNED: (*_MAIN, "zookeeper+tmpfs", "etcd+tmpfs"),
        ONE_CORE: _MAIN,
    },
    how=InSlices(begin, lambda scale: scale.passes),
    rounds=lambda scale: scale.rounds,
    beside=(FLOOR,),
)
