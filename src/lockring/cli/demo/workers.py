"""The demo's workers as their supervisor sees them: what they have said, and what may be done to them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, NamedTuple

from lockring.server.local.children import child_environment

_POLL_S: Final = 0.02
_END_S: Final = 10.0


class DemoFailed(RuntimeError):
    """Something did not happen in time; the text says what."""


class Word(NamedTuple):
    """Something that a worker has said.

    Attributes:
        worker: its name.
        what: "starts", "asks", "holds", "writes", "refused" (by the ledger), "releases", "lost" or "unavailable".
        token: the fencing token that it is about, 0 for none.
        at_ns: when, on the monotonic clock, which all processes of a machine share.
        reason: the error's text, "" for none.
    """

    worker: str
    what: str
    token: int
    at_ns: int
    reason: str = ""


class Workers:
    """Some workers. As a context manager it ends them. To be used in one thread.

    Args:
        servers: the addresses of nodes.
        names: of the workers.
        ledger: the path of the ledger's file.
    """

    def __init__(self, servers: str, names: list[str], ledger: Path) -> None:
        self._words: list[Word] = []
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        for name in names:
            process = subprocess.Popen(
                [sys.executable, "-m", "lockring.cli.demo.worker", servers, name, str(ledger)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # Ctrl-C is for the demo, which ends them. However that ends, also a frozen one ends with it.
                start_new_session=True,
                env=child_environment(),  # of the caller's settings, none may reach them
            )
            assert process.stdout is not None
            self._processes[name] = process
            reader = threading.Thread(target=self._read, args=(name, process.stdout), daemon=True)
            reader.start()
            self._readers.append(reader)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let all of them end, and kill those that do not."""
        for process in self._processes.values():
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
            process.send_signal(signal.SIGCONT)
        for process in self._processes.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process, reader in zip(self._processes.values(), self._readers, strict=True):
            reader.join(_END_S)
            if process.stdout is not None and not reader.is_alive():
                process.stdout.close()

    # ----------------------------------------------------------------------- what they say

    @property
    def words(self) -> tuple[Word, ...]:
        """All that they have said so far, in the order in which it was read."""
        return tuple(self._words)

    def since(self, number: int, what: str) -> list[Word]:
        """Return the words of one kind behind the first so many of all."""
        return [word for word in self._words[number:] if word.what == what]

    def wait(self, what: str, for_it: Callable[[], object], timeout_s: float) -> None:
        """Wait until something is true.

        Raises:
            DemoFailed: it is not in time, or a worker has ended meanwhile.
        """
        end_s = time.monotonic() + timeout_s
        while not for_it():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise DemoFailed(
                        f"the worker {name} has ended with exit code {process.returncode} before this: {what}"
                    )
            if time.monotonic() > end_s:
                raise DemoFailed(f"not within {timeout_s:g} s: {what}")
            time.sleep(_POLL_S)

    # ----------------------------------------------------------------------- what is done to them

    def freeze(self, name: str) -> None:
        """Stop a worker in the middle of its work, as a machine does that swaps or whose virtual machine moves."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen worker go on."""
        self._processes[name].send_signal(signal.SIGCONT)

    def _read(self, name: str, lines: IO[str]) -> None:
        for line in lines:
            self._words.append(Word(name, **json.loads(line)))
