"""The asyncio client: the same names as in `lockring`, to be awaited.

    import lockring.aio

    async with lockring.aio.Client("127.0.0.1:9501") as client:
        async with client.lock("nightly") as grant:
            ...  # grant.fencing_token goes to whatever the lock protects

It works on any asyncio event loop, uvloop included. A client belongs to the loop on which it is first used.
`help(lockring.aio.Client)` has its calls, `help(lockring)` what there is besides and what is raised.
"""

from lockring.client.async_grants import Grant as Grant
from lockring.client.async_grants import Grants as Grants
from lockring.client.async_groups import Group as Group
from lockring.client.async_groups import Membership as Membership
from lockring.client.async_locks import Lock as Lock
from lockring.client.async_locks import RWLock as RWLock
from lockring.client.asynchronous import Client as Client
from lockring.client.holding import Holding as Holding
from lockring.client.looking import Broken as Broken
from lockring.client.looking import LockInfo as LockInfo
from lockring.client.looking import LockList as LockList
from lockring.client.looking import Wait as Wait
from lockring.client.looking import Waiter as Waiter
from lockring.client.membership import GroupInfo as GroupInfo
from lockring.client.membership import GroupList as GroupList
from lockring.client.membership import GroupMember as GroupMember
from lockring.client.membership import GroupSummary as GroupSummary
from lockring.client.membership import KeySet as KeySet
from lockring.client.watching import WatchEvent as WatchEvent
from lockring.client.watching import WatchUpdate as WatchUpdate
