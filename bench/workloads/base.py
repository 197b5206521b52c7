"""The interface between the run and its workloads."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from bench.children import Child
from bench.peers.base import Endpoint
from bench.processes import cpu_s
from bench.results import Values
from bench.scale import Scale

ONE_CORE: Final = "one core"
"""The variant in which client and servers share one core: nothing wakes a sleeping core, so its figures are steady."""

NAMES: Final = 1000

RESUME_S: Final = 0.02
"""Before each slice clients work for so long without being measured: their code and data left the caches meanwhile."""


class Outcome(NamedTuple):
    """The result of a workload.

    Attributes:
        values: the figures, by name.
        note: see `bench.results.Measurement`.
    """

    values: Values
    note: str = ""


class Runner(ABC):
    """The clients of one server, which work a slice at a time, and rest while those of others do.

    Not safe for use by several threads. As a context manager it ends its clients at the end of the block.
    """

    @abstractmethod
    def slice(self) -> Values:
        """Let the clients work for a slice, and return its figures.

        Raises:
            ChildFailed: a client fails.
        """

    @abstractmethod
    def total(self) -> Outcome:
        """Return the figures of all slices together; no slice may follow.

        Raises:
            ChildFailed: a client fails.
        """

    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """Return the clients' processes."""

    @abstractmethod
    def close(self) -> None:
        """End the clients. Ending ended ones is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OneChild(Runner):
    """A runner with one client, a child that says "ready", then the figures of a slice for each True that it hears.

    When it hears False it returns the figures of all slices that are no medians of them, such as a percentile.

    Args:
        child: the child, just started.
        note: a remark for readers of the figures; "" for none.
    """

    def __init__(self, child: Child[Values], note: str = "") -> None:
        self._child = child
        self._note = note
        self._slices: list[Values] = []
        try:
            child.hear()
        except BaseException:
            self.close()
            raise

    def slice(self) -> Values:
        """Let the client work for a slice, and return its figures."""
        self._child.tell(True)
        values: Values = self._child.hear()
        self._slices.append(values)
        return values

    def total(self) -> Outcome:
        """Return the client's figures of all slices, and the medians of the others over the slices."""
        self._child.tell(False)
        return Outcome(medians(self._slices) | self._child.result(), self._note)

    def pids(self) -> tuple[int, ...]:
        """Return the client's process."""
        return (self._child.pid,)

    def close(self) -> None:
        """End the client."""
        self._child.close()


class Alone(NamedTuple):
    """A way to measure: one server at a time, while nothing else runs.

    Attributes:
        measure: takes a started server, the variant and the scale.
    """

    measure: Callable[[Any, str, Scale], Outcome]


class InSlices(NamedTuple):
    """A way to measure: all servers are up at once, and their clients take turns, a slice each.

    The machine's speed changes within seconds, so only neighbours in time can be compared.

    Attributes:
        begin: takes a started server, the variant and the scale; returns the runner when its clients have warmed up.
        passes: the number of slices of each server in a round at a scale.
    """

    begin: Callable[[Any, str, Scale], Runner]
    passes: Callable[[Scale], int]


class Workload(NamedTuple):
    """One kind of measurement.

    Attributes:
        name: its name on the command line and in the figures.
        title: its title in the report.
        peers: the peers that take part, by variant.
        how: the way to measure. Each round has fresh servers.
        rounds: the number of rounds at a scale.
        beside: the measures of the machine itself that take turns with the servers: keys of `bench.beside.BESIDE`.
        one_server: whether the variants may follow each other on one server.
        on_disk: whether the servers' files must be on a disk, and not on a file system in memory.
    """

    name: str
    title: str
    peers: dict[str, tuple[str, ...]]
    how: Alone | InSlices
    rounds: Callable[[Scale], int]
    beside: tuple[str, ...] = ()
    one_server: bool = True
    on_disk: bool = False


def medians(slices: Sequence[Values]) -> Values:
    """Return the median of each figure over some slices."""
    found: dict[str, list[float]] = {}
    for values in slices:
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(each) for name, each in found.items()}


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
