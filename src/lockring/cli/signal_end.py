"""Ends a process by a signal, so that its parent sees the signal.

When Ctrl-C is typed at a shell that runs a script, the shell waits for the current command and looks at how it
ends. If the signal ended it, the shell stops too. If it exited, with whatever code, the shell assumes that it
handled the signal, and the script goes on. So a process that a signal stops has to die of it, and must not exit
with 130.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys

from lockring import exits


class SignalEnd(int):
    """An exit code that stands for an end by a signal; see `leave`.

    Attributes:
        number: of the signal.
        group: whether to send it to the process group too: it came from the terminal, and only a command that had the
            terminal got it.
    """

    number: int
    group: bool

    def __new__(cls, number: int, *, group: bool = False) -> SignalEnd:
        """Return 128 plus the signal's number, as shells report it."""
        made = super().__new__(cls, exits.SIGNALLED + number)
        made.number, made.group = int(number), group
        return made


def leave(code: int) -> int:
    """End this process as an exit code says; returns only to pass a value to `sys.exit`."""
    if not isinstance(code, SignalEnd):
        return code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a failure to write was reported before, or cannot be
            stream.flush()
    with contextlib.suppress(ValueError, OSError):  # the limit may not be changed
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(code.number, signal.SIG_DFL)
    if code.group:
        # The terminal would have sent it to the rest of our group, had the command not been in a group of its own.
        with contextlib.suppress(PermissionError):
            os.killpg(os.getpgrp(), code.number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (code.number,))
    os.kill(os.getpid(), code.number)
    return int(code)  # as process 1 of a container it survives any signal with its default action
