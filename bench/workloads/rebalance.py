"""A fourth node joins three while one client holds very many locks and another works with locks all over the ring."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import uvloop

import lockring
import lockring.aio
from bench.children import Child, Inbox
from bench.figures import quantile
from bench.peers.base import Endpoint
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import Alone, Outcome, Workload

_BEFORE_S = 3.0
_TASKS = 64
_PAUSE_S = 0.001
_STABLE_S_MAX = 120.0
_STABLE_POLL_S = 0.2
_SETTLED_S = 0.5
"""The quiet time after which the cluster counts as stable; it does not count as part of the move."""


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure the time of the move, and of an acquire elsewhere meanwhile and before."""
    del variant
    cluster = server.cluster
    endpoint = server.endpoint()
    with (
        Child.under(endpoint.python, _hold, endpoint, scale.rebalanced) as holder,
        Child.under(endpoint.python, _probe, endpoint) as prober,
    ):
        holder.hear()
        prober.hear()
        prober.tell("begin")
        time.sleep(_BEFORE_S)
        begin_ns = time.monotonic_ns()
        cluster.add_node()
        cluster.wait_until_stable(timeout_s=_STABLE_S_MAX, poll_s=_STABLE_POLL_S)
        end_ns = time.monotonic_ns() - int(_SETTLED_S * 1e9)
        prober.tell("end")
        samples = prober.result()
        holder.tell("end")
        lost = holder.result()
    before = [acquire_ns for at_ns, acquire_ns in samples if at_ns < begin_ns]
    during = [acquire_ns for at_ns, acquire_ns in samples if begin_ns <= at_ns < end_ns]
    values = _acquires("before", before) | _acquires("during", during)
    values |= {"seconds": (end_ns - begin_ns) / 1e9, "held": float(scale.rebalanced), "lost": float(lost)}
    return Outcome(values, f"{lost} locks were lost" if lost else "")


def _acquires(when: str, samples_ns: list[int]) -> Values:
    ordered = sorted(samples_ns)
    return {
        f"{when}_median_us": quantile(ordered, 0.5) / 1e3,
        f"{when}_p99_us": quantile(ordered, 0.99) / 1e3,
        f"{when}_max_us": ordered[-1] / 1e3,
        f"{when}_probes": float(len(ordered)),
    }


def _hold(inbox: Inbox, endpoint: Endpoint, count: int) -> int:
    return uvloop.run(_hold_all(inbox, endpoint, count))


async def _hold_all(inbox: Inbox, endpoint: Endpoint, count: int) -> int:
    """Hold that many locks until a message ends it, and return the number of losses meanwhile."""
    client = lockring.aio.Client(endpoint.address)
    grants: list[lockring.aio.Grant] = []
    left = iter(range(count))

    async def task() -> None:
        for number in left:
            grant = await client.lock(f"held-{number}").acquire()
            grants.append(grant)

    await asyncio.gather(*(task() for _ in range(_TASKS)))
    inbox.say("held")
    await asyncio.get_running_loop().run_in_executor(None, inbox.hear)
    return sum(not grant.held for grant in grants)


def _probe(inbox: Inbox, endpoint: Endpoint) -> list[tuple[int, int]]:
    """Acquire and release names from all over the ring, and return the start and duration of each acquire."""
    client = lockring.Client(endpoint.address)
    draw = random.Random(1)
    client.lock("probe").acquire().release()
    inbox.say("ready")
    inbox.hear()
    samples = []
    while not inbox.has_word():
        lock = client.lock(f"probe-{draw.randrange(1_000_000)}")
        at_ns = time.monotonic_ns()
        grant = lock.acquire()
        samples.append((at_ns, time.monotonic_ns() - at_ns))
        grant.release()
        time.sleep(_PAUSE_S)
    return samples


WORKLOAD = Workload(
    name="rebalance",
    title="A node joins",
    peers={"3 to 4 nodes": ("lockring-3", "lockring-3+compiled")},
    how=Alone(measure),
    rounds=lambda scale: scale.rounds_long,
)
