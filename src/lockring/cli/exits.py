"""Exit codes: those of sysexits.h where it has one, and the shell's for what becomes of a command."""

from __future__ import annotations

import errno
from typing import Final

from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    Denied,
    InternalError,
    InvalidRequest,
    LockLost,
    LockringError,
    NotHeld,
    OutputFailed,
    ProtocolError,
    RootMissing,
    SystemRefused,
    Unavailable,
    UnknownNode,
    WrongCluster,
    WrongRole,
)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 64
NO_INPUT: Final = 66
UNAVAILABLE: Final = 69
INTERNAL: Final = 70
SYSTEM: Final = 71
OUTPUT: Final = 74
NOT_ACQUIRED: Final = 75
LOST: Final = 76
DENIED: Final = 77
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128
"""Plus the signal's number."""

_BY_ERROR: Final[tuple[tuple[type[LockringError], int], ...]] = (
    (InvalidRequest, USAGE),
    (RootMissing, NO_INPUT),
    (UnknownNode, FAILED),
    (NotHeld, FAILED),
    (AcquireTimeout, NOT_ACQUIRED),
    (LockLost, LOST),
    (Denied, DENIED),
    (ProtocolError, UNAVAILABLE),
    (WrongCluster, UNAVAILABLE),
    (WrongRole, UNAVAILABLE),
    (Unavailable, UNAVAILABLE),
    (OutputFailed, OUTPUT),
    (SystemRefused, SYSTEM),
    (InternalError, INTERNAL),
    (ClientClosed, INTERNAL),
)


def exit_code_of(error: LockringError) -> int:
    """The exit code that tells a script what went wrong."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return UNAVAILABLE if error.retryable else FAILED


def exit_code_of_exec(error: OSError) -> int:
    """The exit code for a command that could not be started: 127 if there is none, 126 if it may not be run."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE


def exit_code_of_child(returncode: int) -> int:
    """The exit code that passes a child's end on: its own, or 128 and the number of the signal that killed it."""
    return SIGNALLED - returncode if returncode < 0 else returncode
