"""The cost of durability: locks that survive a crash, or the loss of power, beside locks in memory.

All servers keep their files on one file system of a disk, and a sync there is timed just before each measurement. One
client shows the wait for a sync; many that overlap show whether a server syncs them together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench import peers
from bench.children import run_in_child
from bench.disk import sync_us
from bench.scale import Scale
from bench.workloads import overlap, single
from bench.workloads.base import ONE_CORE, Outcome, Workload, cores_of

ONE_CLIENT: Final = "one client"
OVERLAPPING: Final = ("32", "128")


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Measure latency of a pair, pairs per second, processor time per pair, and the time of a sync."""
    sync = {"sync_us": sync_us(Path(server.directory))}
    if variant in OVERLAPPING:
        outcome = overlap.measure(server, variant, scale)
        return outcome._replace(values=sync | outcome.values)
    values = run_in_child(
        single.one_at_a_time,
        server.endpoint(cores_of(variant)),
        peers.waiting,
        seconds=scale.single_s,
        warm_up_s=server.warm_up_s,
    )
    return Outcome(sync | values)


ONE_NODE: Final = ("lockring", "lockring+process", "lockring+disk")
THREE_NODES: Final = ("lockring-3", "lockring-3+process", "lockring-3+disk")
SYNCED: Final = ("redis+sync", "zookeeper", "etcd")
"""The peers that answer only when the change is on disk."""

_ALL: Final = (*ONE_NODE, *THREE_NODES, *SYNCED)

WORKLOAD = Workload(
    name="durability",
    title="What durability costs",
    peers={ONE_CLIENT: _ALL, **dict.fromkeys(OVERLAPPING, _ALL), ONE_CORE: _ALL},
    measure=measure,
    rounds=lambda scale: scale.rounds,
    has_floor=False,
    on_disk=True,
)
