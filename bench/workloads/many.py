"""One client acquires very many locks and holds them all: speed, memory of each lock, messages to keep them.

Memory is the growth of the server's processes. With three nodes each lock is on two of them, as the primary's
record and as the backup's copy: the figure is the sum of both. Messages are counted by the kernel on the client's
connections, in both directions, while the client only keeps its locks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from bench import peers
from bench.children import Child, Inbox
from bench.peers.base import Endpoint
from bench.processes import rss_bytes
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import Alone, Outcome, Workload
from bench.workloads.tcp import Segments

HUNDRED_THOUSAND: Final = "100,000"
MILLION: Final = "1,000,000"

_TASKS: Final = 64
_THREADS: Final = 32
_MILLION_S_MAX: Final = 120.0
_BEFORE: Final = 100
"""Locks acquired before memory is first read, so that a connection's share is not in the figure."""


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure locks held, locks per second, server bytes per lock, and messages per second to keep them."""
    wanted = scale.more if variant == MILLION else scale.many
    limit_s = _MILLION_S_MAX if server.peer in peers.OURS else scale.many_s_max
    peer = peers.PEERS[server.peer]
    if server.renewals == "connection":
        job = _in_turn
    elif peer.has_asyncio:
        job = _by_tasks
    else:
        job = _by_threads
    endpoint = server.endpoint()
    with Child.under(endpoint.python, job, endpoint, wanted, limit_s, keep_s=scale.keep_s) as child:
        values = child.result()
    notes = []
    if values["held"] < wanted:
        notes.append(f"stopped at {values['held']:,.0f} locks after {values['seconds']:.0f} s")
    if server.renewals == "lock":
        values["renewals_needed_per_s"] = values["held"] / (server.endpoint().ttl_s / 3)
        notes.append("no automatic renewal: a program must renew each lock every third of its TTL")
    elif not values["kept"]:
        notes.append("a lock was lost")
    if "sent_per_s" not in values:
        notes.append("a connection ended while messages were counted")
    return Outcome(values, "; ".join(notes))


def _by_tasks(inbox: Inbox, endpoint: Endpoint, wanted: int, limit_s: float, keep_s: float) -> Values:
    del inbox
    return uvloop.run(_tasks(endpoint, wanted, limit_s, keep_s))


async def _tasks(endpoint: Endpoint, wanted: int, limit_s: float, keep_s: float) -> Values:
    client = peers.asynchronous(endpoint)
    await client.open(_TASKS)
    held: list[Callable[[], Awaitable[object]]] = [await client.acquire(f"first-{n}") for n in range(_BEFORE)]
    before_bytes = rss_bytes(endpoint.servers)
    begin_s = time.monotonic()
    left = iter(range(wanted))

    async def task() -> None:
        for number in left:
            held.append(await client.acquire(f"job-{number}"))
            if time.monotonic() - begin_s >= limit_s:
                return

    await asyncio.gather(*(task() for _ in range(_TASKS)))
    seconds = time.monotonic() - begin_s
    values = _acquired(endpoint, len(held) - _BEFORE, seconds, before_bytes)
    before = Segments.counted()
    await asyncio.sleep(keep_s)
    after = Segments.counted()
    kept = 1.0
    try:
        await held[_BEFORE]()
    except Exception:  # noqa: BLE001 - each library reports a lost lock in its own way
        kept = 0.0
    return values | _kept(before, after, keep_s) | {"kept": kept}


def _by_threads(inbox: Inbox, endpoint: Endpoint, wanted: int, limit_s: float, keep_s: float) -> Values:
    del inbox
    return _blocking(endpoint, wanted, limit_s, keep_s, _THREADS)


def _in_turn(inbox: Inbox, endpoint: Endpoint, wanted: int, limit_s: float, keep_s: float) -> Values:
    del inbox
    return _blocking(endpoint, wanted, limit_s, keep_s, 1)


def _blocking(endpoint: Endpoint, wanted: int, limit_s: float, keep_s: float, threads: int) -> Values:
    client = peers.blocking(endpoint)
    client.hold_many()
    held: list[Callable[[], object]] = [client.acquire(f"first-{n}") for n in range(_BEFORE)]
    before_bytes = rss_bytes(endpoint.servers)
    begin_s = time.monotonic()

    def thread(first: int) -> None:
        for number in range(first, wanted, threads):
            held.append(client.acquire(f"job-{number}"))
            if time.monotonic() - begin_s >= limit_s:
                return

    running = [threading.Thread(target=thread, args=(first,)) for first in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    values = _acquired(endpoint, len(held) - _BEFORE, time.monotonic() - begin_s, before_bytes)
    before = Segments.counted()
    time.sleep(keep_s)
    after = Segments.counted()
    kept = 1.0
    try:
        held[_BEFORE]()
    except Exception:  # noqa: BLE001 - each library reports a lost lock in its own way
        kept = 0.0
    return values | _kept(before, after, keep_s) | {"kept": kept}


def _acquired(endpoint: Endpoint, count: int, seconds: float, before_bytes: int) -> Values:
    return {
        "held": float(count),
        "seconds": seconds,
        "locks_per_s": count / seconds,
        "bytes_per_lock": (rss_bytes(endpoint.servers) - before_bytes) / count,
    }


def _kept(before: dict[str, Segments], after: dict[str, Segments], keep_s: float) -> Values:
    segments = Segments.between(before, after)
    if segments is None:
        return {}
    return {"sent_per_s": segments.sent / keep_s, "received_per_s": segments.received / keep_s}


_OURS = ("lockring", "lockring+compiled", "lockring-3", "lockring-3+compiled")

WORKLOAD = Workload(
    name="many",
    title="Very many locks held by one client",
    peers={
        HUNDRED_THOUSAND: (*_OURS, "redis", "postgres", "zookeeper", "etcd"),
        MILLION: _OURS,
    },
    how=Alone(measure),
    rounds=lambda _: 1,
    one_server=False,
)
