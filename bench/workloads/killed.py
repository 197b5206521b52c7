"""Kill a process, and measure the time until the next client has the lock.

- "holder": a client's process is killed while it holds a lock that another client waits for. If the peer has leases,
  the waiter has to wait for the end of one: a TTL of 4 s, the shortest that ZooKeeper allows.
- "command": the command that runs under `lockring lock` is killed (SIGKILL).
- "lockring lock, SIGTERM" and "lockring lock, SIGKILL": the client that runs the command is terminated or killed.
- "primary": the node that grants some locks is killed, with the default leases; another takes its place.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

import lockring
import lockring.aio
from bench import peers
from bench.children import Child, ChildFailed, Inbox
from bench.peers.base import Endpoint
from bench.processes import tree
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import Alone, Outcome, Workload

HOLDER: Final = "holder"
COMMAND: Final = "command"
CLIENT_TOLD: Final = "lockring lock, SIGTERM"
CLIENT_KILLED: Final = "lockring lock, SIGKILL"
PRIMARY: Final = "primary"

_TTL_S: Final = 4
_HELD_S: Final = 0.5
_NAMES: Final = 20
_WATCHED_S: Final = 8.0
_APPEARS_S_MAX: Final = 20.0


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure the seconds from the kill to the next grant."""
    del scale
    if variant == HOLDER:
        return _holder(server)
    if variant == PRIMARY:
        return _primary(server)
    return _under_the_command(server, variant)


def _holder(server: Any) -> Outcome:
    endpoint = server.endpoint(ttl_s=_TTL_S)
    with (
        Child.under(endpoint.python, _hold, endpoint, "held") as holder,
        Child.under(endpoint.python, _wait, endpoint, "held") as waiter,
    ):
        waiter.hear()
        holder.hear()
        waiter.tell("acquire")
        time.sleep(_HELD_S)
        killed_ns = time.monotonic_ns()
        holder.kill()
        got_ns = waiter.result()
    return Outcome({"seconds": (got_ns - killed_ns) / 1e9})


def _hold(inbox: Inbox, endpoint: Endpoint, name: str) -> None:
    release = peers.waiting(endpoint).acquire(name)
    inbox.say("held")
    inbox.hear()
    release()


def _wait(inbox: Inbox, endpoint: Endpoint, name: str) -> int:
    client = peers.waiting(endpoint)
    client.acquire(f"{name}-before")()
    inbox.say("ready")
    inbox.hear()
    client.acquire(name)
    return time.monotonic_ns()


def _under_the_command(server: Any, variant: str) -> Outcome:
    endpoint = server.endpoint(ttl_s=15)
    name = f"run-{variant.replace(' ', '-')}"
    command = [
        sys.executable,
        "-m",
        "lockring",
        "lock",
        "--server",
        endpoint.address,
        name,
        "--",
        "sleep",
        "600",
    ]
    with (
        Child.under(endpoint.python, _wait, endpoint, name) as waiter,
        subprocess.Popen(command, stderr=subprocess.DEVNULL) as client,
    ):
        try:
            waiter.hear()
            sleeper = _sleeper(client.pid)
            waiter.tell("acquire")
            time.sleep(_HELD_S)
            killed_ns = time.monotonic_ns()
            pid = sleeper if variant == COMMAND else client.pid
            os.kill(pid, signal.SIGTERM if variant == CLIENT_TOLD else signal.SIGKILL)
            got_ns = waiter.result()
        finally:
            client.kill()
    return Outcome({"seconds": (got_ns - killed_ns) / 1e9})


def _sleeper(pid: int) -> int:
    """Wait until the command runs, so until the lock is held, and return its process id."""
    end_s = time.monotonic() + _APPEARS_S_MAX
    while time.monotonic() < end_s:
        for each in tree([pid]):
            try:
                words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"sleep":
                return each
        time.sleep(0.01)
    raise ChildFailed("the command under `lockring lock` was not started")


def _primary(server: Any) -> Outcome:
    cluster = server.cluster
    names = (f"served-{number}" for number in range(100_000))
    victim = cluster.primary_of("served-0")
    chosen = [
        name for name in (next(names) for _ in range(10 * _NAMES)) if cluster.primary_of(name) == victim
    ]
    endpoint = server.endpoint()
    with Child.under(endpoint.python, _take_turns, endpoint, chosen[:_NAMES]) as client:
        client.hear()
        time.sleep(1)
        killed_ns = time.monotonic_ns()
        cluster.kill(victim)
        gaps = client.result()
    if not all(end_ns > killed_ns for _, end_ns in gaps):
        raise ChildFailed("some locks were never acquired again, or never without their primary")
    seconds = sorted((end_ns - killed_ns) / 1e9 for _, end_ns in gaps)
    values: Values = {
        "seconds": seconds[len(seconds) // 2],
        "seconds_least": seconds[0],
        "seconds_most": seconds[-1],
    }
    return Outcome(values)


def _take_turns(inbox: Inbox, endpoint: Endpoint, names: list[str]) -> list[tuple[int, int]]:
    return uvloop.run(_longest_gaps(inbox, endpoint, names))


async def _longest_gaps(inbox: Inbox, endpoint: Endpoint, names: list[str]) -> list[tuple[int, int]]:
    """Return each name's longest gap between grants: the instants of the grants before and after it."""
    async with lockring.aio.Client(endpoint.address) as client:

        async def longest(name: str) -> tuple[int, int]:
            lock = client.lock(name)
            end_ns = time.monotonic_ns() + int(_WATCHED_S * 1e9)
            before_ns, gap = 0, (0, 0)
            while (now_ns := time.monotonic_ns()) < end_ns:
                try:
                    grant = await lock.acquire(timeout=_WATCHED_S)
                    now_ns = time.monotonic_ns()
                    if before_ns and now_ns - before_ns > gap[1] - gap[0]:
                        gap = (before_ns, now_ns)
                    before_ns = now_ns
                    await grant.release()
                except lockring.LockringError:
                    pass
                await asyncio.sleep(0.01)
            return gap

        for name in names:
            await (await client.lock(name).acquire()).release()
        inbox.say("ready")
        return list(await asyncio.gather(*(longest(name) for name in names)))


WORKLOAD = Workload(
    name="killed",
    title="After a kill: time to the next grant",
    peers={
        HOLDER: ("lockring", "lockring-3", "redis", "postgres", "zookeeper", "etcd"),
        COMMAND: ("lockring", "lockring-3"),
        CLIENT_TOLD: ("lockring", "lockring-3"),
        CLIENT_KILLED: ("lockring", "lockring-3"),
        PRIMARY: ("lockring-3",),
    },
    how=Alone(measure),
    rounds=lambda scale: scale.rounds_long,
)
