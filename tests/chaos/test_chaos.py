"""A minute of chaos comes out clean, what is wrong is noticed, and an interrupted run leaves nothing behind.

`make chaos MINUTES=10` does it for longer.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.clock import monotonic_ns
from lockring.server.local.children import child_environment
from lockring.units import NS_PER_S
from tests.chaos.history import Entered, Pen, Tail
from tests.chaos.netns import PREFIX, remove_leftovers

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="the links need network namespaces or /proc"),
]

ROOT = Path(__file__).parents[2]
BEGIN_S = 200.0
END_S = 300.0
ALONE = ("--store", "none", "--durability", "none")
"""One coordinator with a directory, and nodes that keep nothing: quick to start."""

ACQUIRABLE_S = 60.0
"""No fault of this run may keep a lock from being acquired for so long, on however slow a machine."""


class Started:
    """A run in a process of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self._output = directory / "output"
        directory.mkdir()
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos", "--directory", str(directory), *arguments],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=child_environment(),
            )

    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        end_s = time.monotonic() + BEGIN_S
        while text not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end_s, self.output()
            time.sleep(0.1)

    def end(self) -> int:
        return self.process.wait(END_S)

    def children(self) -> list[int]:
        """All processes of the run besides itself: what they print goes to files in its directory."""
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    if (path / "fd" / "1").readlink().is_relative_to(self.directory):
                        found.append(int(path.name))
        return found

    def namespaces(self) -> list[str]:
        """The network namespaces that are named for this run."""
        directory = Path("/run/netns")
        found = directory.iterdir() if directory.exists() else ()
        return [path.name for path in found if path.name.startswith(f"{PREFIX}{self.process.pid}-")]


@contextlib.contextmanager
def started(directory: Path, *arguments: str) -> Iterator[Started]:
    run = Started(directory, *arguments)
    try:
        yield run
    finally:
        run.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(60)
        run.process.kill()
        run.process.wait()


SEED = 1729
"""Its first kinds are of nodes, links, coordinators, their store and journals, and none takes long."""


def test_a_minute_of_faults_loses_nothing_and_lets_no_two_hold_a_lock(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with started(tmp_path / "run", "--minutes", "1", "--seed", str(SEED), "--json", str(report)) as run:
        code = run.end()
        assert code == 0, run.output()
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["violations"] == []
    assert found["lost"] == []
    assert sum(found["faults"].values()) >= 2
    operations = found["operations"]
    assert min(operations[each] for each in ("acquires", "releases", "probes", "writes accepted")) > 100
    assert operations["acquires shared"] > 20
    assert min(operations[each] for each in ("looks at owned keys", "writes for keys accepted")) > 100
    assert min(operations[each] for each in ("views of groups", "keys lost to others")) > 2
    for kind, measured in found["unavailable"].items():
        assert measured["max_ms"] < 1000 * ACQUIRABLE_S, kind


def test_links_by_proxy_carry_a_run_as_well(tmp_path: Path) -> None:
    kinds = "isolate a node,cut client -> node,cut node - node,cut coordinator - store"
    with started(
        tmp_path / "run",
        "--minutes",
        "0.2",
        "--seed",
        "1",
        "--links",
        "proxy",
        "--only",
        kinds,
        "--overlap",
        "0",
        "--store",
        "postgresql",
        "--durability",
        "none",
    ) as run:
        assert run.end() == 0, run.output()
        assert "links: proxy, store: postgresql" in run.output()


def test_two_who_hold_a_lock_at_once_are_reported_with_the_story_and_the_logs(tmp_path: Path) -> None:
    with started(
        tmp_path / "run", "--minutes", "5", "--seed", "1", "--only", "freeze a client shortly", *ALONE
    ) as run:
        run.wait_for("freeze the client")
        history = run.directory / "c1.history"
        held = next(
            event
            for event in Tail(history).read()
            if isinstance(event, Entered) and event.lock.startswith("held/")
        )
        now_ns = monotonic_ns()
        pen = Pen(history)
        pen.write(
            Entered(
                client="intruder", pid=1, lock=held.lock, token=held.token + 1, ttl_ns=NS_PER_S,
                asked_at_ns=now_ns, at_ns=now_ns, left_ns=NS_PER_S,
            )
        )  # fmt: skip
        pen.close()
        assert run.end() == 1, run.output()
        assert f"VIOLATION: P1 {held.lock}" in run.output()
        assert "intruder" in run.output()
        assert f"logs and histories: {run.directory}" in run.output()
        assert (run.directory / "N1.log").stat().st_size > 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name
)
def test_an_interrupted_run_leaves_no_process_and_no_network_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    setup = ("--store", "etcd", "--durability", "none", "--only", "freeze a node")
    with started(tmp_path / "run", "--minutes", "5", "--seed", "1", *setup) as run:
        run.wait_for("freeze N")
        assert len(run.children()) >= 15, "else this shows nothing"
        run.process.send_signal(number)
        code = run.end()
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
            end_s = time.monotonic() + 30
            while run.children() and time.monotonic() < end_s:
                time.sleep(0.1)
            if run.namespaces():
                remove_leftovers()  # as the next run would
        else:
            assert code == 128 + number, run.output()
        assert run.namespaces() == []
        assert run.children() == []
