"""The interface between the run and its workloads."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from bench.peers.base import Endpoint
from bench.processes import cpu_s
from bench.results import Values
from bench.scale import Scale

ONE_CORE: Final = "one core"
"""The variant in which client and servers share one core: nothing wakes a sleeping core, so its figures are steady."""

NAMES: Final = 1000


class Outcome(NamedTuple):
    """The result of a workload.

    Attributes:
        values: the figures, by name.
        note: see `bench.results.Measurement`.
    """

    values: Values
    note: str = ""


class Workload(NamedTuple):
    """One kind of measurement.

    Attributes:
        name: its name on the command line and in the figures.
        title: its title in the report.
        peers: the peers that take part, by variant.
        measure: takes a started server, the variant and the scale. Each round has a fresh server.
        rounds: the number of rounds at a scale.
        has_floor: whether the floor is taken beside it.
        one_server: whether the variants may follow each other on one server.
        on_disk: whether the servers' files must be on a disk, and not on a file system in memory.
    """

    name: str
    title: str
    peers: dict[str, tuple[str, ...]]
    measure: Callable[[Any, str, Scale], Outcome]
    rounds: Callable[[Scale], int]
    has_floor: bool = True
    one_server: bool = True
    on_disk: bool = False


def cores_of(variant: str) -> tuple[int, ...]:
    """Return the cores of a variant: the last one, or () for any."""
    return (max(os.sched_getaffinity(0)),) if variant == ONE_CORE else ()


def names() -> Iterator[str]:
    """Yield names of locks, in rotation."""
    return itertools.cycle([f"lock-{number}" for number in range(NAMES)])


class Usage:
    """The processor time that a stretch of work costs its client, this process, and its server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._servers = endpoint.servers
        self._server_s = cpu_s(self._servers)
        self._client_s = time.process_time()
        self._begin_s = time.monotonic()

    def per(self, operations: int) -> Values:
        """Return rate and cost of that many operations since the start."""
        seconds = time.monotonic() - self._begin_s
        client_s = time.process_time() - self._client_s
        server_s = cpu_s(self._servers) - self._server_s
        return {
            "pairs_per_s": operations / seconds,
            "client_cpu_us": client_s / operations * 1e6,
            "server_cpu_us": server_s / operations * 1e6,
        }
