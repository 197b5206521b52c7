"""The asyncio client: the same names as in `lockring`, with coroutine methods.

    import lockring.aio

    async with lockring.aio.Client("127.0.0.1:9501") as client:
        async with client.lock("nightly") as grant:
            ...  # pass grant.fencing_token to the resource that the lock protects

It works on any asyncio event loop, including uvloop. A client belongs to the loop on which it is first used.
`help(lockring.aio.Client)` lists its calls; `help(lockring)` describes the other classes and the errors.
"""

from lockring.client.aio.client import Client as Client
from lockring.client.aio.grants import Grant as Grant
from lockring.client.aio.grants import Grants as Grants
from lockring.client.aio.groups import Group as Group
from lockring.client.aio.groups import Membership as Membership
from lockring.client.aio.locks import Lock as Lock
from lockring.client.aio.locks import RWLock as RWLock
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
