"""lockring: a distributed lock service. Leases with fencing tokens, held in memory and replicated to a second node.

    import lockring

    with lockring.Client("127.0.0.1:9501") as client, client.lock("nightly") as grant:
        ...  # pass grant.fencing_token to the resource that the lock protects

Start here; `help(lockring.Client)` lists the calls:

    Client             a client of a cluster, for any number of threads
    aio.Client         the same for asyncio
    Lock, RWLock       from `client.lock` and `client.rwlock`: `with`, `acquire`, `try_acquire`, `synchronized`
    Grant, Grants      an acquired lock, or several: `held`, `fencing_token`, `check`, `release`, `on_lost`
    ThreadingLock      from `client.as_threading_lock`, for code that expects a `threading.Lock`
    Group, Membership  members that share work by keys: `client.group("workers").join()`
    WatchUpdate        one change of a lock, from `client.watch`

All errors are subclasses of `LockringError`:

    AcquireTimeout     other clients held the lock for the whole timeout (a `TimeoutError`)
    LockLost           the lease of a lock ended although the lock was not released
    NotHeld            the lock was released before
    Unavailable        no server could be reached, or none may serve the lock (a `ConnectionError`)
    InvalidRequest     an argument is invalid (a `ValueError`)
    ClientClosed       the client was closed

The logger `lockring.client` gets a warning for each lost lock, and `INFO` and `DEBUG` records about connections.
"""

import typing as _typing

from lockring._version import __version__ as __version__
from lockring.errors import AcquireTimeout as AcquireTimeout
from lockring.errors import ClientClosed as ClientClosed
from lockring.errors import ConfigError as ConfigError
from lockring.errors import Denied as Denied
from lockring.errors import InternalError as InternalError
from lockring.errors import InvalidRequest as InvalidRequest
from lockring.errors import LastNode as LastNode
from lockring.errors import LockLost as LockLost
from lockring.errors import LockringError as LockringError
from lockring.errors import NodeLeaving as NodeLeaving
from lockring.errors import NotCopyable as NotCopyable
from lockring.errors import NotHeld as NotHeld
from lockring.errors import Overloaded as Overloaded
from lockring.errors import ProtocolError as ProtocolError
from lockring.errors import ReentrantCall as ReentrantCall
from lockring.errors import Unauthenticated as Unauthenticated
from lockring.errors import Unavailable as Unavailable
from lockring.errors import UnknownNode as UnknownNode
from lockring.errors import WrongCluster as WrongCluster

if _typing.TYPE_CHECKING:
    from lockring import aio as aio
    from lockring.client.blocking.client import Client as Client
    from lockring.client.blocking.grants import Grant as Grant
    from lockring.client.blocking.grants import Grants as Grants
    from lockring.client.blocking.groups import Group as Group
    from lockring.client.blocking.groups import Membership as Membership
    from lockring.client.blocking.locks import Lock as Lock
    from lockring.client.blocking.locks import RWLock as RWLock
    from lockring.client.blocking.threading_lock import ThreadingLock as ThreadingLock
    from lockring.client.grant_state import Holder as Holder
    from lockring.client.group_state import GroupInfo as GroupInfo
    from lockring.client.group_state import GroupList as GroupList
    from lockring.client.group_state import GroupMember as GroupMember
    from lockring.client.group_state import GroupSummary as GroupSummary
    from lockring.client.group_state import KeySet as KeySet
    from lockring.client.lock_info import Broken as Broken
    from lockring.client.lock_info import FoundLock as FoundLock
    from lockring.client.lock_info import LockInfo as LockInfo
    from lockring.client.lock_info import LockList as LockList
    from lockring.client.lock_info import LockPage as LockPage
    from lockring.client.lock_info import Wait as Wait
    from lockring.client.lock_info import Waiter as Waiter
    from lockring.client.watch_updates import WatchEvent as WatchEvent
    from lockring.client.watch_updates import WatchUpdate as WatchUpdate

_HOMES = {
    "Broken": "lockring.client.lock_info",
    "Client": "lockring.client.blocking.client",
    "FoundLock": "lockring.client.lock_info",
    "Grant": "lockring.client.blocking.grants",
    "Grants": "lockring.client.blocking.grants",
    "Group": "lockring.client.blocking.groups",
    "GroupInfo": "lockring.client.group_state",
    "GroupList": "lockring.client.group_state",
    "GroupMember": "lockring.client.group_state",
    "GroupSummary": "lockring.client.group_state",
    "Holder": "lockring.client.grant_state",
    "KeySet": "lockring.client.group_state",
    "Lock": "lockring.client.blocking.locks",
    "LockList": "lockring.client.lock_info",
    "LockInfo": "lockring.client.lock_info",
    "LockPage": "lockring.client.lock_info",
    "Membership": "lockring.client.blocking.groups",
    "RWLock": "lockring.client.blocking.locks",
    "ThreadingLock": "lockring.client.blocking.threading_lock",
    "Wait": "lockring.client.lock_info",
    "Waiter": "lockring.client.lock_info",
    "WatchEvent": "lockring.client.watch_updates",
    "WatchUpdate": "lockring.client.watch_updates",
}

# There is no `__all__`: with one, `help(lockring)` describes every method of all these classes, in two thousand lines.
_NAMES = sorted(
    {"aio", "__version__", *_HOMES, *(name for name in globals() if name[0].isupper())},
)


def __getattr__(name: str) -> _typing.Any:
    """Import the client when it is first asked for: the command and the servers start without it."""
    import importlib

    if name == "aio":
        return importlib.import_module("lockring.aio")
    if name not in _HOMES:
        raise AttributeError(f"module 'lockring' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    """Return the public names, including those that are not imported yet."""
    return [*_NAMES, "__doc__", "__file__", "__name__", "__path__"]
