"""The cost of durability: locks that survive a crash, or the loss of power, beside locks in memory.

All servers keep their files on one file system of a disk, and a sync there is timed in turn with them. One client shows
the wait for a sync; many that overlap show whether a server syncs them together.
"""

from __future__ import annotations

from typing import Any, Final

from bench import peers
from bench.beside import SYNC
from bench.scale import Scale
from bench.workloads import overlap, single
from bench.workloads.base import ONE_CORE, InSlices, Runner, Workload

ONE_CLIENT: Final = "one client"
OVERLAPPING: Final = ("32", "128")


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    """Start clients that measure latency of a pair, pairs per second, and processor time per pair."""
    if variant in OVERLAPPING:
        return overlap.begin(server, variant, scale)
    return single.one_client(server, variant, scale, peers.waiting)


INTERPRETED: Final = ("lockring", "lockring+process", "lockring+disk")
ONE_NODE: Final = ("lockring+compiled", "lockring+compiled+process", "lockring+compiled+disk")
THREE_NODES: Final = ("lockring-3+compiled", "lockring-3+compiled+process", "lockring-3+compiled+disk")
SYNCED: Final = ("redis+sync", "redis+wait+sync", "zookeeper", "etcd")
"""The peers that answer only when the change is on disk, of one server or of two."""

_ALL: Final = (*INTERPRETED, *ONE_NODE, *THREE_NODES, *SYNCED)

WORKLOAD = Workload(
    name="durability",
    title="What durability costs",
    peers={ONE_CLIENT: _ALL, **dict.fromkeys(OVERLAPPING, _ALL), ONE_CORE: _ALL},
    how=InSlices(begin, lambda scale: scale.passes),
    rounds=lambda scale: scale.rounds,
    beside=(SYNC,),
    on_disk=True,
)
