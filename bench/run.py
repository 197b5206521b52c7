"""The run: rounds of workloads, in each the peers in turn, and beside each measurement the floor.

Nothing else runs meanwhile: each workload of each round has a server of its own, started for it and ended after it. The
order of the peers changes with each round, so that a disturbance of the machine hits all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from bench import results
from bench.children import ChildFailed
from bench.disk import Disk, NoDisk, find_disk
from bench.floor import floor_us
from bench.install import Ready
from bench.peers import server_class
from bench.peers.base import Server
from bench.processes import ServerFailed, busy_share
from bench.report import number
from bench.results import Measurement, Results, Values
from bench.scale import Scale
from bench.workloads.base import Workload, cores_of
from lockring.testing import ClusterFailed

T = TypeVar("T")

_BRIEF: Final = (
    *("pairs_per_s", "to_another_per_s", "median_us", "p99_us", "fairness", "locks_per_s", "bytes_per_lock"),
    *("seconds", "during_p99_us", "server_cpu_us", "client_cpu_us", "sync_us"),
)
"""The figures that are shown during the run."""

BUSY_WARN: Final = 0.08
BUSY_REFUSE: Final = 0.3


class Busy(RuntimeError):
    """The machine is too busy for figures that mean something."""


class Step(NamedTuple):
    """One stretch of the run, on one server.

    Attributes:
        round: counted from 0.
        workload: the workload.
        peer: the peer.
        variants: the variants to measure, one after the other.
    """

    round: int
    workload: Workload
    peer: str
    variants: tuple[str, ...]


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Return the items, rotated by that many places."""
    first = by % len(items) if items else 0
    return [*items[first:], *items[:first]]


def plan(workloads: Sequence[Workload], peers: Sequence[str], scale: Scale) -> Iterator[Step]:
    """Yield all steps of a run, in order."""
    for round_ in range(max((workload.rounds(scale) for workload in workloads), default=0)):
        for workload in workloads:
            if round_ >= workload.rounds(scale):
                continue
            for peer in rotated(
                [each for each in peers if any(each in those for those in workload.peers.values())], round_
            ):
                variants = tuple(variant for variant, those in workload.peers.items() if peer in those)
                if workload.one_server:
                    yield Step(round_, workload, peer, variants)
                else:
                    yield from (Step(round_, workload, peer, (variant,)) for variant in variants)


def check_quiet(*, anyway: bool, say: Callable[[str], None]) -> float:
    """Check that the processors are free, and return the share that other programs use.

    Raises:
        Busy: that share is too high, and `anyway` is false.
    """
    busy = busy_share()
    if busy > BUSY_REFUSE and not anyway:
        raise Busy(
            f"other programs use {busy:.0%} of the processors, so no figure would mean anything. "
            "Wait until the machine is quiet, or use --anyway."
        )
    if busy > BUSY_WARN:
        say(f"[yellow]other programs use {busy:.0%} of the processors: take the figures with care[/yellow]")
    return busy


def measure_all(
    steps: Sequence[Step],
    ready: Ready,
    scale_name: str,
    scale: Scale,
    *,
    busy: float,
    json: Path | None,
    say: Callable[[str], None],
) -> Results:
    """Take all steps, and save the growing results in a file.

    Raises:
        Overlapped: two processes held one lock at once.
    """
    left_out = list(ready.left_out)
    disk: Disk | None = None
    if any(step.workload.on_disk for step in steps):
        try:
            disk = find_disk()
        except NoDisk as error:
            steps = [step for step in steps if not step.workload.on_disk]
            left_out.append(str(error))
    found = Results(
        environment=results.environment(ready.versions, busy, "" if disk is None else str(disk)),
        measurements=[],
        left_out=left_out,
        scale=scale_name,
    )
    total = sum(len(step.variants) for step in steps)
    for step in steps:
        directory = disk.directory if disk is not None and step.workload.on_disk else None
        for measurement in _take(step, scale, directory, found.left_out):
            found.measurements.append(measurement)
            say(f"[dim]{len(found.measurements):>4}/{total}[/dim] {line(measurement)}")
        if json is not None:
            results.save(found, json)
    return found


def _take(step: Step, scale: Scale, directory: Path | None, left_out: list[str]) -> Iterator[Measurement]:
    """Yield the measurements of a step, with the server's files in a directory; None leaves the place to the server."""
    variant = step.variants[0]
    try:
        with server_class(step.peer)(directory) as server:
            for variant in step.variants:
                yield _measure(step, server, variant, scale)
    except (ServerFailed, ChildFailed, ClusterFailed, ImportError) as error:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        sentence = f"{step.peer}: {step.workload.name} ({variant}) failed in round {step.round + 1}: {last}"
        left_out.append(sentence)


def _measure(step: Step, server: Server, variant: str, scale: Scale) -> Measurement:
    floor = floor_us(cores_of(variant)) if step.workload.has_floor else 0.0
    outcome = step.workload.measure(server, variant, scale)
    return Measurement(
        workload=step.workload.name,
        variant=variant,
        peer=step.peer,
        round=step.round,
        floor_us=floor,
        values=outcome.values,
        note=outcome.note,
    )


def line(measurement: Measurement) -> str:
    """Return a measurement as one line for a terminal."""
    head = f"round {measurement.round + 1}  {measurement.workload:<9} {measurement.variant:<13} {measurement.peer:<18}"
    return f"{head} {_brief(measurement.values)}"


def _brief(values: Values) -> str:
    return "  ".join(f"{name} {number(values[name])}" for name in _BRIEF if name in values)


def with_rounds(scale: Scale, rounds: int | None) -> Scale:
    """Return the scale, with another number of rounds if one is given."""
    if rounds is None:
        return scale
    return msgspec.structs.replace(scale, rounds=rounds, rounds_long=min(rounds, scale.rounds_long))
