"""How every call is carried out: headers, rights, requests, method, responses, status.

Every error ends its call with a status and nothing else: an error of lockring by the table in `status`, any other one
as a bug, which is logged. Neither touches the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError

from lockring.errors import InternalError, InvalidRequest, LockringError
from lockring.grpc_api.access import CallJudge, Judgement
from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.host import SlotPlace
from lockring.grpc_api.methods import ServedMethod
from lockring.grpc_api.status import CallEnded, Code, status_of
from lockring.log_events import event

REQUEST_S_MAX: Final = 30.0
"""How long the only request of a call may take to come, in seconds."""

log = logging.getLogger("lockring.grpc")


class Dispatcher:
    """Carries calls out. Lives in one event loop.

    Args:
        methods: those that are served, by path.
        judge: judges calls by the rights of their clients.
        place: returns the node that has the lock of a request, None if the request has no lock.
    """

    def __init__(
        self, methods: Mapping[str, ServedMethod], judge: CallJudge, place: Callable[[Any], SlotPlace | None]
    ) -> None:
        self._methods = methods
        self._judge = judge
        self._place = place

    def knows(self, path: str) -> bool:
        """Return whether a method is served."""
        return path in self._methods

    async def serve(self, call: GrpcCall) -> None:
        """Carry a call out, to its end."""
        requests = _Requests(call)
        limit = asyncio.timeout(call.time_remaining())
        try:
            async with limit:
                await self._serve(call, requests)
            call.finish(Code.OK)
        except asyncio.CancelledError:
            # The task would keep the error, whose traceback has the task: memory that only a collection would free.
            if not call.is_over:
                raise
        except CallEnded as end:
            call.finish(end.code, str(end))
        except LockringError as error:
            self._refuse(call, error, requests.last)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                call.finish(Code.DEADLINE_EXCEEDED, "the call's deadline has passed")
                return
            log.exception("this is a bug in lockring: a gRPC call has failed", extra=event("bug"))
            self._refuse(call, bug(error), requests.last)

    async def _serve(self, call: GrpcCall, requests: _Requests) -> None:
        method = self._methods.get(call.path)
        if method is None:
            raise CallEnded(Code.UNIMPLEMENTED, "this node has no such method")
        call.check()
        judgement = self._judge.judgement_of(call)
        requests.kind = method.request
        request: Any = None
        if not method.takes_stream:
            request = await _only(requests)
            if request is None:
                raise InvalidRequest("the call has no request")
            call.take_no_more()
        if judgement is not None:
            judgement.require(request)
        answer = method.serve(requests if method.takes_stream else request, call)
        if method.gives_stream:
            await _send_all(call, answer, judgement)
        else:
            await call.send((await answer).SerializeToString())

    def _refuse(self, call: GrpcCall, error: LockringError, request: Any) -> None:
        status = status_of(error, None if request is None else self._place(request))
        call.finish(status.code, status.message, status.SerializeToString())


async def _only(requests: _Requests) -> Any:
    """Return the only request of a call, None without one.

    Raises:
        CallEnded: it does not come.
    """
    limit = asyncio.timeout(REQUEST_S_MAX)
    try:
        async with limit:
            return await anext(requests, None)
    except TimeoutError:
        if not limit.expired():
            raise
        text = f"the request did not come within {REQUEST_S_MAX:g} s: send it at once"
        raise CallEnded(Code.DEADLINE_EXCEEDED, text) from None


async def _send_all(call: GrpcCall, responses: Any, judgement: Judgement | None) -> None:
    async with contextlib.aclosing(responses):
        async for each in responses:
            if judgement is not None:
                judgement.require_still()
            await call.send(each.SerializeToString())


def bug(error: Exception) -> InternalError:
    """Return what a client learns of a bug."""
    return InternalError(f"this is a bug in lockring ({type(error).__name__}); the node's log says more")


class _Requests(AsyncIterator[Any]):
    """The requests of a call, read as messages of a class.

    Attributes:
        kind: the class.
        last: the one that was read last.
    """

    def __init__(self, call: GrpcCall) -> None:
        self.kind: type[Any]
        self.last: Any = None
        self._call = call

    async def __anext__(self) -> Any:
        data = await self._call.next_request()
        if data is None:
            raise StopAsyncIteration
        try:
            self.last = self.kind.FromString(data)
        except DecodeError as error:
            raise InvalidRequest("the request is not a message of this method: it cannot be read") from error
        return self.last
