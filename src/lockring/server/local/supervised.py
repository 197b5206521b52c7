"""One supervised child process: its lines carry its name, and it is restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from lockring import exits
from lockring.log_events import event
from lockring.server.local.children import child_environment

_PAUSE_S_MIN: Final = 0.5
_PAUSE_S_MAX: Final = 10.0
_HEALTHY_S: Final = 30.0
EXIT_NOT_STARTED: Final = -1_000
"""Stands for the exit code of a process that could not be started: neither a code nor a signal."""
_LINE_BYTES_MAX: Final = 1024 * 1024
_HOPELESS: Final = frozenset({exits.USAGE, exits.CANNOT_CREATE, exits.CONFIG})
"""Exit codes of a child that would end the same way after a restart."""

_RESET: Final = "\033[0m"

log = logging.getLogger("lockring.up")


class LinePrinter:
    """Prints the lines of several processes, each under its name, or as they are.

    Args:
        names: all of them, for the width.
        stream: the stream to print to.
        in_colour: whether the names are coloured.
        is_json: whether the lines are JSON: then each stays as it is, and has the name in it.
    """

    _COLOURS: Final = ("\033[36m", "\033[32m", "\033[33m", "\033[35m", "\033[34m", "\033[31m")

    def __init__(
        self,
        names: Sequence[str],
        *,
        stream: TextIO = sys.stderr,
        in_colour: bool = False,
        is_json: bool = False,
    ) -> None:
        if is_json:
            self._prefixes = dict.fromkeys(names, "")
            self._stream = stream
            return
        width = max(map(len, names))
        self._stream = stream
        self._prefixes = {}
        for place, name in enumerate(names):
            prefix = f"{name:>{width}} │ "
            if in_colour:
                prefix = f"{self._COLOURS[place % len(self._COLOURS)]}{prefix}{_RESET}"
            self._prefixes[name] = prefix

    def print(self, name: str, line: str) -> None:
        """Print one line of a process."""
        print(f"{self._prefixes[name]}{line}", file=self._stream, flush=True)


class SupervisedChild:
    """A child process that is restarted, with growing pauses, when it ends by itself. Lives in one event loop.

    Args:
        name: its name.
        command: its command line.
        printer: prints its lines.
        on_hopeless: called with its exit code when a restart would end the same way.
        variables: of its environment, that set what its command line must not show.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        printer: LinePrinter,
        on_hopeless: Callable[[str, int], None],
        *,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._printer = printer
        self._on_hopeless = on_hopeless
        self._variables = variables
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Start the child, and supervise it from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def tell(self, number: signal.Signals) -> None:
        """Send the child a signal, and do not restart it when it ends."""
        self._is_stopping = True
        if self._process is None and self._task is not None:
            self._task.cancel()  # it is down: cancel the pause before its restart
        elif self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def notify(self, number: signal.Signals) -> None:
        """Send the child a signal that does not end it. Nothing is sent while it is down, before its restart."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self, *, timeout_s: float) -> None:
        """Wait until the child is gone for good; kill it if that takes too long."""
        if self._task is None:
            return
        _, late = await asyncio.wait([self._task], timeout=timeout_s)
        if late:
            self.tell(signal.SIGKILL)
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = _PAUSE_S_MIN
        while True:
            started_s = loop.time()
            try:
                code = await self._run_once()
                how = _how(code)
            except OSError as error:
                code, how = EXIT_NOT_STARTED, f"cannot be started: {error}"
            if self._is_stopping:
                return
            if code == exits.OK:
                log.info(
                    "%s has ended as requested", self.name, extra=event("process-ended", process=self.name)
                )
                return
            if code in _HOPELESS:
                self._on_hopeless(self.name, code)
                return
            if loop.time() - started_s >= _HEALTHY_S:
                pause_s = _PAUSE_S_MIN
            log.warning(
                "%s %s; restarting it in %g s",
                self.name,
                how,
                pause_s,
                extra=event("process-restarts", process=self.name),
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)

    async def _run_once(self) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=child_environment(self._variables),
            limit=_LINE_BYTES_MAX,
            start_new_session=True,  # the supervisor decides what to do with Ctrl-C in the terminal
        )
        assert process.stdout is not None
        if self._is_stopping:
            process.terminate()
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any line of ours: drop it and read the next one
                continue
            if not line:
                break
            with contextlib.suppress(
                OSError
            ):  # the reader has gone; the child needs supervision all the same
                self._printer.print(self.name, line.decode(errors="replace").rstrip("\n"))
        code = await process.wait()
        self._process = None
        return code


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
