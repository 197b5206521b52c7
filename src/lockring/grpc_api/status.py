"""Errors as gRPC status codes with details: one table for all of them."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from lockring.errors import AcquireTimeout, Denied, LockringError, Overloaded
from lockring.grpc_api.host import SlotPlace
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.units import NS_PER_MS, seconds_to_ns

DOMAIN: Final = "lockring"
"""`domain` of each `ErrorInfo`; its `reason` is the error's code."""

RETRY_MS: Final = 200
"""The pause for which `RetryInfo` asks a client, if the error does not say when to come again."""

STATUS_OF: Final[dict[str, int]] = {
    "invalid": code_pb2.INVALID_ARGUMENT,
    "config": code_pb2.INVALID_ARGUMENT,
    "extra": code_pb2.FAILED_PRECONDITION,
    "timeout": code_pb2.DEADLINE_EXCEEDED,
    "not-held": code_pb2.FAILED_PRECONDITION,
    "lost": code_pb2.FAILED_PRECONDITION,
    "unavailable": code_pb2.UNAVAILABLE,
    "moved": code_pb2.UNAVAILABLE,
    "stale": code_pb2.UNAVAILABLE,
    "not-coordinator": code_pb2.UNAVAILABLE,
    "overloaded": code_pb2.RESOURCE_EXHAUSTED,
    "denied": code_pb2.PERMISSION_DENIED,
    "unauthenticated": code_pb2.UNAUTHENTICATED,
    "wrong-cluster": code_pb2.FAILED_PRECONDITION,
    "wrong-role": code_pb2.FAILED_PRECONDITION,
    "duplicate-node": code_pb2.ALREADY_EXISTS,
    "unknown-node": code_pb2.NOT_FOUND,
    "no-root": code_pb2.NOT_FOUND,
    "last-node": code_pb2.FAILED_PRECONDITION,
    "node-leaving": code_pb2.FAILED_PRECONDITION,
    "closed": code_pb2.CANCELLED,
    "protocol": code_pb2.INTERNAL,
    "store": code_pb2.INTERNAL,
    "journal": code_pb2.INTERNAL,
    "cannot-listen": code_pb2.INTERNAL,
    "output": code_pb2.INTERNAL,
    "system": code_pb2.INTERNAL,
    "not-copyable": code_pb2.INTERNAL,
    "reentrant": code_pb2.INTERNAL,
    "internal": code_pb2.INTERNAL,
    "error": code_pb2.INTERNAL,
}
"""The status of each error, by its code."""

_HAS_MOVED: Final = frozenset({"moved", "unavailable", "stale"})


def status_of(error: LockringError, place: SlotPlace | None) -> status_pb2.Status:
    """Return an error as a status.

    Args:
        error: the error.
        place: the node that has the lock of the call, None if the call has no lock.
    """
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    if error.name:
        info.metadata["name"] = error.name
    if isinstance(error, Denied) and error.right:
        info.metadata["right"] = error.right
    if isinstance(error, AcquireTimeout):
        info.metadata["waited_ms"] = str(round(error.waited_s * 1000))
        if error.position is not None:
            info.metadata["position"] = str(error.position)
        if error.holders:
            info.metadata["holders"] = ", ".join(each.owner for each in error.holders)
    details: list[Any] = [info]
    if error.retryable:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(_retry_ns(error))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if place is not None and error.code in _HAS_MOVED:
        moved = pb.MovedTo(
            node=place.node, address=place.address, grpc_address=place.grpc, version=place.version
        )
        details.append(moved)
    status = status_pb2.Status(code=STATUS_OF.get(error.code, code_pb2.INTERNAL), message=str(error))
    for each in details:
        packed = any_pb2.Any()
        packed.Pack(each)
        status.details.append(packed)
    return status


def _retry_ns(error: LockringError) -> int:
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        return seconds_to_ns(error.retry_after_s)
    return RETRY_MS * NS_PER_MS


async def abort(context: Context, error: LockringError, place: SlotPlace | None = None) -> NoReturn:
    """End a call with the status of an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error, place)))
    raise AssertionError("a call that was ended goes on")


Context = grpc.aio.ServicerContext[Any, Any]
