"""The gRPC methods: each converts its call, has the client core carry it out, and converts the answer back.

Every error ends the call with a status and nothing else: an error of lockring by the table in `status`, any other one
as a bug, which is logged. Neither touches the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import grpc

from lockring.clock import monotonic_ns
from lockring.errors import InternalError, InvalidRequest, LockringError, NotHeld
from lockring.grpc_api.acquire_call import acquire, lease_ms
from lockring.grpc_api.converters import (
    event_of,
    generation_of,
    listed_of,
    lock_of,
    state_of,
    wanted_of,
    wire_session,
)
from lockring.grpc_api.drains import order
from lockring.grpc_api.driver import PATIENCE_NS, NodeDriver
from lockring.grpc_api.host import NodeHost, place_of
from lockring.grpc_api.keepalive_stream import KeepStream
from lockring.grpc_api.listing import Lister
from lockring.grpc_api.status import Context, abort
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.v1 import lockring_pb2_grpc
from lockring.grpc_api.watch_call import states_of
from lockring.ids import NO_REQUEST
from lockring.log_events import event
from lockring.names import check_lock_name, check_node_id
from lockring.protocol import BreakReply, DescribeReply, Drain, ReleaseReply, Undrain
from lockring.slots import slot_of
from lockring.units import seconds_to_ns

log = logging.getLogger("lockring.grpc")

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def _unary(
    method: Callable[[LockServicer, _Request, Context], Awaitable[_Response]],
) -> Callable[[LockServicer, _Request, Context], Coroutine[Any, Any, _Response]]:
    """Let a method that answers once end its call with a status if it raises an error."""

    @functools.wraps(method)
    async def answer(self: LockServicer, request: _Request, context: Context) -> _Response:
        try:
            return await method(self, request, context)
        except LockringError as error:
            await self.refuse(context, error, request)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            log.exception("this is a bug in lockring: a gRPC call has failed", extra=event("bug"))
            await self.refuse(context, _bug(error), request)

    return answer


def _stream(
    method: Callable[[LockServicer, _Request, Context], AsyncIterator[_Response]],
) -> Callable[[LockServicer, _Request, Context], AsyncIterator[_Response]]:
    """Do the same for a method that answers many times."""

    @functools.wraps(method)
    async def answer(self: LockServicer, request: _Request, context: Context) -> AsyncIterator[_Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except LockringError as error:
            await self.refuse(context, error, request)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            log.exception("this is a bug in lockring: a gRPC call has failed", extra=event("bug"))
            await self.refuse(context, _bug(error), request)

    return answer


def _bug(error: Exception) -> InternalError:
    return InternalError(f"this is a bug in lockring ({type(error).__name__}); the node's log says more")


class LockServicer(lockring_pb2_grpc.LockServiceServicer):
    """The service of one node. Lives in one event loop. The .proto file describes the methods.

    Args:
        host: the node.
        driver: the client that asks it and the others.
    """

    def __init__(self, host: NodeHost, driver: NodeDriver) -> None:
        self._host = host
        self._driver = driver
        self._lister = Lister(host, driver)

    @_unary
    async def Lock(self, request: pb.LockRequest, context: Context) -> pb.LockResponse:  # noqa: N802
        """Acquire a lock."""
        arrived_ns = monotonic_ns()
        wanted = wanted_of(request, ttl_ms_max=self._ttl_ms_max)
        ticket = await acquire(self._driver, wanted)
        return pb.LockResponse(
            generation=ticket.generation,
            lease_ms=lease_ms(ticket.deadline_ns, arrived_ns, monotonic_ns()),
            primary=self._driver.node_at(ticket.exchange.link),
        )

    @_unary
    async def Unlock(self, request: pb.UnlockRequest, context: Context) -> pb.UnlockResponse:  # noqa: N802
        """Release an acquisition."""
        name = check_lock_name(request.name)
        session = wire_session(request.session, request.idempotency_key, name)
        until_ns = self._until_ns(context)
        query = self._driver.begin(
            lambda core, now_ns: core.release_for(session, name, give_up_at_ns=until_ns, now_ns=now_ns)
        )
        answer: ReleaseReply = await self._driver.answer_to(query)
        # Asked more than once, an earlier question may have done it.
        if not answer.dropped and query.exchange.sent == 1:
            raise NotHeld(f"lock {name!r} is not held under this session and key", name=name)
        return pb.UnlockResponse()

    @_stream
    async def KeepAlive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.KeepAliveRequest], context: Context
    ) -> AsyncIterator[pb.KeepAliveResponse]:
        """Renew locks."""
        stream = KeepStream(self._driver)

        async def read() -> None:
            try:
                async for request in request_iterator:
                    await stream.room()
                    stream.renew(request.sequence, listed_of(request, ttl_ms_max=self._ttl_ms_max))
                stream.end()
            except LockringError as error:
                stream.end(error)
            except Exception as error:
                log.debug("the requests of a KeepAlive have ended", exc_info=error)
                stream.end(_bug(error))

        reader = asyncio.get_running_loop().create_task(read())
        try:
            async for response in stream.responses():
                yield response
        finally:
            reader.cancel()
            stream.close()

    @_unary
    async def FindLockOwner(  # noqa: N802
        self, request: pb.FindLockOwnerRequest, context: Context
    ) -> pb.FindLockOwnerResponse:
        """Return the holders and waiters of a lock."""
        name = check_lock_name(request.name)
        until_ns = self._until_ns(context)
        answer: DescribeReply = await self._driver.ask(
            lambda core, now_ns: core.describe(name, give_up_at_ns=until_ns, now_ns=now_ns)
        )
        lock = lock_of(answer.lock)
        if not lock.holders:
            return pb.FindLockOwnerResponse(lock=lock)
        first = lock.holders[0]
        return pb.FindLockOwnerResponse(held=True, owner=first.owner, generation=first.generation, lock=lock)

    @_stream
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """Report a lock at each change."""
        states = states_of(self._driver, check_lock_name(request.name))
        async with contextlib.aclosing(states):
            async for state in states:
                events = [event_of(each) for each in state.events]
                yield pb.WatchResponse(lock=lock_of(state.lock), gap=state.gap, events=events)

    @_unary
    async def ListLocks(self, request: pb.ListLocksRequest, context: Context) -> pb.ListLocksResponse:  # noqa: N802
        """Return a page of locks."""
        return await self._lister.page(request, self._until_ns(context))

    @_unary
    async def GetClusterState(  # noqa: N802
        self, request: pb.GetClusterStateRequest, context: Context
    ) -> pb.GetClusterStateResponse:
        """Return the members and slots."""
        return state_of(self._host.state, self._host.replica.node, with_slots=request.with_slots)

    @_unary
    async def BreakLock(self, request: pb.BreakLockRequest, context: Context) -> pb.BreakLockResponse:  # noqa: N802
        """End a holder's lease."""
        name, generation = check_lock_name(request.name), generation_of(request.generation)
        until_ns = self._until_ns(context)
        answer: BreakReply = await self._driver.ask(
            lambda core, now_ns: core.break_lock(
                name, generation, force=request.force, give_up_at_ns=until_ns, now_ns=now_ns
            )
        )
        return pb.BreakLockResponse(freed=answer.freed, within_ms=answer.within_ms)

    @_unary
    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.DrainNodeResponse:  # noqa: N802
        """Move everything off a node."""
        await order(self._host, Drain(NO_REQUEST, check_node_id(request.node)), self._until_ns(context))
        return pb.DrainNodeResponse()

    @_unary
    async def UndrainNode(  # noqa: N802
        self,
        request: pb.UndrainNodeRequest,
        context: Context,
    ) -> pb.UndrainNodeResponse:
        """Let a drained node have slots again."""
        await order(self._host, Undrain(NO_REQUEST, check_node_id(request.node)), self._until_ns(context))
        return pb.UndrainNodeResponse()

    async def refuse(self, context: Context, error: LockringError, request: object) -> NoReturn:
        """End a call with the status of an error, and with the place of the request's lock if it has one."""
        try:
            slot = slot_of(check_lock_name(getattr(request, "name", "")))
        except InvalidRequest:
            await abort(context, error)
        await abort(context, error, place_of(self._host.state, slot))

    # ----------------------------------------------------------------------- inner

    @property
    def _ttl_ms_max(self) -> int:
        return self._host.state.coordinator_lease_ms

    def _until_ns(self, context: Context) -> int:
        """Return when to stop asking: the call's deadline ends it sooner by itself."""
        left_s: float | None = context.time_remaining()
        left_ns = PATIENCE_NS if left_s is None else min(PATIENCE_NS, seconds_to_ns(left_s))
        return monotonic_ns() + left_ns
