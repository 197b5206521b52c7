"""The access control of gRPC calls: each is judged before its method runs, by the table of required rights.

A method that is not in the table is refused. A call shows a token or a JWT as `authorization: Bearer …`, or the
certificate of its connection. The nodes that it leads to judge it again, since each has an ACL file of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias

import grpc

from lockring.core.access import (
    GRPC_REQUIREMENTS,
    Condition,
    Grantee,
    MissingRight,
    Requirement,
    missing_right,
)
from lockring.core.effects import AuditEntry, denied_entry
from lockring.errors import Denied, Unauthenticated
from lockring.grpc_api.askers import ASKER
from lockring.grpc_api.status import Context, abort
from lockring.security.peer_certificates import PeerCertificate

AUTHORIZATION: Final = "authorization"
_BEARER: Final = "bearer "
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_NEVER_S: Final = float("inf")
_SERVER: Final = Requirement(Condition.SERVER)
_OF_A_NAME: Final = frozenset({Condition.NAME, Condition.OWNER_AND_NAME})


class CallGate(Protocol):
    """The access control of the server, as calls see it.

    Attributes:
        is_on: whether identities and rights are looked at.
    """

    is_on: bool

    def admit(
        self, certificate: PeerCertificate | None, credential: str, *, origin: str, is_call: bool = False
    ) -> Grantee | None:
        """Return the rights of a client by what it has shown; raise `Denied` if it is not let in."""

    def record(self, entry: AuditEntry, *, origin: str, via: str = "") -> None:
        """Report an act."""


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Judges each call before its method runs.

    Args:
        gate: the access control of the server.
    """

    def __init__(self, gate: CallGate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, behind the judgement."""
        handler = await continuation(handler_call_details)
        # A method without a row in the table needs a server's certificate, which no client of gRPC has.
        requirement = GRPC_REQUIREMENTS.get(handler_call_details.method.lstrip("/"), _SERVER)
        if handler is None or not self._gate.is_on or requirement.condition is Condition.FREE:
            return handler
        return _JudgedCall(self._gate, requirement, handler).handler()


class _JudgedCall:
    """A method behind the judgement of its calls."""

    def __init__(self, gate: CallGate, requirement: Requirement, inner: Any) -> None:
        self._gate = gate
        self._requirement = requirement
        self._inner = inner

    def handler(self) -> _Handler:
        """Return the handler of the method."""
        inner = self._inner
        more = {
            "request_deserializer": inner.request_deserializer,
            "response_serializer": inner.response_serializer,
        }
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream_stream, **more)
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._unary_stream, **more)
        assert not inner.request_streaming, "no method takes a stream and answers once"
        return grpc.unary_unary_rpc_method_handler(self._unary_unary, **more)

    async def _unary_unary(self, request: Any, context: Context) -> Any:
        await self._judge(context, request)
        return await self._inner.unary_unary(request, context)

    async def _unary_stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        grantee = await self._judge(context, request)
        async for response in self._inner.unary_stream(request, context):
            await self._end_if_expired(context, grantee)
            yield response

    async def _stream_stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        grantee = await self._judge(context, None)
        async for response in self._inner.stream_stream(requests, context):
            await self._end_if_expired(context, grantee)
            yield response

    async def _judge(self, context: Context, request: Any) -> Grantee:
        """Find out who calls, and refuse a call that lacks what it needs. Further requests are on that one's behalf."""
        origin = origin_of(context.peer())
        try:
            credential = credential_in(context.invocation_metadata() or ())
            certificate = certificate_in(context.auth_context())
            grantee = self._gate.admit(certificate, credential, origin=origin, is_call=True)
        except Denied as error:
            await abort(context, error)
        assert grantee is not None
        ASKER.set(grantee.identity)
        missing = missing_right(grantee, self._requirement, self._name_in(request))
        if missing is not None:
            await self._report(context, grantee, missing)
        return grantee

    async def _end_if_expired(self, context: Context, grantee: Grantee) -> None:
        if grantee.is_expired and grantee.is_enforced:
            missing = missing_right(grantee, self._requirement)
            assert missing is not None
            await self._report(context, grantee, missing)

    async def _report(self, context: Context, grantee: Grantee, missing: MissingRight) -> None:
        self._gate.record(denied_entry(grantee, missing, None), origin=origin_of(context.peer()))
        if grantee.is_enforced:
            await abort(context, missing.error())

    def _name_in(self, request: Any) -> str:
        """Return the lock or node that a request names."""
        condition = self._requirement.condition
        if condition is Condition.NODE:
            return str(request.node)
        return str(request.name) if condition in _OF_A_NAME and request is not None else ""


def credential_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token or JWT in a call's metadata, "" for none.

    Raises:
        Unauthenticated: the header is there twice, or is not one of a bearer.
    """
    found = [value for key, value in metadata if key == AUTHORIZATION]
    if not found:
        return ""
    (value,) = found if len(found) == 1 else ("",)
    if not isinstance(value, str) or not value.lower().startswith(_BEARER):
        raise Unauthenticated("the metadata has one `authorization: Bearer TOKEN`, or none")
    return value[len(_BEARER) :].strip()


def certificate_in(properties: Any) -> PeerCertificate | None:
    """Return the client's certificate, as gRPC describes the connection; None without one.

    gRPC has verified it, and its time too. The CA is that of clients, so it makes no server.
    """

    def texts(key: str) -> tuple[str, ...]:
        return tuple(each.decode("utf-8", "replace") for each in properties.get(key, ()))

    if not texts("x509_pem_cert"):
        return None
    return PeerCertificate(
        uris=texts("peer_uri"),
        hosts=(*texts("peer_dns"), *texts("peer_ip")),
        common_name="".join(texts("x509_common_name")[:1]),
        serial="",
        not_after_s=_NEVER_S,
        is_server=False,
    )


def origin_of(peer: str) -> str:
    """Return HOST:PORT of a call's other side, as gRPC names it."""
    return peer.partition(":")[2] if peer.startswith(("ipv4:", "ipv6:")) else peer
