"""Single processes of lockring, and what they print."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lockring.server.local.children import child_environment
from tests.processes import PATIENCE_S, eventually


class Running:
    """A process of a test, with what it has printed so far.

    Args:
        arguments: of `lockring`.
        within: a command that starts the command given to it.
    """

    def __init__(self, *arguments: str, within: Sequence[str] = ()) -> None:
        self.popen = subprocess.Popen(
            [*within, sys.executable, "-m", "lockring", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            start_new_session=True,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        try:
            code = self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended within {PATIENCE_S:g} s; it said\n{self.text}") from None
        self._reader.join(PATIENCE_S)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return code

    def wait_for(self, text: str) -> None:
        """Wait until it has printed this."""
        eventually(lambda: text in self.text, lambda: f"{text!r} in:\n{self.text}")


@contextmanager
def running(*arguments: str, within: Sequence[str] = ()) -> Iterator[Running]:
    """A process that is ended at the end."""
    process = Running(*arguments, within=within)
    try:
        yield process
    finally:
        process.popen.kill()
        process.wait()
