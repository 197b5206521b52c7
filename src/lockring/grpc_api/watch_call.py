"""A `Watch` call: a lock's states from its primary, and from the next one when it has moved.

The client core keeps the watch open, and knows what may have been missed. The first state must come in a bounded time:
a caller learns by that whether the lock can be watched at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from lockring.core.client import Update
from lockring.errors import Unavailable
from lockring.grpc_api.driver import PATIENCE_NS, NodeDriver
from lockring.ids import LockName
from lockring.units import NS_PER_S

UNREAD_MAX: Final = 100
"""States that wait for a client that reads slowly; more become one, with a gap."""


async def states_of(driver: NodeDriver, name: LockName) -> AsyncGenerator[Update]:
    """Yield the lock now, and after each change.

    Raises:
        LockringError: the lock cannot be watched, or no node could be asked for the first state in time.
    """
    reader = driver.watch(name, unread_max=UNREAD_MAX)
    try:
        try:
            async with asyncio.timeout(PATIENCE_NS / NS_PER_S):
                updates = await driver.next_updates(reader)
        except TimeoutError:
            why = next((wait for wait in driver.waits() if wait.name == name), None)
            text = "its primary did not answer" if why is None else why.text
            reason = "silent" if why is None else why.reason
            raise Unavailable(
                f"{name!r} could not be watched for {PATIENCE_NS / NS_PER_S:g} s: {text}",
                name=name,
                reason=reason,
            ) from None
        while True:
            for update in updates:
                yield update
            updates = await driver.next_updates(reader)
    finally:
        driver.unwatch(reader)
