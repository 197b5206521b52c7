"""What the caller of this process handed to it: how signals are treated, and which standard streams there are.

A command that `lockring lock` runs gets all of it as it was, as from `env` or `nice`. Whoever runs us may have chosen anything, so

1. what we need for ourselves is set once, at the start, by `settle`: the ends of our children must be told (a caller may ignore
   SIGCHLD, on which they are not), and the descriptors 0 to 2 must not become those of our own sockets and pipes;
2. a signal that the caller ignores is never caught by us: a background job of a script ignores SIGINT, `nohup` SIGHUP.

Limit: Python itself ignores SIGPIPE and SIGXFSZ before any of our code runs, so whether the caller did cannot be told; a command
has the default for them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Final, NamedTuple

_SET_BY_PYTHON: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Inheritance(NamedTuple):
    """How this process was started.

    Attributes:
        ignored: signals that were ignored.
        mask: signals that were blocked.
        closed: the standard descriptors (0, 1, 2) that were closed.
    """

    ignored: frozenset[int]
    mask: frozenset[int]
    closed: tuple[int, ...]


_settled: Inheritance | None = None


def settle() -> Inheritance:
    """Note what was inherited, and make this process able to work; from the second call on, only say what was noted.

    To be called by the main thread, before descriptors are opened or threads started.
    """
    global _settled
    if _settled is None:
        _settled = Inheritance(
            frozenset(
                number
                for number in signal.valid_signals() - _SET_BY_PYTHON
                if signal.getsignal(number) is signal.SIG_IGN
            ),
            frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            tuple(_closed()),
        )
        if signal.SIGCHLD in _settled.ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The lowest free descriptor is taken each time, so these are the closed ones.
        for _each in _settled.closed:
            os.open(os.devnull, os.O_RDWR)
    return _settled


def caught(numbers: Iterable[int]) -> list[int]:
    """Those of the signals that may be caught: the ones that are not ignored."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _closed() -> Iterable[int]:
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            yield fd
