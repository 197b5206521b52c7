"""What was measured, as it is kept in a file: everything that the report and the plot are made of."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import msgspec

Values = dict[str, float]
"""Figures of one measurement by name; each name ends in its unit."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one workload against one peer.

    Attributes:
        workload: such as "single".
        variant: which form of it, such as "one core".
        peer: such as "redis".
        round: counted from 0.
        floor_us: the floor just before it: a 64-byte round trip between two processes, in the same pinning. 0 if the
            workload has none.
        values: what came out.
        note: in words, what a reader of the figures must know; "" if nothing.
    """

    workload: str
    variant: str
    peer: str
    round: int
    floor_us: float = 0.0
    values: Values = {}
    note: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what it was measured.

    Attributes:
        date: in UTC, YYYY-MM-DD.
        machine: processor and system, for people.
        cores: how many the run could use.
        python: its version.
        versions: of each server and each client library, by name.
        busy: share of the processor time that others used in the second before the run, 0 to 1.
    """

    date: str
    machine: str
    cores: int
    python: str
    versions: dict[str, str] = {}
    busy: float = 0.0


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        environment: of the run.
        measurements: in the order in which they were taken.
        left_out: sentences on what could not be measured, and why.
        scale: "full", "quick" or "tiny": how long each measurement took.
    """

    environment: Environment
    measurements: list[Measurement]
    left_out: list[str] = []
    scale: str = "full"


def environment(versions: dict[str, str], busy: float) -> Environment:
    """The machine as it is."""
    return Environment(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=f"{_processor()}, {platform.system()} {platform.release()}",
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        versions=versions,
        busy=busy,
    )


def save(results: Results, path: Path) -> None:
    """Write a run to a file; what was there is replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    draft.replace(path)


def load(path: Path) -> Results:
    """Read a run from a file.

    Raises:
        msgspec.DecodeError: it holds none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Results)


def merged(runs: list[Results]) -> Results:
    """Several runs as one: of a workload that is in more than one of them, the last run's figures count."""
    assert runs
    last = {
        (each.workload, each.variant, each.peer): n for n, run in enumerate(runs) for each in run.measurements
    }
    measurements = [
        each
        for n, run in enumerate(runs)
        for each in run.measurements
        if last[each.workload, each.variant, each.peer] == n
    ]
    versions = {name: text for run in runs for name, text in run.environment.versions.items()}
    return Results(
        environment=msgspec.structs.replace(runs[-1].environment, versions=versions),
        measurements=measurements,
        left_out=list(dict.fromkeys(line for run in runs for line in run.left_out)),
        scale=runs[-1].scale,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
