"""Errors as gRPC status codes with details: one table for all of them, and the trailers that carry them."""

from __future__ import annotations

import base64
import enum
from typing import Any, Final
from urllib.parse import quote

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

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

_PLAIN: Final = "".join(chr(each) for each in range(0x20, 0x7F) if chr(each) != "%")

TRAILERS_BYTES_MAX: Final = 6 * 1024
"""Message and details of a status, both encoded. Clients accept 8 KiB of headers or more, and refuse a call beyond."""

MESSAGE_BYTES_MAX: Final = 1_536
"""Longest encoded message of a status. It leaves room for the name of a lock and some holders."""

_CUT: Final = "..."
_ENTRY_BYTES: Final = 32
"""More than an entry of the metadata takes besides its value, with the lengths around it."""

_HAS_MOVED: Final = frozenset({"moved", "unavailable", "stale"})


def status_of(error: LockringError, place: SlotPlace | None) -> status_pb2.Status:
    """Return an error as a status, which fits into trailers: a long message is cut, and the last holders left out.

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
    others: list[Any] = []
    if error.retryable:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(_retry_ns(error))
        others.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if place is not None and error.code in _HAS_MOVED:
        moved = pb.MovedTo(
            node=place.node, address=place.address, grpc_address=place.grpc, version=place.version
        )
        others.append(moved)
    status = status_pb2.Status(code=STATUS_OF.get(error.code, code_pb2.INTERNAL))
    status.details.extend(map(_packed, (info, *others)))
    # The message is sent twice, and must be the same in both places: the details have it in base64, which is a third
    # longer.
    room = TRAILERS_BYTES_MAX - _base64_bytes(status.ByteSize() + _ENTRY_BYTES)
    status.message = _cut(str(error), min(MESSAGE_BYTES_MAX, room * 3 // 7))
    if isinstance(error, AcquireTimeout):
        room = TRAILERS_BYTES_MAX - sum(map(_encoded_bytes, status.message))
        owners = _first(
            [each.owner for each in error.holders], room * 3 // 4 - status.ByteSize() - _ENTRY_BYTES
        )
        if owners:
            info.metadata["holders"] = owners
            status.details[0].CopyFrom(_packed(info))
    return status


def _packed(detail: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _base64_bytes(size: int) -> int:
    return (size + 2) // 3 * 4


def _encoded_bytes(character: str) -> int:
    """Return how many bytes a character takes in `grpc-message`."""
    return 1 if character in _PLAIN else 3 * len(character.encode())


def _cut(text: str, most: int) -> str:
    """Return a text, or so much of it that it takes at most so many bytes in `grpc-message`."""
    size = 0
    fitting = 0
    for at, each in enumerate(text, start=1):
        size += _encoded_bytes(each)
        if size > most:
            return text[:fitting] + _CUT
        if size <= most - len(_CUT):
            fitting = at
    return text


def _first(owners: list[str], most: int) -> str:
    """Return the first owners in one line, as many as fit into so many bytes."""
    found = ""
    for each in owners:
        line = f"{found}, {each}" if found else each
        if len(line.encode()) > most:
            break
        found = line
    return found


def _retry_ns(error: LockringError) -> int:
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        return seconds_to_ns(error.retry_after_s)
    return RETRY_MS * NS_PER_MS


class Code(enum.IntEnum):
    """The status codes of calls that end without an error of lockring."""

    OK = code_pb2.OK
    CANCELLED = code_pb2.CANCELLED
    DEADLINE_EXCEEDED = code_pb2.DEADLINE_EXCEEDED
    NOT_FOUND = code_pb2.NOT_FOUND
    RESOURCE_EXHAUSTED = code_pb2.RESOURCE_EXHAUSTED
    UNIMPLEMENTED = code_pb2.UNIMPLEMENTED
    INTERNAL = code_pb2.INTERNAL
    UNAVAILABLE = code_pb2.UNAVAILABLE


class CallEnded(Exception):
    """The end of a call for a reason of gRPC's own, which has a code and a sentence, and no details.

    Args:
        code: the status code.
        text: the sentence.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def trailers_of(code: int, text: str = "", details: bytes = b"") -> list[tuple[str, str]]:
    """Return the trailers that end a call.

    Args:
        code: the status code.
        text: a sentence for people; the rest of one that is too long is cut off.
        details: a `google.rpc.Status` with the same text, b"" for none; left out if both are too long together.
    """
    found = [("grpc-status", str(int(code)))]
    message = quote(_cut(text, MESSAGE_BYTES_MAX), safe=_PLAIN)
    if message:
        found.append(("grpc-message", message))
    if details and len(message) + _base64_bytes(len(details)) <= TRAILERS_BYTES_MAX:
        found.append(("grpc-status-details-bin", base64.b64encode(details).decode().rstrip("=")))
    return found
