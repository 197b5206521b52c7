"""A round of a workload in slices: all servers up at once, and their clients at work in turn.

The speed of a machine, and more so of a virtual one, changes within seconds by more than the differences that are of
interest. So a figure is only compared with those of slices just before and just after it. An idle server must not
disturb. Where client and server have one core, those of other peers wait on the other cores; elsewhere they have little
to do: each slice notes the processor time of all their processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.beside import BESIDE
from bench.children import ChildFailed
from bench.peers.base import Server
from bench.processes import ServerFailed, cpu_s, pin
from bench.results import Measurement, Values
from bench.scale import Scale
from bench.workloads.base import InSlices, Outcome, Runner, Workload, cores_of
from lockring.testing import ClusterFailed

FAILURES: Final = (ServerFailed, ChildFailed, ClusterFailed, ImportError)
"""The errors that leave a peer out, while the others go on."""


class Lane(NamedTuple):
    """A peer that takes its turn.

    Attributes:
        peer: its name.
        runner: its clients.
        servers: ids of the servers' processes, and of companions.
        slices: the figures of its slices so far.
    """

    peer: str
    runner: Runner
    servers: tuple[int, ...]
    slices: list[Values]

    def pids(self) -> tuple[int, ...]:
        """Return the processes of servers and clients."""
        return (*self.servers, *self.runner.pids())


def turns(count: int, passes: int) -> Iterator[list[int]]:
    """Yield the order of some participants in each pass: another one begins each time, and every other pass goes back.

    So each has as often a given other one before it as after it.
    """
    for number in range(passes):
        order = [(number // 2 + place) % count for place in range(count)]
        yield order[::-1] if number % 2 else order


class Field:
    """Started servers, whose clients work in turn.

    Args:
        workload: a workload in slices.
        servers: the servers, by peer.
        round_: the round, counted from 0.
        directory: the directory of the servers' files.
        left_out: receives a sentence on each peer that fails.
    """

    def __init__(
        self,
        workload: Workload,
        servers: dict[str, Server],
        *,
        round_: int,
        directory: Path,
        left_out: Callable[[str, str, Exception], None],
    ) -> None:
        self._workload = workload
        self._servers = servers
        self._round = round_
        self._directory = directory
        self._left_out = left_out

    def measure(self, variant: str, scale: Scale) -> list[Measurement]:
        """Let clients of all servers work in turn, and return the figures of each peer, in the order of the servers.

        Args:
            variant: the variant of the workload.
            scale: the length of the measurement.
        """
        how = self._workload.how
        assert isinstance(how, InSlices)
        with contextlib.ExitStack() as stack:
            lanes = self._lanes(stack, how, variant, scale)
            for lane in lanes:
                _park(lane, variant)
            failed: set[str] = set()
            for order in turns(len(lanes), how.passes(scale)):
                for place in order:
                    if lanes[place].peer not in failed and not self._slice(place, lanes, variant):
                        failed.add(lanes[place].peer)
            found = []
            for lane in lanes:
                if lane.peer in failed:
                    continue
                with self._leaving_out(lane.peer, variant):
                    found.append(self._measurement(lane, variant, lane.runner.total()))
            return found

    def _lanes(self, stack: contextlib.ExitStack, how: InSlices, variant: str, scale: Scale) -> list[Lane]:
        lanes = []
        for name in self._workload.beside:
            runner = stack.enter_context(BESIDE[name].begin(cores_of(variant), self._directory))
            lanes.append(Lane(name, runner, (), []))
        for peer, server in self._servers.items():
            if peer not in self._workload.peers[variant]:
                continue
            with self._leaving_out(peer, variant):
                runner = stack.enter_context(how.begin(server, variant, scale))
                lanes.append(Lane(peer, runner, (*server.pids(), *server.companions()), []))
        return lanes

    def _slice(self, place: int, lanes: Sequence[Lane], variant: str) -> bool:
        """Take a slice, and return whether it worked."""
        lane, others = lanes[place], [*lanes[:place], *lanes[place + 1 :]]
        pids = [pid for each in others for pid in each.pids()]
        before_at_s, before_s = time.monotonic(), cpu_s(pids)
        begin_s = time.monotonic()
        try:
            with _on_its_core(lane, variant):
                values = lane.runner.slice()
        except FAILURES as error:
            self._left_out(lane.peer, variant, error)
            return False
        end_s = time.monotonic()
        others_s, after_at_s = cpu_s(pids) - before_s, time.monotonic()
        share = others_s / (after_at_s - before_at_s)
        lane.slices.append(values | {"at_s": (begin_s + end_s) / 2, "others_share": share})
        return True

    def _measurement(self, lane: Lane, variant: str, outcome: Outcome) -> Measurement:
        shares = [values["others_share"] for values in lane.slices]
        return Measurement(
            workload=self._workload.name,
            variant=variant,
            peer=lane.peer,
            round=self._round,
            values=outcome.values | {"others_share": sum(shares) / len(shares)},
            slices=lane.slices,
            note=outcome.note,
        )

    @contextlib.contextmanager
    def _leaving_out(self, peer: str, variant: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            self._left_out(peer, variant, error)


@contextlib.contextmanager
def _on_its_core(lane: Lane, variant: str) -> Iterator[None]:
    """Have a peer's processes on the variant's core for the block, if it has one."""
    if cores := cores_of(variant):
        pin(lane.pids(), cores)
    try:
        yield
    finally:
        _park(lane, variant)


def _park(lane: Lane, variant: str) -> None:
    """Move a peer's processes off the variant's core, if it has one and there are others."""
    cores = set(cores_of(variant))
    if cores and (free := os.sched_getaffinity(0) - cores):
        pin(lane.pids(), free)
