"""The asyncio client: the same names as in `lockring`, to be awaited.

    async with lockring.aio.Client("127.0.0.1:9501") as client:
        async with client.lock("nightly") as grant:
            ...  # grant.fencing_token goes to whatever the lock protects

It works on any asyncio event loop, uvloop included. A client belongs to the loop on which it is first used.
"""

from lockring.client.async_grants import Grant, Grants
from lockring.client.async_groups import Group, Membership
from lockring.client.async_locks import Lock, RWLock
from lockring.client.asynchronous import Client
from lockring.client.holding import Holding
from lockring.client.membership import GroupInfo, GroupList, GroupSummary, KeySet
from lockring.client.told import LockList, Wait
from lockring.client.watching import WatchEvent, WatchUpdate

__all__ = [
    "Client",
    "Grant",
    "Grants",
    "Group",
    "GroupInfo",
    "GroupList",
    "GroupSummary",
    "Holding",
    "KeySet",
    "Lock",
    "LockList",
    "Membership",
    "RWLock",
    "Wait",
    "WatchEvent",
    "WatchUpdate",
]
