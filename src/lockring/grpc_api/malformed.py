"""Requests that cannot be read: each ends its call with INVALID_ARGUMENT.

gRPC itself would answer UNKNOWN, and write a traceback to standard error if the client has left meanwhile.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from lockring.errors import InvalidRequest
from lockring.grpc_api.status import Context, abort

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_UNREADABLE: Final = object()
"""Stands for a request that could not be read."""


class MalformedRequests(grpc.aio.ServerInterceptor):
    """Refuses malformed requests. It must be the first interceptor: the others see only those that can be read."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, behind the check."""
        handler = await continuation(handler_call_details)
        return None if handler is None else _CheckedCall(handler).handler()


class _CheckedCall:
    """A method behind the check of its requests."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def handler(self) -> _Handler:
        """Return the handler of the method."""
        inner = self._inner
        more = {"request_deserializer": self._read, "response_serializer": inner.response_serializer}
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream_stream, **more)
        if inner.response_streaming:
            is_generator = inspect.isasyncgenfunction(inner.unary_stream)
            call = self._unary_stream if is_generator else self._unary_written
            return grpc.unary_stream_rpc_method_handler(call, **more)
        assert not inner.request_streaming, "no method takes a stream and answers once"
        return grpc.unary_unary_rpc_method_handler(self._unary_unary, **more)

    def _read(self, data: bytes) -> Any:
        try:
            return self._inner.request_deserializer(data)
        except DecodeError:
            return _UNREADABLE

    async def _unary_unary(self, request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            await abort(context, _malformed())
        return await self._inner.unary_unary(request, context)

    async def _unary_stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        if request is _UNREADABLE:
            await abort(context, _malformed())
        async for response in self._inner.unary_stream(request, context):
            yield response

    async def _unary_written(self, request: Any, context: Context) -> None:
        """Call a method that writes its answers to the context."""
        if request is _UNREADABLE:
            await abort(context, _malformed())
        await self._inner.unary_stream(request, context)

    async def _stream_stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        try:
            async for response in self._inner.stream_stream(_readable(requests), context):
                yield response
        except InvalidRequest as error:
            await abort(context, error)


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield requests up to the first that could not be read.

    Raises:
        InvalidRequest: there is one.
    """
    async for request in requests:
        if request is _UNREADABLE:
            raise _malformed()
        yield request


def _malformed() -> InvalidRequest:
    return InvalidRequest("the request is not a message of this method: it cannot be read")
