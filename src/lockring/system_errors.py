"""Words for a failure that the operating system reports, the same in every error message and log line.

The system's own words are taken by error number: a library may put its own text, such as asyncio's
"Connect call failed ('127.0.0.1', 9501)", in their place.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

_OF_PORTS: Final = {
    errno.EADDRINUSE: "the port is already taken by another process",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "no permission for this port",
}
"""Where the system's words leave open what to do."""


_OF_DIRECTORIES: Final = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "give it to the user of this server (chown -R)",
    errno.EPERM: "give it to the user of this server (chown -R)",
}


def reason_of(error: BaseException) -> str:
    """Return an error as a clause for people: the system's words if the system raised it, else its own."""
    if isinstance(error, OSError):
        # In their own kinds of error, libraries (of TLS, for one) put numbers that mean something else to the system.
        if type(error).__module__ != "builtins" or error.errno is None:
            return _uncapitalized(error.strerror or str(error) or type(error).__name__)
        return _uncapitalized(os.strerror(error.errno))
    return str(error) or type(error).__name__


def connect_failure(error: BaseException, timeout_s: float) -> str:
    """Return why a connection could not be opened.

    Args:
        error: raised by the attempt.
        timeout_s: how long the attempt was allowed to take.
    """
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return reason_of(error)


def listen_failure(error: OSError) -> str:
    """Return why a port could not be listened on."""
    if not isinstance(error, socket.gaierror) and error.errno in _OF_PORTS:
        return _OF_PORTS[error.errno]
    return reason_of(error)


def way_out_of(error: OSError) -> str:
    """Return what an operator can do about an error of a directory, as a clause; "" if only another one will do."""
    return _OF_DIRECTORIES.get(error.errno or 0, "")


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]
