"""lockring: a distributed lock service. Leases with fencing tokens, kept in memory, replicated, spread over a ring.

    with lockring.Client("127.0.0.1:9501") as client, client.lock("nightly") as grant:
        ...  # grant.fencing_token goes to whatever the lock protects

For asyncio see `lockring.aio`, which has the same names.
"""

from typing import TYPE_CHECKING, Any

from lockring._version import __version__
from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    ConfigError,
    Denied,
    InternalError,
    InvalidRequest,
    LastNode,
    LockLost,
    LockringError,
    NotHeld,
    Overloaded,
    ProtocolError,
    ReentrantCall,
    Unavailable,
    UnknownNode,
    WrongCluster,
)

if TYPE_CHECKING:
    from lockring.client.blocking import Client
    from lockring.client.grants import Grant, Grants
    from lockring.client.groups import Group, Membership
    from lockring.client.holding import Holding
    from lockring.client.locks import Lock, RWLock, ThreadingLock
    from lockring.client.membership import GroupInfo, GroupSummary, KeySet
    from lockring.client.watching import WatchEvent, WatchUpdate

__all__ = [
    "AcquireTimeout",
    "Client",
    "ClientClosed",
    "ConfigError",
    "Denied",
    "Grant",
    "Grants",
    "Group",
    "GroupInfo",
    "GroupSummary",
    "Holding",
    "InternalError",
    "InvalidRequest",
    "KeySet",
    "LastNode",
    "Lock",
    "LockLost",
    "LockringError",
    "Membership",
    "NotHeld",
    "Overloaded",
    "ProtocolError",
    "RWLock",
    "ReentrantCall",
    "ThreadingLock",
    "Unavailable",
    "UnknownNode",
    "WatchEvent",
    "WatchUpdate",
    "WrongCluster",
    "__version__",
]

_HOMES = {
    "Client": "lockring.client.blocking",
    "Grant": "lockring.client.grants",
    "Grants": "lockring.client.grants",
    "Group": "lockring.client.groups",
    "GroupInfo": "lockring.client.membership",
    "GroupSummary": "lockring.client.membership",
    "Holding": "lockring.client.holding",
    "KeySet": "lockring.client.membership",
    "Lock": "lockring.client.locks",
    "Membership": "lockring.client.groups",
    "RWLock": "lockring.client.locks",
    "ThreadingLock": "lockring.client.locks",
    "WatchEvent": "lockring.client.watching",
    "WatchUpdate": "lockring.client.watching",
}


def __getattr__(name: str) -> Any:
    """Import the client when it is first asked for: the command and the servers start without it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lockring' has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found
