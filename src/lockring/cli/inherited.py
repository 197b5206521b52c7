"""The inheritance of this process from its caller: the treatment of signals, and the standard streams.

A command that `lockring lock` runs gets all of it unchanged, as from `env` or `nice`. The caller may have chosen
anything, so

1. what we need for ourselves is set once, at the start, by `settle`: the system must report the ends of our children (a
   caller may ignore SIGCHLD, and then it does not), and the descriptors 0 to 2 must not become those of our own sockets
   and pipes;
2. we never catch a signal that the caller ignores: a script's background job ignores SIGINT, `nohup` SIGHUP.

Limit: Python itself ignores SIGPIPE and SIGXFSZ before any of our code runs, so it is unknown whether the caller did; a
command gets their defaults.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Final, NamedTuple

_SET_BY_PYTHON: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Inheritance(NamedTuple):
    """The state in which this process was started.

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
    """Record what was inherited, and prepare this process for its work; later calls return the first record.

    Call it in the main thread, before descriptors are opened or threads started.
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
        # The system returns the lowest free descriptor each time, so these are the closed ones.
        for _each in _settled.closed:
            os.open(os.devnull, os.O_RDWR)
    return _settled


def output_was_closed() -> bool:
    """Return whether this process was started without a standard output, so that what it prints goes nowhere."""
    return _settled is not None and 1 in _settled.closed


def caught(numbers: Iterable[int]) -> list[int]:
    """Return the signals that may be caught, which are those that are not ignored."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _closed() -> Iterable[int]:
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            yield fd
