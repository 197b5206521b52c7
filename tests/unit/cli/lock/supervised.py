"""Runs a command under a supervisor and a lock that needs no network: `supervised.py OPTIONS -- CMD …`.

The lock is renewed every time its holder looks, until the test stops that. Writes how the command ended to `--outcome`.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lockring.cli.lock.supervisor import Supervisor
from lockring.clock import monotonic_ns


class LocalGrant:
    """A lock whose end the caller decides."""

    name = "local"
    session = "local-session"

    def __init__(self, ttl_s: float, renewed_for_s: float) -> None:
        self._ttl_ns = round(ttl_s * 1e9)
        self._renewed_until_ns = monotonic_ns() + round(renewed_for_s * 1e9)
        self._lost = False
        self._callbacks: list[Callable[..., object]] = []

    def remaining(self) -> float:
        now_ns = monotonic_ns()
        deadline_ns = min(now_ns, self._renewed_until_ns) + self._ttl_ns
        return 0.0 if self._lost else max(0, deadline_ns - now_ns) / 1e9

    def on_lost(self, callback: Callable[..., object]) -> None:
        self._callbacks.append(callback)

    def lose(self) -> None:
        self._lost = True
        for callback in self._callbacks:
            callback()


def lose_when(grant: LocalGrant, path: Path) -> None:
    while not (path.exists() and path.read_text().endswith("\n")):  # its writer is done with it
        time.sleep(0.005)
    grant.lose()
    path.with_suffix(".lost").touch()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttl", type=float, default=30)
    parser.add_argument("--kill-after", type=float, default=5)
    parser.add_argument("--on-lost", default="term")
    parser.add_argument("--renewed-for", type=float, default=1e6)
    parser.add_argument(
        "--lost-when", type=Path, help="a file, to appear; then another one appears, FILE.lost"
    )
    parser.add_argument("--outcome", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with Supervisor(
        options.command, on_lost=options.on_lost, kill_after_s=options.kill_after, ttl_s=options.ttl
    ) as supervisor:
        grant = LocalGrant(options.ttl, options.renewed_for)
        if options.lost_when is not None:
            threading.Thread(target=lose_when, args=(grant, options.lost_when), daemon=True).start()
        outcome = supervisor.run([grant], {"LOCKRING_NAME": grant.name})
    being_written = options.outcome.with_suffix(".part")
    being_written.write_text(
        json.dumps(
            {
                "returncode": outcome.returncode,
                "failure": outcome.failure,
                "lost": outcome.lost,
                "left": outcome.left,
                "signals": outcome.signals,
            }
        )
    )
    being_written.rename(options.outcome)  # who sees it sees all of it
    sys.exit(0)


if __name__ == "__main__":
    main()
