"""All workloads, in the order of a run."""

from __future__ import annotations

from typing import Final

from bench.workloads import (
    doors,
    durability,
    fight,
    instructions,
    killed,
    many,
    overlap,
    rebalance,
    relay,
    single,
)
from bench.workloads.base import Workload

WORKLOADS: Final[dict[str, Workload]] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (single, doors, overlap, fight, relay, many, killed, rebalance, instructions, durability)
}
