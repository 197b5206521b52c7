"""2 or 8 processes take and release one lock as fast as they can, with nothing to do while they hold it.

Each notes the end of `acquire` and the start of `release`, by the machine's monotonic clock. The notes show the time of
a hand-over, the grants of each process, and whether two ever held the lock at once.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

from bench import peers
from bench.beside import FLOOR
from bench.children import Child, Inbox, settle
from bench.figures import Hold, history
from bench.peers.base import Client, Endpoint
from bench.processes import cpu_s
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import InSlices, Outcome, Runner, Workload

_LOCK: Final = "fought-for"
_HEAD_START_NS: Final = 50_000_000
"""The time for all processes to hear when a slice begins."""


class Overlapped(RuntimeError):
    """Two processes held the lock at once, so the measurement is worthless."""


class Fight(Runner):
    """Processes that contend for a lock of one server.

    Args:
        endpoint: of the server.
        processes: their number.
        slice_s: the duration of a slice.
    """

    def __init__(self, endpoint: Endpoint, processes: int, slice_s: float) -> None:
        self._endpoint, self._slice_s = endpoint, slice_s
        self._fighters: list[Child[None]] = []
        self._slices: list[list[Hold]] = []
        self._server_us: list[float] = []
        try:
            for _ in range(processes):
                self._fighters.append(Child.under(endpoint.python, _fighter, endpoint))
            for fighter in self._fighters:
                fighter.hear()
        except BaseException:
            self.close()
            raise

    def slice(self) -> Values:
        """Let them contend, and return grants and hand-overs per second and the latency of hand-overs.

        Raises:
            ChildFailed: a process fails.
            Overlapped: two processes held the lock at once.
        """
        begin_ns = time.monotonic_ns() + _HEAD_START_NS
        end_ns = begin_ns + int(self._slice_s * 1e9)
        server_s = cpu_s(self._endpoint.servers)
        for fighter in self._fighters:
            fighter.tell((begin_ns, end_ns))
        holds = [
            Hold(got_ns, released_ns, number)
            for number, fighter in enumerate(self._fighters)
            for got_ns, released_ns in fighter.hear()
        ]
        server_s = cpu_s(self._endpoint.servers) - server_s
        values = self._figures([holds])
        if values["overlaps"]:
            raise Overlapped(
                f"{self._endpoint.peer}: two held the lock at once, {values['overlaps']:.0f} times"
            )
        self._slices.append(holds)
        self._server_us.append(server_s / max(1, len(holds)) * 1e6)
        return values

    def total(self) -> Outcome:
        """Return the figures of all slices together."""
        return Outcome(self._figures(self._slices) | {"server_cpu_us": statistics.median(self._server_us)})

    def _figures(self, slices: list[list[Hold]]) -> Values:
        return history(slices, seconds=self._slice_s * len(slices), processes=len(self._fighters))

    def pids(self) -> tuple[int, ...]:
        """Return the processes."""
        return tuple(fighter.pid for fighter in self._fighters)

    def close(self) -> None:
        """End the processes."""
        for fighter in self._fighters:
            fighter.close()


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    """Start processes that note grants and hand-overs."""
    return Fight(server.endpoint(), int(variant), scale.fight_slice_s)


def _fighter(inbox: Inbox, endpoint: Endpoint) -> None:
    settle(endpoint.cores)
    client = peers.waiting(endpoint)
    client.acquire(_LOCK)()
    inbox.say("ready")
    while True:
        begin_ns, end_ns = inbox.hear()
        time.sleep(max(0, begin_ns - time.monotonic_ns()) / 1e9)
        inbox.say(_contend(client, end_ns))


def _contend(client: Client, end_ns: int) -> list[tuple[int, int]]:
    clock_ns = time.monotonic_ns
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


_PEERS = (
    *("lockring", "lockring+compiled", "lockring-3", "lockring-3+compiled"),
    *("redis", "postgres", "zookeeper", "etcd"),
)

WORKLOAD = Workload(
    name="fight",
    title="Processes contending for one lock",
    peers={"2": _PEERS, "8": _PEERS},
    how=InSlices(begin, lambda scale: scale.fight_passes),
    rounds=lambda scale: scale.rounds,
    beside=(FLOOR,),
)
