"""Exit codes of commands and servers: those of sysexits.h where it has one, and the shell's for the end of a child."""

from __future__ import annotations

import errno
from typing import Final

from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    ConfigError,
    Denied,
    DuplicateNode,
    InternalError,
    InvalidRequest,
    LockLost,
    LockringError,
    NotHeld,
    OutputFailed,
    ProtocolError,
    RootMissing,
    StoreError,
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
CANNOT_CREATE: Final = 73
OUTPUT: Final = 74
NOT_ACQUIRED: Final = 75
NOT_DRAINED: Final = 75
LOST: Final = 76
DENIED: Final = 77
CONFIG: Final = 78
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128
"""Plus the signal's number."""

_OF_COMMANDS: Final[tuple[tuple[type[LockringError], int], ...]] = (
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
"""For a command, a server of another cluster or role is one that cannot be used: the lock's state is unknown."""

_OF_SERVERS: Final[tuple[tuple[type[LockringError], int], ...]] = (
    (ConfigError, CONFIG),
    (DuplicateNode, CONFIG),
    (WrongCluster, CONFIG),
    (WrongRole, CONFIG),
    (StoreError, CANNOT_CREATE),
    (InvalidRequest, USAGE),
)
"""For a server, they mean that it is set up wrongly: a supervisor need not start it again."""


def exit_code_of(error: LockringError) -> int:
    """Return the exit code by which a command tells a script what went wrong."""
    for kind, code in _OF_COMMANDS:
        if isinstance(error, kind):
            return code
    return UNAVAILABLE if error.retryable else FAILED


def exit_code_of_server(error: LockringError) -> int:
    """Return the exit code of a server that an error has ended."""
    for kind, code in _OF_SERVERS:
        if isinstance(error, kind):
            return code
    return UNAVAILABLE


def exit_code_of_exec(error: OSError) -> int:
    """The exit code for a command that could not be started: 127 if there is none, 126 if it may not be run."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE


def exit_code_of_child(returncode: int) -> int:
    """The exit code that passes a child's end on: its own, or 128 and the number of the signal that killed it."""
    return SIGNALLED - returncode if returncode < 0 else returncode
