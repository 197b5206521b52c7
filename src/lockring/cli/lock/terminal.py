"""Lends the terminal to a command that runs in its own process group, and takes it back."""

from __future__ import annotations

import os
import signal
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminal:
    """The terminal on standard input, if there is one and this process is in its foreground.

    Only one process group may read a terminal: the foreground one. The command gets the terminal from the start, unless
    our output goes into a pipe: then the reader of the pipe (a pager) may need it, and the command gets it when it
    first reads from it.
    """

    def __init__(self) -> None:
        self._ours = os.getpgrp()
        self._saved: list[Any] | None = None
        self._lent_to: int | None = None
        try:
            if os.isatty(0) and os.tcgetpgrp(0) == self._ours:
                self._saved = termios.tcgetattr(0)
        except (OSError, termios.error):
            self._saved = None  # the terminal is not ours to control

    @property
    def lend_at_start(self) -> bool:
        """Whether the command gets the foreground from its start."""
        return self._saved is not None and not _is_pipe(1)

    def child_started(self, group: int) -> None:
        """Record the command's process group, which has the terminal if it got it from the start."""
        if self.lend_at_start:
            self._lent_to = group

    def is_lent_to(self, group: int) -> bool:
        """Return whether the command's process group is the terminal's foreground one, even if it has ended.

        A terminal that has hung up does not answer: it counts as lent to the last group that had it.
        """
        try:
            return self._saved is not None and os.tcgetpgrp(0) == group
        except OSError:
            return self._lent_to == group

    def child_stopped(self, group: int, number: int) -> bool:
        """React to a stop of the command.

        Args:
            group: the command's process group.
            number: the signal that stopped it.

        Returns:
            Whether to continue the command: it has the terminal now. That may be much later: if it was stopped from the
            keyboard, this process stops too, until its shell continues it.
        """
        if self._saved is None:
            return False
        try:
            return self._lend_or_stop(group, number)
        except OSError:
            return True  # the command has ended meanwhile, or the terminal is gone: no reason to stay stopped

    def take_back(self, *, repair: bool) -> None:
        """Take the foreground back.

        Args:
            repair: whether to restore the terminal's modes, as after a command that was killed.
        """
        if self._saved is None:
            return
        try:
            if os.tcgetpgrp(0) == self._ours:
                return
            self._give(self._ours)
            if repair:
                with _ignored(signal.SIGTTOU):
                    termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        except (OSError, termios.error) as error:
            # The terminal is gone with its window: nothing to take back.
            print(f"lockring: the terminal could not be taken back: {error}", file=sys.stderr)

    def _lend_or_stop(self, group: int, number: int) -> bool:
        if number in (signal.SIGTTIN, signal.SIGTTOU):
            if os.tcgetpgrp(0) != self._ours:
                return False  # we are in the background ourselves
            self._give(group)
            return True
        if os.tcgetpgrp(0) != group:
            return False  # stopped by a kill, not from the keyboard
        os.killpg(self._ours, signal.SIGSTOP)  # on which our shell takes the terminal
        if os.tcgetpgrp(0) == self._ours:
            self._give(group)
        return True

    def _give(self, group: int) -> None:
        self._lent_to = group
        with _ignored(signal.SIGTTOU):
            os.tcsetpgrp(0, group)


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
