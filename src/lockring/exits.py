"""Exit codes of commands and servers: from sysexits.h where it has one, and the shell's for the end of a child."""

from __future__ import annotations

import errno
from typing import Final

from lockring.errors import (
    AcquireTimeout,
    CannotListen,
    ClientClosed,
    ConfigError,
    Denied,
    DuplicateNode,
    ExtraMissing,
    InternalError,
    InvalidRequest,
    JournalError,
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
"""Base to which the signal's number is added."""

_OF_COMMANDS: Final[tuple[tuple[type[LockringError], int], ...]] = (
    (ExtraMissing, CONFIG),
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
    (CannotListen, UNAVAILABLE),
    (StoreError, CANNOT_CREATE),
    (OutputFailed, OUTPUT),
    (SystemRefused, SYSTEM),
    (InternalError, INTERNAL),
    (ClientClosed, INTERNAL),
)
"""For a command, a server of another cluster or role is as good as unreachable: the lock's state is unknown."""

_OF_SERVERS: Final[tuple[tuple[type[LockringError], int], ...]] = (
    (ConfigError, CONFIG),
    (DuplicateNode, CONFIG),
    (WrongCluster, CONFIG),
    (WrongRole, CONFIG),
    (StoreError, CANNOT_CREATE),
    (JournalError, CANNOT_CREATE),
    (Denied, DENIED),
    (InvalidRequest, USAGE),
)
"""For a server, those errors mean a wrong configuration: a supervisor need not restart it."""


def exit_code_of(error: LockringError) -> int:
    """Return the exit code of a command that failed with an error."""
    for kind, code in _OF_COMMANDS:
        if isinstance(error, kind):
            return code
    return UNAVAILABLE if error.retryable else FAILED


def exit_code_of_server(error: LockringError) -> int:
    """Return the exit code of a server that an error ended."""
    for kind, code in _OF_SERVERS:
        if isinstance(error, kind):
            return code
    return UNAVAILABLE


def exit_code_of_exec(error: OSError) -> int:
    """Return the exit code for a command that could not be started: 127 if not found, 126 if not executable."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE


def exit_code_of_child(returncode: int) -> int:
    """Return the exit code that passes on a child's: its own, or 128 plus the signal that killed it."""
    return SIGNALLED - returncode if returncode < 0 else returncode
