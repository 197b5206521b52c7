"""The output of `lockring clean-folders`: progress on a terminal, events, and the report."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockring.apps.cleaner.storage import Storage
from lockring.cli.layout import Column
from lockring.cli.output import count, print_json, print_table, report
from lockring.clock import monotonic_ns
from lockring.errors import LockringError
from lockring.terminals import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from lockring.apps.cleaner.core.tally import Tally
    from lockring.apps.cleaner.worker import Worker


class CleanReporter:
    """Reports the workers' actions on standard error. Thread-safe."""

    def __init__(self, *, as_json: bool, is_verbose: bool) -> None:
        self._as_json = as_json
        self._is_verbose = is_verbose
        self._lock = threading.Lock()

    def deleted(self, storage: Storage, folder: str, fence: int, worker: str) -> None:
        """Report a removed folder."""
        if not self._is_verbose:
            return
        facts = {
            "event": "deleted",
            "root": storage.name,
            "folder": folder,
            "worker": worker,
            "fence": fence,
            "monotonic_ns": monotonic_ns(),
        }
        self.note(f"removed {storage.name.rstrip('/')}/{folder}", facts)

    def trouble(self, storage: Storage, error: LockringError) -> None:
        """Report a failure after which the worker goes on."""
        with self._lock:
            report(error, self._as_json)

    def note(self, text: str, facts: dict[str, Any]) -> None:
        """Report an event of interest to the operator."""
        line = json.dumps(facts) if self._as_json else f"lockring: {shown(text)}"
        with self._lock:
            print(line, file=sys.stderr, flush=True)


class CleanProgress:
    """A line on the terminal with the workers' progress; nothing if standard error is not a terminal.

    Args:
        workers: the workers.
        is_wanted: whether to show it if there is a terminal.
    """

    def __init__(self, workers: Sequence[Worker], *, is_wanted: bool) -> None:
        self._workers = workers
        self._progress: Progress | None = None
        if is_wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[counts]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._tasks = [
                self._progress.add_task(shown(each.storage.name), counts="", total=None) for each in workers
            ]

    def __enter__(self) -> CleanProgress:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self) -> None:
        """Show the newest counts."""
        if self._progress is None:
            return
        for task, worker in zip(self._tasks, self._workers, strict=True):
            tally, waiting = worker.core.tally, worker.core.waiting
            seen = tally.scanned if worker.is_scanning else tally.seen
            what = "scanning" if worker.is_scanning else "waiting"
            counts = f"{what}: {count(seen, 'folder')} seen, {waiting} to go, {tally.deleted} removed"
            # The number of folders is known from the scan before.
            total = max(tally.seen, seen) if tally.scans else None
            self._progress.update(task, total=total, completed=seen, counts=counts)


def facts_of(storage: Storage, tally: Tally, *, waiting: int, dropped: int, dry_run: bool) -> dict[str, Any]:
    """Return the report on one root, as a JSON object."""
    return {
        "root": storage.name,
        "seen": tally.seen or tally.scanned,
        "would_delete" if dry_run else "deleted": tally.deleted,
        "kept": tally.kept,
        "waiting": waiting,
        "dropped": dropped,
        "restarted": tally.restarted,
        "restored": storage.restored,
        "scans": tally.scans,
        "events": tally.events,
        "events_lost": tally.lost,
    }


def print_report(reports: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print the reports on all roots: a table, or one JSON object."""
    if as_json:
        print_json({"roots": list(reports)})
        return
    words = {"would_delete": "would be removed", "deleted": "removed", "events_lost": "events lost"}
    hidden_if_none = {"waiting", "dropped", "restarted", "restored", "events", "events_lost"}
    rows: list[tuple[str, str, int]] = []
    for facts in reports:
        root = facts["root"]
        for name, value in facts.items():
            if name == "kept":
                rows += [(root, f"kept: {reason}", number) for reason, number in value.items()]
            elif name != "root" and (value or name not in hidden_if_none):
                rows.append((root, words.get(name, name), value))
    print_table((Column("ROOT", least=8), Column("WHAT"), Column("NUMBER", True)), rows)
