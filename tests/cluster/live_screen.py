"""A command on a terminal of its own, and the screen that it shows there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.processes import PATIENCE_S

_PARTS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b]+)|\x1b")
_PLAIN = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COLUMNS", "LINES")


class LiveScreen:
    """A terminal with a process in its foreground.

    Args:
        command: the words of the process.
        environ: more variables.
        size: columns and lines.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], size: tuple[int, int]) -> None:
        variables = {name: value for name, value in os.environ.items() if name not in _PLAIN}
        variables |= {"TERM": "xterm-256color", "PYTHONUTF8": "1", **environ}
        self.sent = ""
        self.code: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # the child of a fork with threads only calls exec
            self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            os.execvpe(command[0], list(command), variables)

    # ------------------------------------------------------------------ what is done to it

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, on which the system signals the process."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def hang_up(self) -> None:
        os.close(self.terminal)
        self.terminal = -1

    # ------------------------------------------------------------------ what is seen of it

    @property
    def rows(self) -> list[str]:
        """The text of the rows that were written since the screen was last cleared."""
        rows: dict[int, str] = {}
        row = 0
        for numbers, letter, text in _PARTS.findall(self.sent):
            if text:
                rows[row] = rows.get(row, "") + text
            elif letter == "H":
                row = int(numbers.partition(";")[0] or 1)
                rows[row] = ""
            elif letter == "J":
                rows = {} if numbers == "2" else {each: rows[each] for each in rows if each <= row}
        return [rows[each].rstrip() for each in sorted(rows)]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def is_taken(self) -> bool:
        """Whether the other screen of the terminal is shown, or the cursor hidden."""
        shown = self.sent.rfind("\x1b[?1049h") > self.sent.rfind("\x1b[?1049l")
        return shown or self.sent.rfind("\x1b[?25l") > self.sent.rfind("\x1b[?25h")

    @property
    def is_raw(self) -> bool:
        """Whether keys are read one by one."""
        return not termios.tcgetattr(self.terminal)[3] & termios.ICANON

    def sees(self, *texts: str, without: str = "\0") -> None:
        """Wait until the screen has all of these texts, and one of them no more."""
        end_s = time.monotonic() + PATIENCE_S
        while not all(each in self.text for each in texts) or without in self.text:
            left_s = end_s - time.monotonic()
            wanted = f"{texts!r} without {without!r}" if without != "\0" else f"{texts!r}"
            assert left_s > 0, f"{wanted} is not on the screen:\n{self.text}"
            assert self.reads(left_s), f"the terminal was closed; {wanted} is not on the screen:\n{self.text}"

    def reads(self, wait_s: float) -> bool:
        """Take in what the process writes, and return whether the terminal is still open."""
        if not select.select([self.terminal], [], [], wait_s)[0]:
            return True
        try:
            data = os.read(self.terminal, 65_536)
        except OSError:  # the last process has closed it
            return False
        self.sent += data.decode(errors="replace")
        return bool(data)

    def ends(self) -> int:
        """Wait for the end of the process, and return how it ended: minus the signal's number, or its exit code."""
        end_s = time.monotonic() + PATIENCE_S
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < end_s, f"has not ended:\n{self.text}"
            if self.terminal >= 0:
                self.reads(0.02)
            elif self.code is None:
                time.sleep(0.02)
        while self.terminal >= 0 and self.reads(0.0) and select.select([self.terminal], [], [], 0.0)[0]:
            pass
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.terminal >= 0:
            os.close(self.terminal)


@contextmanager
def live_screen(
    *arguments: str, servers: str = "", size: tuple[int, int] = (100, 30), shell: str = "", **environ: str
) -> Iterator[LiveScreen]:
    """A terminal with `lockring` and these arguments, which is closed at the end.

    Args:
        arguments: of `lockring`.
        servers: the cluster's.
        size: columns and lines.
        shell: a script for bash instead, in which LOCKRING stands for the command.
        environ: more variables.
    """
    command = [sys.executable, "-m", "lockring", *arguments]
    if shell:
        command = ["bash", "--norc", "-c", shell.replace("LOCKRING", f"{sys.executable} -m lockring")]
    screen = LiveScreen(command, {"LOCKRING_SERVER": servers, **environ}, size)
    try:
        yield screen
    finally:
        screen.close()
