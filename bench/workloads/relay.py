"""Two processes take turns: one waits, surely asleep, when the other releases; the releaser stays away.

This process tells the releaser to go 20 to 120 ms after the other began to wait. So a library that polls is met at any
point of its interval.
"""

from __future__ import annotations

import random
import time
from typing import Any

from bench import peers
from bench.beside import FLOOR
from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.peers.base import Endpoint
from bench.results import Values
from bench.scale import Scale
from bench.workloads.base import InSlices, Outcome, Runner, Workload

_LOCK = "taking-turns"
_PAUSE_S = (0.02, 0.12)


class Relay(Runner):
    """Two processes that take turns with a lock of one server.

    Args:
        endpoint: of the server.
        relays: the hand-overs of a slice.
    """

    def __init__(self, endpoint: Endpoint, relays: int) -> None:
        self._relays = relays
        self._pauses = random.Random(1)
        self._samples_ns: list[int] = []
        self._holder, self._waiter = (Child.under(endpoint.python, _runner, endpoint) for _ in range(2))
        try:
            for each in (self._holder, self._waiter):
                each.hear()
        except BaseException:
            self.close()
            raise

    def slice(self) -> Values:
        """Hand the lock over, and return the time from the call of `release` to the return of the other's `acquire`."""
        samples_ns = []
        self._holder.tell("acquire")
        self._holder.hear()
        for _ in range(self._relays):
            self._waiter.tell("acquire")
            time.sleep(self._pauses.uniform(*_PAUSE_S))
            self._holder.tell("release")
            released_ns, got_ns = self._holder.hear(), self._waiter.hear()
            samples_ns.append(got_ns - released_ns)
            self._holder, self._waiter = self._waiter, self._holder
        self._holder.tell("release")
        self._holder.hear()
        self._samples_ns += samples_ns
        return latencies(samples_ns)

    def total(self) -> Outcome:
        """Return the figures of all slices together."""
        return Outcome(latencies(self._samples_ns))

    def pids(self) -> tuple[int, ...]:
        """Return both processes."""
        return (self._holder.pid, self._waiter.pid)

    def close(self) -> None:
        """End both processes."""
        self._holder.close()
        self._waiter.close()


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    """Start two processes that measure hand-overs."""
    del variant
    return Relay(server.endpoint(), scale.relays)


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


_PEERS = (
    *("lockring", "lockring+compiled", "lockring-3", "lockring-3+compiled"),
    *("redis", "postgres", "zookeeper", "etcd"),
)

WORKLOAD = Workload(
    name="relay",
    title="Two processes taking turns",
    peers={"2": _PEERS},
    how=InSlices(begin, lambda scale: scale.relay_passes),
    rounds=lambda scale: scale.rounds,
    beside=(FLOOR,),
)
