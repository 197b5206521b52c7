"""Whether the machine gave the processes the time that leases rely on.

A process that does not run for as long as a lease is, to all others, a failed process. On a busy machine that may
happen to several at once, which no replication to one backup survives. So a run notes who was kept waiting, and when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS, NS_PER_S
from tests.chaos.history import Pen, Stalled

LOOK_S: Final = 0.1
STALL_NS: Final = 300 * NS_PER_MS
"""A wait that is worth a line: it is far below every lease."""


def watch_own_stalls(process: str, pen: Pen) -> None:
    """Have a thread note when this process did not run, be it frozen or kept waiting."""

    def watch() -> None:
        before_ns = monotonic_ns()
        while True:
            time.sleep(LOOK_S)
            now_ns = monotonic_ns()
            waited_ns = now_ns - before_ns - int(LOOK_S * NS_PER_S)
            if waited_ns > STALL_NS:
                pen.write(Stalled(process=process, from_ns=before_ns, until_ns=now_ns, waited_ns=waited_ns))
            before_ns = now_ns

    threading.Thread(target=watch, name="stalls", daemon=True).start()


class StarvationWatch:
    """Looks, from outside, how long processes were ready to run and did not get a processor (Linux only).

    Args:
        pids: the processes by name, as they are at the moment; called in the watch's thread.
        pen: where stalls are noted.
    """

    def __init__(self, pids: Callable[[], dict[str, int]], pen: Pen) -> None:
        self._pids = pids
        self._pen = pen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="starvation")
        self._waited_ns: dict[tuple[str, int], int] = {}
        self._notable_from_ns: dict[tuple[str, int], tuple[int, int]] = {}

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        before_ns = monotonic_ns()
        while not self._stop.wait(LOOK_S):
            now_ns = monotonic_ns()
            for name, pid in self._pids().items():
                waited_ns = _run_delay_ns(pid)
                if waited_ns is None:
                    continue
                known_ns = self._waited_ns.get((name, pid), waited_ns)
                self._waited_ns[name, pid] = waited_ns
                self._note(name, pid, before_ns, now_ns, waited_ns - known_ns)
            before_ns = now_ns

    def _note(self, name: str, pid: int, from_ns: int, until_ns: int, waited_ns: int) -> None:
        """Add up the looks between which it waited for more than half of the time, and note it when that ends."""
        begun = self._notable_from_ns.pop((name, pid), None)
        if waited_ns * 2 > until_ns - from_ns:
            since_ns, so_far_ns = begun or (from_ns, 0)
            self._notable_from_ns[name, pid] = (since_ns, so_far_ns + waited_ns)
        elif begun is not None:
            since_ns, so_far_ns = begun
            if so_far_ns > STALL_NS:
                self._pen.write(
                    Stalled(process=name, from_ns=since_ns, until_ns=from_ns, waited_ns=so_far_ns)
                )


def _run_delay_ns(pid: int) -> int | None:
    """How long the main thread of a process has waited for a processor so far; None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return None
