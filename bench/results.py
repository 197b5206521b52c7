"""The measurements, as a file keeps them: the source of the report and the plot."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

Values = dict[str, float]
"""Figures of one measurement by name; each name ends in its unit."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one workload against one peer.

    Attributes:
        workload: such as "single".
        variant: its form, such as "one core".
        peer: such as "redis", or a key of `bench.beside.BESIDE`.
        round: counted from 0.
        values: the figures.
        slices: the figures of each slice, if the peers took turns. "at_s" is the middle of a slice, by a clock that all
            peers of the round share.
        note: a remark for readers of the figures; "" for none.
    """

    workload: str
    variant: str
    peer: str
    round: int
    values: Values = {}
    slices: list[Values] = []
    note: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the software of a run.

    Attributes:
        date: in UTC, YYYY-MM-DD.
        machine: processor and system, for people.
        cores: the number of cores for the run.
        python: version and path of the Python that runs every client, and lockring's servers.
        versions: versions of servers and client libraries, by name.
        busy: the share of processor time that other programs used in the second before the run, 0 to 1.
        disk: the file system and device of the servers' files; "" if no workload was about them.
    """

    date: str
    machine: str
    cores: int
    python: str
    versions: dict[str, str] = {}
    busy: float = 0.0
    disk: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        environment: the run's machine and software.
        measurements: all measurements, in the order of the run.
        left_out: sentences on failed or missing measurements, with the reason.
        scale: "full", "quick" or "tiny": the length of the measurements.
    """

    environment: Environment
    measurements: list[Measurement]
    left_out: list[str] = []
    scale: str = "full"


def environment(versions: dict[str, str], busy: float, disk: str = "") -> Environment:
    """Return the present machine's environment."""
    return Environment(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=f"{_processor()}, {platform.system()} {platform.release()}",
        cores=len(os.sched_getaffinity(0)),
        python=f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
        versions=versions,
        busy=busy,
        disk=disk,
    )


def save(results: Results, path: Path) -> None:
    """Write a run to a file, which is replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    draft.replace(path)


def load(path: Path) -> Results:
    """Read a run from a file.

    Raises:
        msgspec.DecodeError: the file has no run.
    """
    return msgspec.json.decode(path.read_bytes(), type=Results)


def merged(runs: list[Results]) -> Results:
    """Merge several runs. If several have a workload, the last one's figures count, and make up for a failure."""
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
    disk = next((run.environment.disk for run in reversed(runs) if run.environment.disk), "")
    versions = {name: text for run in runs for name, text in run.environment.versions.items()}
    return Results(
        environment=msgspec.structs.replace(runs[-1].environment, versions=versions, disk=disk),
        measurements=measurements,
        left_out=list(
            dict.fromkeys(
                line
                for n, run in enumerate(runs)
                for line in run.left_out
                if not _is_made_up_for(line, n, last)
            )
        ),
        scale=runs[-1].scale,
    )


def failed(peer: str, workload: str, variant: str) -> str:
    """Return the beginning of the sentence on a measurement that has failed."""
    return f"{peer}: {workload} ({variant}) failed in round"


def _is_made_up_for(sentence: str, run: int, last: dict[tuple[str, str, str], int]) -> bool:
    """Return whether a later run has the measurement that failed in this one, as a sentence says."""
    return any(
        number > run and sentence.startswith(failed(peer, workload, variant))
        for (workload, variant, peer), number in last.items()
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
