"""One process of a local cluster, in any condition that a test has brought it into."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lockring.server.local.children import child_environment
from lockring.testing.network import Place

_EXIT_S_MAX: Final = 10.0


class TestedProcess:
    """One process of the cluster.

    Attributes:
        place: its place.
        command: its command line, without the place's prefix; a change takes effect at the next start.
        variables: set its settings, as the command line does.
    """

    def __init__(
        self, place: Place, command: list[str], log_path: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.place = place
        self.command = command
        self.is_frozen = False
        self.is_draining = False
        self._log_path = log_path
        self.variables = variables
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT that it listens on."""
        return self.place.listen

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def condition(self) -> str:
        """Its condition in a word, for people."""
        if self._popen is None:
            return "not started"
        code = self._popen.poll()
        if code is not None:
            return f"ended with {code}"
        return "frozen" if self.is_frozen else "running"

    def spawn(self) -> None:
        """Start the process."""
        self.is_frozen = self.is_draining = False
        with self._log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [*self.place.prefix, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(self.variables),
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is running."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        self.send(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Continue the process (SIGCONT)."""
        self.send(signal.SIGCONT)
        self.is_frozen = False

    def kill(self) -> None:
        """Kill the process, and wait until it is gone."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(_EXIT_S_MAX)
            self.is_frozen = False

    def wait(self, timeout_s: float) -> int:
        """Wait until the process has ended, and return its exit code."""
        assert self._popen is not None
        return self._popen.wait(timeout_s)

    def log(self) -> str:
        """Return everything that the process has logged."""
        return self._log_path.read_text(encoding="utf-8", errors="replace") if self._log_path.exists() else ""
