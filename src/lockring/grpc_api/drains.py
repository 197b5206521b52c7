"""An operator's drain of a node, or the end of one.

The node passes it to the coordinator on the connection that it has, so this does not run on the client core. There, a
drain that a frozen coordinator leaves unanswered would be taken for the silence of the own node, and the connection to
that node, with every wait on it, would be given up.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lockring.clock import monotonic_ns
from lockring.core.refusals import error_of
from lockring.errors import Unavailable
from lockring.grpc_api.askers import ASKER
from lockring.grpc_api.host import NodeHost
from lockring.ids import NO_REQUEST
from lockring.protocol import Drain, DrainReply, Refusal, Undrain, UndrainReply
from lockring.units import NS_PER_S

_PAUSE_S: Final = 0.2


async def order(host: NodeHost, wanted: Drain | Undrain, until_ns: int) -> None:
    """Have the coordinator carry an order out. While it is away or not ready it is asked again, until the time is over.

    Args:
        host: the node of this process.
        wanted: the order; its `request` means nothing.
        until_ns: when to stop asking.

    Raises:
        LockringError: the coordinator refuses, or could not be asked in time.
    """
    while True:
        answer = await _ask_once(host, wanted, until_ns)
        if not isinstance(answer, Refusal):
            return
        error = error_of(answer)
        if not error.retryable or monotonic_ns() + _PAUSE_S * NS_PER_S >= until_ns:
            try:
                raise error
            finally:
                del error  # its traceback has this call, and would keep itself in memory
        await asyncio.sleep(_PAUSE_S)


async def _ask_once(
    host: NodeHost, wanted: Drain | Undrain, until_ns: int
) -> DrainReply | UndrainReply | Refusal:
    answered: asyncio.Future[DrainReply | UndrainReply | Refusal] = asyncio.get_running_loop().create_future()

    def take(answer: DrainReply | UndrainReply | Refusal) -> None:
        if not answered.done():
            answered.set_result(answer)

    open_order = host.pass_on(wanted, take, ASKER.get())
    try:
        async with asyncio.timeout(max(0.0, (until_ns - monotonic_ns()) / NS_PER_S)):
            return await answered
    except TimeoutError:
        return Refusal(NO_REQUEST, Unavailable.code, "the coordinator did not answer in time", wanted.node)
    finally:
        open_order.hang_up()  # too late, or cancelled: the node would keep the connection for its whole life
