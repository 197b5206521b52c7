"""32 or 128 tasks of one asyncio process (uvloop) take and release locks at the same time, each its own.

A library without asyncio uses threads instead, which share one client.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import uvloop

from bench import peers
from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.peers.base import Endpoint
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import RESUME_S, InSlices, OneChild, Runner, Usage, Workload


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    """Start a client that measures latency of a pair, pairs per second, and processor time per pair."""
    is_async = peers.PEERS[server.peer].has_asyncio
    endpoint = server.endpoint()
    return OneChild(
        Child.under(
            endpoint.python,
            _tasks if is_async else _threads,
            endpoint,
            int(variant),
            slice_s=scale.overlap_slice_s,
            warm_up_s=server.warm_up_s,
        ),
        "" if is_async else "uses threads, since its library has no asyncio client",
    )


def _tasks(inbox: Inbox, endpoint: Endpoint, overlapping: int, slice_s: float, warm_up_s: float) -> Values:
    settle(endpoint.cores)
    return uvloop.run(_overlap(inbox, endpoint, overlapping, slice_s, warm_up_s))


async def _overlap(
    inbox: Inbox, endpoint: Endpoint, overlapping: int, slice_s: float, warm_up_s: float
) -> Values:
    client = peers.asynchronous(endpoint)
    await client.open(overlapping)

    async def task(number: int, end_ns: int) -> list[int]:
        clock_ns = time.perf_counter_ns
        samples_ns = []
        turn = 0
        while True:
            turn += 1
            begin_ns = clock_ns()
            release = await client.acquire(f"lock-{number}-{turn % 8}")
            await release()
            now_ns = clock_ns()
            samples_ns.append(now_ns - begin_ns)
            if now_ns >= end_ns:
                return samples_ns

    async def together(for_s: float) -> list[int]:
        end_ns = time.perf_counter_ns() + int(for_s * 1e9)
        lists = await asyncio.gather(*(task(number, end_ns) for number in range(overlapping)))
        return [sample for each in lists for sample in each]

    await together(warm_up_s)
    inbox.say("ready")
    all_ns: list[int] = []
    while await asyncio.to_thread(inbox.hear):  # the client's loop goes on, for it may have sessions to renew
        await together(RESUME_S)
        usage = Usage(endpoint)
        samples_ns = await together(slice_s)
        inbox.say(latencies(samples_ns) | usage.per(len(samples_ns)))
        all_ns += samples_ns
    return latencies(all_ns)


def _threads(inbox: Inbox, endpoint: Endpoint, overlapping: int, slice_s: float, warm_up_s: float) -> Values:
    settle(endpoint.cores)
    client = peers.blocking(endpoint)

    def thread(number: int, end_ns: int, samples_ns: list[int]) -> None:
        turn, now_ns = 0, 0
        while now_ns < end_ns:
            turn += 1
            begin_ns = time.perf_counter_ns()
            client.acquire(f"lock-{number}-{turn % 8}")()
            now_ns = time.perf_counter_ns()
            samples_ns.append(now_ns - begin_ns)

    def together(for_s: float) -> list[int]:
        end_ns = time.perf_counter_ns() + int(for_s * 1e9)
        lists: list[list[int]] = [[] for _ in range(overlapping)]
        threads = [threading.Thread(target=thread, args=(n, end_ns, each)) for n, each in enumerate(lists)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return [sample for samples_ns in lists for sample in samples_ns]

    together(warm_up_s)
    inbox.say("ready")
    all_ns: list[int] = []
    while inbox.hear():
        together(RESUME_S)
        usage = Usage(endpoint)
        samples_ns = together(slice_s)
        inbox.say(latencies(samples_ns) | usage.per(len(samples_ns)))
        all_ns += samples_ns
    return latencies(all_ns)


_PEERS = (
    *("lockring", "lockring+compiled", "lockring-3", "lockring-3+compiled"),
    *("redis", "redis+wait", "postgres", "zookeeper", "etcd"),
)

WORKLOAD = Workload(
    name="overlap",
    title="Many overlapping in one asyncio process",
    peers={"32": _PEERS, "128": _PEERS},
    how=InSlices(begin, lambda scale: scale.passes),
    rounds=lambda scale: scale.rounds,
)
