"""Ending by a signal, so that whoever started this process sees it.

A shell that runs a script, and is told to stop by Ctrl-C, waits for the command under way and looks at how it ends: if the signal ended it,
the shell stops too; if it exited, with whatever code, the command is taken to have handled the signal, and the script goes on. So a process
that a signal stops has to die of it, and must not exit with 130.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys

from lockring import exits


class SignalEnd(int):
    """An exit code that stands for the end by a signal; see `leave`.

    Attributes:
        number: of the signal.
        group: whether the process group is sent it too: it came from the terminal, to the group of a command that had been lent it.
    """

    number: int
    group: bool

    def __new__(cls, number: int, *, group: bool = False) -> SignalEnd:
        """128 and the number, as shells say it."""
        made = super().__new__(cls, exits.SIGNALLED + number)
        made.number, made.group = int(number), group
        return made


def leave(code: int) -> int:
    """End this process as an exit code says; returns only what `sys.exit` is to be given."""
    if not isinstance(code, SignalEnd):
        return code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # that it cannot be written has been told, or cannot be
            stream.flush()
    with contextlib.suppress(ValueError, OSError):  # a limit that may not be changed
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(code.number, signal.SIG_DFL)
    if code.group:
        # The others of our group would have had it from the terminal, had the command not been in a group of its own.
        with contextlib.suppress(PermissionError):
            os.killpg(os.getpgrp(), code.number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (code.number,))
    os.kill(os.getpid(), code.number)
    return int(code)  # process 1 of a container dies of no signal that has its default effect
