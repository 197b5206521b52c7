"""lockring: a distributed lock service. Leases with fencing tokens, kept in memory, replicated, spread over a ring.

    with lockring.Client("127.0.0.1:9501").lock("nightly") as grant:
        ...  # grant.fencing_token goes to whatever the lock protects

For asyncio see `lockring.aio`, which has the same names.
"""

from lockring._version import __version__
from lockring.client.blocking import Client, Lock, ThreadingLock
from lockring.client.grants import Grant, Grants
from lockring.client.holding import Holding
from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    ConfigError,
    Denied,
    InternalError,
    InvalidRequest,
    LockLost,
    LockringError,
    NotHeld,
    Overloaded,
    ProtocolError,
    Unavailable,
    UnknownNode,
    WrongCluster,
)

__all__ = [
    "AcquireTimeout",
    "Client",
    "ClientClosed",
    "ConfigError",
    "Denied",
    "Grant",
    "Grants",
    "Holding",
    "InternalError",
    "InvalidRequest",
    "Lock",
    "LockLost",
    "LockringError",
    "NotHeld",
    "Overloaded",
    "ProtocolError",
    "ThreadingLock",
    "Unavailable",
    "UnknownNode",
    "WrongCluster",
    "__version__",
]
