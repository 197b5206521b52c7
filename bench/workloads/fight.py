"""2 or 8 processes take and release one lock as fast as they can, with nothing to do while they hold it.

Each notes the end of `acquire` and the start of `release`, by the machine's monotonic clock. The notes show the time of
a hand-over, the grants of each process, and whether two ever held the lock at once.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from bench import peers
from bench.children import Child, Inbox, settle
from bench.figures import Hold, history
from bench.peers.base import Endpoint
from bench.processes import cpu_s
from bench.scale import Scale
from bench.workloads.base import Outcome, Workload

_LOCK = "fought-for"


class Overlapped(RuntimeError):
    """Two processes held the lock at once, so the measurement is worthless."""


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure grants and hand-overs per second, latency of hand-overs to another process, and fairness.

    Raises:
        Overlapped: two processes held the lock at once.
    """
    endpoint = server.endpoint()
    processes = int(variant)
    with contextlib.ExitStack() as stack:
        fighters = [stack.enter_context(Child(_fighter, endpoint)) for _ in range(processes)]
        for fighter in fighters:
            fighter.hear()
        begin_ns = time.monotonic_ns() + 100_000_000
        end_ns = begin_ns + int(scale.fight_s * 1e9)
        server_s = cpu_s(endpoint.servers)
        for fighter in fighters:
            fighter.tell((begin_ns, end_ns))
        holds = [
            Hold(got_ns, released_ns, number)
            for number, fighter in enumerate(fighters)
            for got_ns, released_ns in fighter.result()
        ]
        server_s = cpu_s(endpoint.servers) - server_s
    values = history(holds, seconds=scale.fight_s, processes=processes)
    if values["overlaps"]:
        raise Overlapped(f"{server.peer}: two held the lock at once, {values['overlaps']:.0f} times")
    return Outcome(values | {"server_cpu_us": server_s / max(1, len(holds)) * 1e6})


def _fighter(inbox: Inbox, endpoint: Endpoint) -> list[tuple[int, int]]:
    settle(endpoint.cores)
    client = peers.waiting(endpoint)
    client.acquire(_LOCK)()
    inbox.say("ready")
    begin_ns, end_ns = inbox.hear()
    clock_ns = time.monotonic_ns
    time.sleep(max(0, begin_ns - clock_ns()) / 1e9)
    holds: list[tuple[int, int]] = []
    while True:
        release = client.acquire(_LOCK)
        got_ns = clock_ns()
        if got_ns >= end_ns:
            release()
            return holds
        released_ns = clock_ns()
        release()
        holds.append((got_ns, released_ns))


_PEERS = ("lockring", "lockring-3", "redis", "postgres", "zookeeper", "etcd")

WORKLOAD = Workload(
    name="fight",
    title="Processes contending for one lock",
    peers={"2": _PEERS, "8": _PEERS},
    measure=measure,
    rounds=lambda scale: scale.rounds,
)
