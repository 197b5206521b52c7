"""`lockring demo`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from lockring.cli.demo.ledger import Ledger
from lockring.cli.demo.narrator import Narrator
from lockring.cli.demo.scenes import SCENES, Stage, conclude
from lockring.cli.demo.workers import DemoFailed, Workers
from lockring.cli.options import setting_options
from lockring.cli.sections import read_settings
from lockring.config import setting
from lockring.errors import InternalError
from lockring.testing import ClusterFailed, LocalCluster

_WORKERS = ("alice", "bob", "carol", "dave")


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring demo`."""

    pace_s: Annotated[
        float,
        setting(
            "Time to read at each step; 0 for none.",
            unit="seconds",
            minimum=0,
            maximum=60,
            variable=False,
            file=False,
        ),
    ] = 3.0


@click.command()
@setting_options(DemoSettings)
def demo(**given: Any) -> None:
    """Show in two minutes what happens to a lock when machines fail.

    Starts a cluster of three nodes on this machine, lets four workers compete for a lock, and then kills, freezes and
    drains what they depend on. Everything is real, and everything is gone afterwards.
    """
    settings = read_settings(DemoSettings, "demo", given)
    narrator = Narrator(settings.pace_s)
    try:
        with tempfile.TemporaryDirectory(prefix="lockring-demo-") as directory:
            _run(narrator, Path(directory))
    except (DemoFailed, ClusterFailed) as error:
        raise InternalError(f"the demo has failed, please report it: {error}") from error


def _run(narrator: Narrator, directory: Path) -> None:
    narrator.scene(
        "A cluster: a coordinator and three nodes",
        "Locks live in the nodes' memory, each on a primary and a copy, spread by a ring.",
    )
    servers = directory / "cluster"
    servers.mkdir()
    # Not as a context manager, which shows the servers' logs after any error, such as the end of a pipe.
    with contextlib.closing(LocalCluster(nodes=3, log_level="warning", directory=servers)) as cluster:
        cluster.start()
        narrator.happens(f"it serves, at {cluster.servers}")
        ledger = directory / "ledger"
        with Workers(cluster.servers, list(_WORKERS), ledger) as workers:
            stage = Stage(cluster, workers, Ledger(ledger), narrator, [])
            try:
                for scene in SCENES:
                    scene(stage)
                workers.end()
                conclude(stage)
            except DemoFailed:
                print(cluster.logs(), file=sys.stderr)
                raise
    narrator.aside(
        "Next: lockring up, and lockring lock NAME -- COMMAND. The README has both Python clients."
    )
