"""A `Lock` call: what it asks for, and the lease that its answer gives.

The client core waits on behalf of the gRPC client, over as many primaries as the lock has meanwhile. A call that ends
without its grant takes back only what no repetition of it, at this node or another, has asked for since.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.client.aio.driver import ticket_of
from lockring.core.client import OnBehalf, Ticket
from lockring.grpc_api.askers import ASKER
from lockring.grpc_api.driver import NodeDriver
from lockring.ids import LockName, SessionId
from lockring.protocol import WAIT_FOREVER
from lockring.units import NS_PER_MS

_SLOWEST: Final = (100, 105)
"""By how much a client's clock may be slower than this node's."""


class AcquireParams(NamedTuple):
    """A `Lock` call, checked.

    `session` is the one on the wire; the wait is None for no bound, and `traceparent` "" without a trace.
    """

    name: LockName
    session: SessionId
    ttl_ms: int
    owner: str
    wait_ms: int | None
    waited_ms: int
    mode: int
    permits: int
    payload: bytes
    traceparent: str = ""


async def acquire(driver: NodeDriver, wanted: AcquireParams) -> Ticket:
    """Wait for the lock. An early end of the wait leaves nothing behind.

    Raises:
        AcquireTimeout: others have it, and the wait is over.
        LockringError: the refusal of a node, or `Unavailable` if none could be asked in time.
    """
    return await driver.acquire(
        ticket_of,
        wanted.name,
        wanted.ttl_ms,
        WAIT_FOREVER if wanted.wait_ms is None else wanted.wait_ms,
        mode=wanted.mode,
        payload=wanted.payload,
        permits=wanted.permits,
        traceparent=wanted.traceparent,
        on_behalf=OnBehalf(wanted.session, wanted.owner, wanted.waited_ms, ASKER.get()),
    )


def lease_ms(deadline_ns: int, arrived_ns: int, now_ns: int) -> int:
    """Return how long a lock is surely held, counted by the client from before its call arrived.

    The time of the call is shortened by the 5 % by which the client's clock may be slower. The rest need not be: the
    promise behind it holds by any clock.
    """
    slow, fast = _SLOWEST
    passed_ns = (now_ns - arrived_ns) * slow // fast
    return max(0, deadline_ns - now_ns + passed_ns) // NS_PER_MS
