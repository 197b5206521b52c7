"""Several workers over one tree with a random writer, one killed and one joining on the way: what must hold afterwards.

Every folder that stayed empty is gone; no file that was written is. No folder was removed within the delay after a
change, and none was removed twice. Each was removed by the member that owned it in the view whose number the log names.
"""

from __future__ import annotations

import bisect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import lockring
from lockring.apps.cleaner.ownership import owner_key
from tests.cleaner.tree import BucketTree, LocalTree, Tree, Writer, leaves

GROUP = "drill"
TICK_NS = 10_000_000
"""How exactly a file system notes when a folder was changed."""


class Failed(AssertionError):
    """A property that the drill checks does not hold."""


class Deletion(msgspec.Struct, frozen=True):
    """One line of a worker's log."""

    folder: str
    worker: str
    fence: int
    monotonic_ns: int


class CleanerProcess:
    """A worker in a process of its own, and what it has logged."""

    def __init__(
        self, name: str, roots: list[str], options: list[str], directory: Path, environ: dict[str, str]
    ) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        self._report = directory / f"{name}.json"
        command = [
            sys.executable,
            "-m",
            "lockring",
            "clean-folders",
            *roots,
            "--worker",
            name,
            "--json",
            "-v",
            *options,
        ]
        with self._log.open("w") as log, self._report.open("w") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=log, env=os.environ | environ)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def end(self) -> dict[str, Any]:
        """End it by SIGTERM; returns its report on its only root."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        if code:
            raise Failed(f"{self.name} ended with {code}:\n{self._log.read_text()[-3000:]}")
        report: dict[str, Any] = json.loads(self._report.read_text())["roots"][0]
        return report

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines of its log."""
        return [
            json.loads(line)
            for line in self._log.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    def deletions(self) -> list[Deletion]:
        """Return the removals in its log."""
        return [
            msgspec.convert({name: line[name] for name in Deletion.__struct_fields__}, Deletion)
            for line in self.lines()
            if line.get("event") == "deleted"
        ]


class Views(threading.Thread):
    """Collects every view that the group ever has, to say who owned what by which."""

    def __init__(self, client: lockring.Client) -> None:
        super().__init__(name="views", daemon=True)
        self._group = client.group(GROUP)
        self._stopped = threading.Event()
        self.by_version: dict[int, Any] = {}

    def run(self) -> None:
        """Ask again and again."""
        while not self._stopped.wait(0.02):
            try:
                view = self._group.describe(timeout=1)
            except lockring.LockringError:
                continue
            self.by_version.setdefault(view.version, view)

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self.join()


class Result(msgspec.Struct, frozen=True):
    """The figures of a drill."""

    folders: int
    deleted: int
    unconfirmed: int
    written: int
    refused: int
    stays: int
    views: int
    restored: int
    seconds: float
    by_worker: dict[str, int]


def drill(
    tree: Tree,
    servers: str,
    directory: Path,
    *,
    count: int,
    delay_s: float,
    scan_interval_s: float,
    pause_s: float,
    patience_s: float,
    seed: int = 1,
    environ: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Run it; see the module.

    Args:
        tree: empty.
        servers: of a cluster.
        directory: for logs.
        count: how many folders.
        delay_s: that a folder must stay empty.
        scan_interval_s: between scans.
        pause_s: between two writes.
        patience_s: bound of the whole.
        seed: of the writer.
        environ: more variables for the workers.
        options: more options for the workers.
        say: hears how far it is.

    Raises:
        Failed: something that must hold does not.
    """
    began_s = time.monotonic()
    everything = leaves(count)
    # One half is never touched again, a tenth is filled from the start, the rest is the writer's.
    empty, filled, written = (
        everything[: count // 2],
        everything[count // 2 : count * 6 // 10],
        everything[count * 6 // 10 :],
    )
    tree.make(everything, filled)
    say(f"{count} folders made in {time.monotonic() - began_s:.0f} s")
    arguments = [
        "--server", servers, "--group", GROUP, "--delay", str(delay_s), "--scan-interval", str(scan_interval_s), *options,
    ]  # fmt: skip

    def worker(number: int) -> CleanerProcess:
        root: str = tree.root  # type: ignore[attr-defined]
        return CleanerProcess(f"w{number}", [root], arguments, directory, environ or {})

    workers: list[CleanerProcess] = []
    writer = Writer(tree, written, seed=seed, pause_s=pause_s)
    with lockring.Client(servers) as client:
        views = Views(client)
        views.start()
        try:
            writer.start()
            workers += [worker(number) for number in (1, 2, 3)]

            def removed() -> int:
                return sum(len(each.deletions()) for each in workers)

            def wait(condition: Callable[[], bool], what: str) -> None:
                while not condition():
                    alive = all(each.is_running for each in workers if each is not killed)
                    if not alive or time.monotonic() - began_s > patience_s:
                        raise Failed(
                            f"{what} did not happen\n" + "\n".join(str(each.lines()[-3:]) for each in workers)
                        )
                    time.sleep(0.2)

            killed: CleanerProcess | None = None
            wait(lambda: removed() > count // 10, "the first tenth of the removals")
            workers[1].kill()
            killed = workers[1]
            say(f"w2 killed after {removed()} removals, {time.monotonic() - began_s:.0f} s")
            wait(lambda: removed() > count // 4, "the first quarter of the removals")
            workers.append(worker(4))
            say(f"w4 joins after {removed()} removals, {time.monotonic() - began_s:.0f} s")
            wait(lambda: not tree.folders() & set(empty), "the removal of all that stayed empty")
            writer.stop()
            say(f"all that stayed empty is gone, {time.monotonic() - began_s:.0f} s; the writer is stopped")
            keeping = {file.rpartition("/")[0] for file in writer.stays} | set(filled)
            wait(lambda: not tree.folders() & set(written) - keeping, "the removal of what became empty")
            middles = {folder.rpartition("/")[0] for folder in everything} - {
                each.rpartition("/")[0] for each in keeping
            }
            wait(lambda: not tree.folders() & middles, "the removal of emptied parents")
            reports = [each.end() for each in workers if each is not killed]
        finally:
            for each in workers:
                each.kill()
            views.stop()
            writer.stop()
    deletions = [each for process in workers for each in process.deletions()]
    _check_files(tree, writer, filled)
    _check_times(deletions, writer, delay_s, is_exact=isinstance(tree, LocalTree))
    _check_once(deletions)
    _check_owners(deletions, views)
    gone = set(everything) | {each.rpartition("/")[0] for each in everything}
    return Result(
        folders=count,
        deleted=len(deletions),
        unconfirmed=len(gone - tree.folders()) - len(deletions),
        written=writer.written,
        refused=writer.refused,
        stays=len(writer.stays),
        views=len({each.fence for each in deletions}),
        restored=sum(each["restored"] for each in reports),
        seconds=round(time.monotonic() - began_s, 1),
        by_worker=dict(sorted(Counter(each.worker for each in deletions).items())),
    )


def _check_files(tree: Tree, writer: Writer, filled: list[str]) -> None:
    missing = (writer.stays | {f"{folder}/first" for folder in filled}) - tree.files()
    if missing:
        raise Failed(f"{len(missing)} files are lost, such as {min(missing)}")


def _check_times(deletions: list[Deletion], writer: Writer, delay_s: float, *, is_exact: bool) -> None:
    """Check that no folder was removed within the delay after a change; on a bucket, after a write that stayed."""
    for each in deletions:
        changes = writer.changes.get(each.folder, [])
        before = changes[: bisect.bisect_left(changes, each.monotonic_ns)]
        since_ns = each.monotonic_ns - before[-1] if before else None
        # A write that was refused, since the folder was gone, is not a change. It comes last if it came right before
        # the line of the log.
        if is_exact and since_ns is not None and since_ns < delay_s * 1e9 - TICK_NS:
            if not writer.was_refused(each.folder, before[-1]):
                raise Failed(f"{each.folder} was removed {since_ns / 1e9:.3f} s after it was changed: {each}")


def _check_once(deletions: list[Deletion]) -> None:
    twice = [folder for folder, times in Counter(each.folder for each in deletions).items() if times > 1]
    if twice:
        raise Failed(f"removed twice: {[each for each in deletions if each.folder in twice][:6]}")


def _check_owners(deletions: list[Deletion], views: Views) -> None:
    for each in deletions:
        view = views.by_version.get(each.fence)
        if view is None:
            raise Failed(f"{each} has a number that the group never had: {sorted(views.by_version)}")
        if view.owner(owner_key(each.folder)) != each.worker:
            raise Failed(f"{each} was not by its owner, {view.owner(owner_key(each.folder))}")


__all__ = ["BucketTree", "Failed", "LocalTree", "Result", "drill"]
