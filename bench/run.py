"""The run: rounds of workloads, and in each the peers, in turn slice by slice or one after the other.

Each workload of each round has servers of its own, started for it and ended after it. The order of the peers changes,
so that a disturbance of the machine hits all of them alike.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from bench import results
from bench.beside import BESIDE
from bench.disk import Disk, NoDisk, find_disk
from bench.field import FAILURES, Field
from bench.figures import neighbour_ratios, quantile
from bench.install import Ready
from bench.peers import server as server_of
from bench.peers.base import Server
from bench.processes import busy_share
from bench.report import COMPARED, number
from bench.results import Measurement, Results, Values
from bench.scale import Scale
from bench.workloads.base import Alone, InSlices, Workload

T = TypeVar("T")

_BRIEF: Final = (
    *("pairs_per_s", "to_another_per_s", "median_us", "p99_us", "fairness", "locks_per_s", "bytes_per_lock"),
    *(
        "seconds",
        "during_p99_us",
        "server_cpu_us",
        "client_cpu_us",
        "others_share",
        "client_instructions",
        "server_instructions",
    ),
)
"""The figures that are shown during the run."""

BUSY_WARN: Final = 0.08
BUSY_REFUSE: Final = 0.3


class Busy(RuntimeError):
    """The machine is too busy for figures that mean something."""


class Step(NamedTuple):
    """One stretch of the run, on the same servers.

    Attributes:
        round: counted from 0.
        workload: the workload.
        peers: the peers; several of them have their servers up at once, and take turns.
        variants: the variants to measure, one after the other.
    """

    round: int
    workload: Workload
    peers: tuple[str, ...]
    variants: tuple[str, ...]

    def measurements(self) -> int:
        """Return the number of measurements."""
        beside = len(self.workload.beside) * len(self.variants)
        taking_part = [set(self.peers) & set(self.workload.peers[variant]) for variant in self.variants]
        return beside + sum(len(each) for each in taking_part)


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Return the items, rotated by that many places."""
    first = by % len(items) if items else 0
    return [*items[first:], *items[:first]]


def plan(
    workloads: Sequence[Workload], peers: Sequence[str], scale: Scale, *, variants: Sequence[str] = ()
) -> Iterator[Step]:
    """Yield all steps of a run, in order.

    Args:
        workloads: the workloads.
        peers: the peers that can be measured.
        scale: gives the number of rounds.
        variants: the variants to measure; () for all.
    """
    for round_ in range(max((workload.rounds(scale) for workload in workloads), default=0)):
        for workload in workloads:
            if round_ < workload.rounds(scale):
                yield from _steps(round_, workload, peers, variants)


def _steps(round_: int, workload: Workload, peers: Sequence[str], chosen: Sequence[str]) -> Iterator[Step]:
    variants = {
        variant: those for variant, those in workload.peers.items() if not chosen or variant in chosen
    }
    taking_part = tuple(each for each in peers if any(each in those for those in variants.values()))
    if not taking_part:
        return
    if isinstance(workload.how, InSlices):
        used = tuple(each for each in variants if set(variants[each]) & set(taking_part))
        yield Step(round_, workload, taking_part, used)
        return
    for peer in rotated(taking_part, round_):
        its_own = tuple(variant for variant, those in variants.items() if peer in those)
        if workload.one_server:
            yield Step(round_, workload, (peer,), its_own)
        else:
            yield from (Step(round_, workload, (peer,), (variant,)) for variant in its_own)


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
    total = sum(step.measurements() for step in steps)
    for step in steps:
        directory = disk.directory if disk is not None and step.workload.on_disk else None
        for measurements in _take(step, scale, directory, found.left_out):
            for measurement in measurements:
                found.measurements.append(measurement)
                compared = _compared(measurement, measurements)
                say(f"[dim]{len(found.measurements):>4}/{total}[/dim] {line(measurement)}{compared}")
        if json is not None:
            results.save(found, json)
    return found


def _take(
    step: Step, scale: Scale, directory: Path | None, left_out: list[str]
) -> Iterator[list[Measurement]]:
    """Yield the measurements of each variant, with the servers' files in a directory; None leaves it to the server."""

    def leave_out(peer: str, variant: str, error: Exception) -> None:
        last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        left_out.append(f"{results.failed(peer, step.workload.name, variant)} {step.round + 1}: {last}")

    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer in step.peers:
            try:
                servers[peer] = stack.enter_context(
                    server_of(peer, directory, is_patient=step.workload.is_patient)
                )
            except FAILURES as error:
                for variant in step.variants:  # one by one, as a later run makes up for them
                    leave_out(peer, variant, error)
        if isinstance(step.workload.how, InSlices):
            field = Field(
                step.workload,
                servers,
                round_=step.round,
                directory=directory or Path(tempfile.gettempdir()),
                left_out=leave_out,
            )
            yield from (field.measure(variant, scale) for variant in step.variants)
            return
        for peer, server in servers.items():
            for variant in step.variants:
                try:
                    yield [_alone(step, peer, server, variant, scale)]
                except FAILURES as error:
                    leave_out(peer, variant, error)
                    break


def _alone(step: Step, peer: str, server: Server, variant: str, scale: Scale) -> Measurement:
    assert isinstance(step.workload.how, Alone)
    outcome = step.workload.how.measure(server, variant, scale)
    return Measurement(
        workload=step.workload.name,
        variant=variant,
        peer=peer,
        round=step.round,
        values=outcome.values,
        note=outcome.note,
    )


def line(measurement: Measurement) -> str:
    """Return a measurement as one line for a terminal."""
    head = f"round {measurement.round + 1}  {measurement.workload:<9} {measurement.variant:<13} {measurement.peer:<18}"
    return f"{head} {_brief(measurement.values)}"


def _compared(measurement: Measurement, measurements: Sequence[Measurement]) -> str:
    """Return a measurement's ratio to the first server's, with the middle half of the neighbours' ratios."""
    first = next((each for each in measurements if each.peer not in BESIDE), measurement)
    name = COMPARED.get(measurement.workload)
    if name is None or measurement.peer in (*BESIDE, first.peer):
        return ""
    ratios = sorted(neighbour_ratios(measurement.slices, first.slices, name))
    if not ratios:
        return ""
    low, middle, high = (number(quantile(ratios, share)) for share in (0.25, 0.5, 0.75))
    return f"  [bold]{middle} × {first.peer}[/bold] ({low}–{high})"


def _brief(values: Values) -> str:
    return "  ".join(f"{name} {number(values[name])}" for name in _BRIEF if name in values)


def with_rounds(scale: Scale, rounds: int | None) -> Scale:
    """Return the scale, with another number of rounds if one is given."""
    if rounds is None:
        return scale
    return msgspec.structs.replace(scale, rounds=rounds, rounds_long=min(rounds, scale.rounds_long))
