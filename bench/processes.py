"""Processes of this machine: start and stop servers, and read the kernel's counts of them (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

_EXIT_S_MAX: Final = 10.0
_READY_S_MAX: Final = 60.0
_POLL_S: Final = 0.02


class ServerFailed(RuntimeError):
    """A server did not start; the text has the last lines of its output."""


class ServerProcess:
    """A server in a process of its own, which does not outlive this one.

    Args:
        command: the server's command.
        log: the file for its output.
        user: the user to run it as; None for the present one.
        environ: variables besides the inherited ones.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        user: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._log = log
        self._user = user
        self._environ = {**os.environ, **(environ or {})}
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._popen is not None
        return self._popen.pid

    def start(self, is_ready: Callable[[], bool]) -> None:
        """Start the server, and wait until it is ready.

        Args:
            is_ready: asks the server; may raise OSError for no.

        Raises:
            ServerFailed: it ends, or is not ready in time.
        """
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=self._log.parent,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        end_s = time.monotonic() + _READY_S_MAX
        while True:
            with contextlib.suppress(OSError):
                if is_ready():
                    return
            if self._popen.poll() is not None or time.monotonic() > end_s:
                self.stop()
                raise ServerFailed(f"{Path(self._command[0]).name} did not start:\n{self._last_lines()}")
            time.sleep(_POLL_S)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server and its children. Stopping a stopped server is harmless.

        Args:
            number: the signal for the process itself; the rest of its session is killed.
        """
        if self._popen is None:
            return
        self._popen.send_signal(number)
        try:
            self._popen.wait(_EXIT_S_MAX)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(_EXIT_S_MAX)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen = None

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def tree(pids: Iterable[int]) -> list[int]:
    """Return some processes and all their live descendants."""
    found: dict[int, None] = {}
    left = list(pids)
    while left:
        pid = left.pop()
        if pid in found:
            continue
        found[pid] = None
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                left += [int(each) for each in path.read_text().split()]
    return list(found)


def cpu_s(pids: Iterable[int]) -> float:
    """Return the processor time of the live threads of some processes and their children, in seconds.

    Exact to the nanosecond. `/proc/PID/stat` counts ticks of the clock, and misses a thread that sleeps at every tick.
    """
    return sum(thread_cpu_s(pids).values())


def thread_cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """Return the processor time of each live thread of some processes and their children, in seconds."""
    found = {}
    for pid in tree(pids):
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                found[int(path.parent.name)] = int(path.read_text().split()[0]) / 1e9
    return found


def rss_bytes(pids: Iterable[int]) -> int:
    """Return the memory in RAM of some processes and their children: private pages, and shared ones once."""
    private, shared = 0, 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            fields = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":" in line
            )
            kilobytes = {
                name: int(fields.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")
            }
            private += kilobytes["RssAnon"]
            shared = max(shared, kilobytes["RssFile"] + kilobytes["RssShmem"])
    return (private + shared) * 1024


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Restrict some processes, with all their threads and children, to these cores."""
    wanted = set(cores)
    for pid in tree(pids):
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), wanted)


def busy_share(seconds: float = 1.0) -> float:
    """Measure the used share of this machine's processor time, 0 to 1, over the coming seconds."""
    before_idle, before_all = _machine_ticks()
    time.sleep(seconds)
    after_idle, after_all = _machine_ticks()
    return 1 - (after_idle - before_idle) / max(1, after_all - before_all)


def _machine_ticks() -> tuple[int, int]:
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
