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
from lockring.client.looking import Broken, LockInfo, Waiting
from lockring.client.membership import GroupInfo, GroupMember, GroupSummary, KeySet
from lockring.client.watching import WatchEvent, WatchUpdate

__all__ = [
    "Broken",
    "Client",
    "Grant",
    "Grants",
    "Group",
    "GroupInfo",
    "GroupMember",
    "GroupSummary",
    "Holding",
    "KeySet",
    "Lock",
    "LockInfo",
    "Membership",
    "RWLock",
    "Waiting",
    "WatchEvent",
    "WatchUpdate",
]
