"""Two processes take turns: one waits, surely asleep, when the other releases; the releaser stays away.

This process tells the releaser to go 20 to 120 ms after the other began to wait. So a library that polls is met at any
point of its interval.
"""

from __future__ import annotations

import random
import time
from typing import Any

from bench import peers
from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.peers.base import Endpoint
from bench.scale import Scale
from bench.workloads.base import Outcome, Workload

_LOCK = "taking-turns"
_PAUSE_S = (0.02, 0.12)


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure the time from the call of `release` to the return of the other's `acquire`."""
    del variant
    endpoint = server.endpoint()
    pauses = random.Random(1)
    with Child(_runner, endpoint) as one, Child(_runner, endpoint) as other:
        holder, waiter = one, other
        for each in (holder, waiter):
            each.hear()
        holder.tell("acquire")
        holder.hear()
        samples_ns = []
        for _ in range(scale.relays):
            waiter.tell("acquire")
            time.sleep(pauses.uniform(*_PAUSE_S))
            holder.tell("release")
            released_ns, got_ns = holder.hear(), waiter.hear()
            samples_ns.append(got_ns - released_ns)
            holder, waiter = waiter, holder
    return Outcome(latencies(samples_ns) | {"relays": float(len(samples_ns))})


def _runner(inbox: Inbox, endpoint: Endpoint) -> None:
    settle(endpoint.cores)
    client = peers.waiting(endpoint)
    client.acquire(f"{_LOCK}-before")()
    inbox.say("ready")
    while True:
        assert inbox.hear() == "acquire"
        release = client.acquire(_LOCK)
        inbox.say(time.monotonic_ns())
        assert inbox.hear() == "release"
        released_ns = time.monotonic_ns()
        release()
        inbox.say(released_ns)


WORKLOAD = Workload(
    name="relay",
    title="Two processes taking turns",
    peers={"2": ("lockring", "lockring-3", "redis", "postgres", "zookeeper", "etcd")},
    measure=measure,
    rounds=lambda scale: scale.rounds,
)
