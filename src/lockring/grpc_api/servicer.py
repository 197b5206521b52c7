"""The gRPC methods: each converts its call, has the client core carry it out, and converts the answer back.

Errors end the call with a status: see `dispatch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from lockring.clock import monotonic_ns
from lockring.errors import InvalidRequest, LockringError, NotHeld
from lockring.grpc_api.acquire_call import acquire, lease_ms
from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.converters import (
    event_of,
    generation_of,
    listed_of,
    lock_of,
    state_of,
    wanted_of,
    wire_session,
)
from lockring.grpc_api.dispatch import bug
from lockring.grpc_api.drains import order
from lockring.grpc_api.driver import PATIENCE_NS, NodeDriver
from lockring.grpc_api.host import NodeHost, SlotPlace, place_of
from lockring.grpc_api.keepalive_stream import KeepStream
from lockring.grpc_api.listing import Lister
from lockring.grpc_api.status import CallEnded
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.watch_call import states_of
from lockring.ids import NO_REQUEST
from lockring.names import check_lock_name, check_node_id
from lockring.protocol import BreakReply, DescribeReply, Drain, ReleaseReply, Undrain
from lockring.slots import slot_of
from lockring.units import seconds_to_ns

SERVICE: Final = pb.DESCRIPTOR.services_by_name["LockService"]

log = logging.getLogger("lockring.grpc")


class LockServicer:
    """The service of one node. Lives in one event loop. The .proto file describes the methods.

    Args:
        host: the node.
        driver: the client that asks it and the others.
    """

    def __init__(self, host: NodeHost, driver: NodeDriver) -> None:
        self._host = host
        self._driver = driver
        self._lister = Lister(host, driver)

    async def Lock(self, request: pb.LockRequest, call: GrpcCall) -> pb.LockResponse:  # noqa: N802
        """Acquire a lock."""
        arrived_ns = monotonic_ns()
        wanted = wanted_of(request, ttl_ms_max=self._ttl_ms_max)._replace(traceparent=call.traceparent())
        ticket = await acquire(self._driver, wanted)
        return pb.LockResponse(
            generation=ticket.generation,
            lease_ms=lease_ms(ticket.deadline_ns, arrived_ns, monotonic_ns()),
            primary=self._driver.node_at(ticket.exchange.link),
        )

    async def Unlock(self, request: pb.UnlockRequest, call: GrpcCall) -> pb.UnlockResponse:  # noqa: N802
        """Release an acquisition."""
        name = check_lock_name(request.name)
        session = wire_session(request.session, request.idempotency_key, name)
        until_ns = self._until_ns(call)
        query = self._driver.begin(
            lambda core, now_ns: core.release_for(session, name, give_up_at_ns=until_ns, now_ns=now_ns)
        )
        answer: ReleaseReply = await self._driver.answer_to(query)
        # Asked more than once, an earlier question may have done it.
        if not answer.dropped and query.exchange.sent == 1:
            raise NotHeld(f"lock {name!r} is not held under this session and key", name=name)
        return pb.UnlockResponse()

    async def KeepAlive(  # noqa: N802
        self, requests: AsyncIterator[pb.KeepAliveRequest], call: GrpcCall
    ) -> AsyncIterator[pb.KeepAliveResponse]:
        """Renew locks."""
        stream = KeepStream(self._driver)

        async def read() -> None:
            try:
                async for request in requests:
                    await stream.room()
                    stream.renew(request.sequence, listed_of(request, ttl_ms_max=self._ttl_ms_max))
                stream.end()
            except (LockringError, CallEnded) as error:
                stream.end(error)
            except Exception as error:
                log.debug("the requests of a KeepAlive have ended", exc_info=error)
                stream.end(bug(error))

        reader = asyncio.get_running_loop().create_task(read())
        try:
            async for response in stream.responses():
                yield response
        finally:
            reader.cancel()
            stream.close()

    async def FindLockOwner(  # noqa: N802
        self, request: pb.FindLockOwnerRequest, call: GrpcCall
    ) -> pb.FindLockOwnerResponse:
        """Return the holders and waiters of a lock."""
        name = check_lock_name(request.name)
        until_ns = self._until_ns(call)
        answer: DescribeReply = await self._driver.ask(
            lambda core, now_ns: core.describe(name, give_up_at_ns=until_ns, now_ns=now_ns)
        )
        lock = lock_of(answer.lock)
        if not lock.holders:
            return pb.FindLockOwnerResponse(lock=lock)
        first = lock.holders[0]
        return pb.FindLockOwnerResponse(held=True, owner=first.owner, generation=first.generation, lock=lock)

    async def Watch(self, request: pb.WatchRequest, call: GrpcCall) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """Report a lock at each change."""
        states = states_of(self._driver, check_lock_name(request.name))
        async with contextlib.aclosing(states):
            async for state in states:
                events = [event_of(each) for each in state.events]
                yield pb.WatchResponse(lock=lock_of(state.lock), gap=state.gap, events=events)

    async def ListLocks(self, request: pb.ListLocksRequest, call: GrpcCall) -> pb.ListLocksResponse:  # noqa: N802
        """Return a page of locks."""
        return await self._lister.page(request, self._until_ns(call))

    async def GetClusterState(  # noqa: N802
        self, request: pb.GetClusterStateRequest, call: GrpcCall
    ) -> pb.GetClusterStateResponse:
        """Return the members and slots."""
        return state_of(self._host.state, self._host.replica.node, with_slots=request.with_slots)

    async def BreakLock(self, request: pb.BreakLockRequest, call: GrpcCall) -> pb.BreakLockResponse:  # noqa: N802
        """End a holder's lease."""
        name, generation = check_lock_name(request.name), generation_of(request.generation)
        until_ns = self._until_ns(call)
        answer: BreakReply = await self._driver.ask(
            lambda core, now_ns: core.break_lock(
                name, generation, force=request.force, give_up_at_ns=until_ns, now_ns=now_ns
            )
        )
        return pb.BreakLockResponse(freed=answer.freed, within_ms=answer.within_ms)

    async def DrainNode(self, request: pb.DrainNodeRequest, call: GrpcCall) -> pb.DrainNodeResponse:  # noqa: N802
        """Move everything off a node."""
        await order(self._host, Drain(NO_REQUEST, check_node_id(request.node)), self._until_ns(call))
        return pb.DrainNodeResponse()

    async def UndrainNode(  # noqa: N802
        self,
        request: pb.UndrainNodeRequest,
        call: GrpcCall,
    ) -> pb.UndrainNodeResponse:
        """Let a drained node have slots again."""
        await order(self._host, Undrain(NO_REQUEST, check_node_id(request.node)), self._until_ns(call))
        return pb.UndrainNodeResponse()

    def place_of(self, request: Any) -> SlotPlace | None:
        """Return the node that has the lock of a request, None if the request has no lock."""
        try:
            slot = slot_of(check_lock_name(getattr(request, "name", "")))
        except InvalidRequest:
            return None
        return place_of(self._host.state, slot)

    # ----------------------------------------------------------------------- inner

    @property
    def _ttl_ms_max(self) -> int:
        return self._host.state.coordinator_lease_ms

    def _until_ns(self, call: GrpcCall) -> int:
        """Return when to stop asking: the call's deadline ends it sooner by itself."""
        left_s: float | None = call.time_remaining()
        left_ns = PATIENCE_NS if left_s is None else min(PATIENCE_NS, seconds_to_ns(left_s))
        return monotonic_ns() + left_ns
