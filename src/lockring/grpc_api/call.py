"""One call of gRPC on its stream of HTTP/2: requests come in, responses go out, and a status ends it.

Rules:

- Both directions wait: nothing is sent that the client has no room for, and room for more requests is given only as
  they are taken. So a call keeps at most one incomplete request, one window of others, and one response.
- A call that has ended sends nothing more, whatever its task still does.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.errors import InvalidRequest, Unauthenticated
from lockring.grpc_api.known_credentials import KnownCredentials
from lockring.grpc_api.messages import ENCODINGS, MessageReader, framed
from lockring.grpc_api.status import CallEnded, Code, trailers_of
from lockring.security.peer_certificates import PeerCertificate
from lockring.units import NS_PER_S

CREDENTIAL_BYTES_MAX: Final = 8 * 1024
"""Longest `authorization` of a call: a JWT has one or two thousand bytes."""

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_UNIT_NS: Final = {
    b"H": 3600 * NS_PER_S,
    b"M": 60 * NS_PER_S,
    b"S": NS_PER_S,
    b"m": NS_PER_S // 1000,
    b"u": 1000,
    b"n": 1,
}
_TIMEOUT_NS_MAX: Final = 366 * 86_400 * NS_PER_S
"""A longer deadline is none."""

_BEARER: Final = b"bearer "

Headers = list[tuple[bytes, bytes]]


class CallStreams(Protocol):
    """The connection of a call, as the call sees it.

    Attributes:
        remote: HOST:PORT of the client.
        certificate: the client's, None if it has shown none.
        known: the credentials that its calls have shown.
    """

    remote: str
    certificate: PeerCertificate | None
    known: KnownCredentials

    def hold(self, call: GrpcCall, size: int) -> bool:
        """Count bytes of messages of a call that wait, fewer if negative. Returns whether there is room for them."""

    def room_of(self, call: GrpcCall) -> int:
        """Return how many bytes of a response may be sent now. If none may, the call is woken once that changes."""

    def send_headers(self, call: GrpcCall, headers: list[tuple[str, str]], *, is_end: bool) -> None:
        """Send headers or trailers of a call, the last of all of it if `is_end`."""

    def send_data(self, call: GrpcCall, data: bytes) -> None:
        """Send a part of a response, for which there is room."""

    def give_room(self, call: GrpcCall, size: int) -> None:
        """Let the client send so many bytes more."""

    def call_ended(self, call: GrpcCall) -> None:
        """Forget a call whose task has ended."""


class GrpcCall:
    """A call. Lives in one event loop.

    Args:
        stream: the connection where it came.
        number: of its stream.
        headers: those that began it.

    Attributes:
        stream: the same.
        number: the same.
        path: the method, without the slash before it; "" if it is not text.
        status: the code with which it has ended, None before.
        is_over: whether it has ended for the client, so that nothing more is sent.
        is_half_closed: whether the client sends no more requests.
    """

    __slots__ = (
        "_deadline_ns",
        "_error",
        "_has_begun",
        "_headers",
        "_held_bytes",
        "_queued_bytes",
        "_reader",
        "_requests",
        "_taken",
        "_unread_bytes",
        "_unsent_bytes",
        "_wake_reader",
        "_wake_writer",
        "is_half_closed",
        "is_over",
        "number",
        "path",
        "status",
        "stream",
        "task",
    )

    def __init__(self, stream: CallStreams, number: int, headers: Headers) -> None:
        self.stream = stream
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.status: int | None = None
        self.is_over = False
        self.is_half_closed = False
        self._headers = headers
        self._has_begun = False
        self._requests: deque[bytes] = deque()
        self._unread_bytes = 0
        self._queued_bytes = 0
        self._unsent_bytes = 0
        self._held_bytes = 0
        self._taken = False
        self._error: Exception | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        path = _single(headers, b":path") or b""
        self.path = path.decode("ascii").removeprefix("/") if path.isascii() else ""
        self._deadline_ns: int | None = None
        self._reader: MessageReader | None = None
        try:
            self._deadline_ns = _deadline_ns(headers)
            self._reader = MessageReader(_encoding(headers))
        except (InvalidRequest, CallEnded) as error:
            self._error = error

    # ----------------------------------------------------------------------- what the client asks for

    def check(self) -> None:
        """Check the headers that every call has.

        Raises:
            InvalidRequest: the deadline is malformed.
            CallEnded: the requests are compressed in a way that is not known here.
        """
        if self._reader is None and self._error is not None:
            raise self._error

    @property
    def origin(self) -> str:
        """HOST:PORT of the client."""
        return self.stream.remote

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline, None without one."""
        return (
            None if self._deadline_ns is None else max(0.0, (self._deadline_ns - monotonic_ns()) / NS_PER_S)
        )

    def traceparent(self) -> str:
        """Return the trace that the call belongs to (W3C Trace Context), "" for none or a malformed one."""
        found = _single(self._headers, b"traceparent") or b""
        return found.decode("ascii") if _TRACEPARENT.fullmatch(found) else ""

    def credential(self) -> str:
        """Return the token or JWT that the call shows, "" for none.

        Raises:
            Unauthenticated: the header is there twice, is not one of a bearer, is too long, or is not text.
        """
        found = [value for name, value in self._headers if name == b"authorization"]
        if not found:
            return ""
        (value,) = found if len(found) == 1 else (b"",)
        credential = value[len(_BEARER) :].strip()
        if (
            value[: len(_BEARER)].lower() != _BEARER
            or not credential
            or len(value) > CREDENTIAL_BYTES_MAX
            or not (value.isascii() and value.decode("ascii").isprintable())
        ):
            raise Unauthenticated(
                f"the metadata has one `authorization: Bearer TOKEN` of at most {CREDENTIAL_BYTES_MAX} bytes, or none"
            )
        return credential.decode("ascii")

    # ----------------------------------------------------------------------- requests

    def received(self, data: bytes, size: int) -> None:
        """Take bytes of requests. `size` is what they take of the client's window."""
        self._unread_bytes += size
        if self._taken or self._error is not None or self.is_over or self._reader is None:
            return  # room for more is given back with the end of the call
        try:
            found = self._reader.feed(data)
        except (InvalidRequest, CallEnded) as error:
            self._reader.rest.clear()
            self._count()
            self._fail(error)
            return
        self._requests += found
        self._queued_bytes += sum(map(len, found))
        if not self._count():
            self._fail(
                CallEnded(
                    Code.RESOURCE_EXHAUSTED,
                    "too many requests of this connection, or of this node, are incomplete or unread",
                )
            )
            return
        if self._requests:
            self._wake(reader=True)
        else:
            self._give_room()

    def half_closed(self) -> None:
        """Note that the client sends no more requests."""
        self.is_half_closed = True
        self._wake(reader=True)

    async def next_request(self) -> bytes | None:
        """Return the next request, None after the last one.

        Raises:
            InvalidRequest: it is malformed, or breaks off.
            CallEnded: it is too long, or compressed as it may not be.
        """
        while not self._requests:
            if self._error is not None:
                raise self._error
            if self.is_half_closed:
                if self._reader is not None and self._reader.rest:
                    raise InvalidRequest("the last request breaks off")
                return None
            self._wake_reader = asyncio.get_running_loop().create_future()
            await self._wake_reader
        found = self._requests.popleft()
        self._queued_bytes -= len(found)
        self._count()
        if not self._requests:
            self._give_room()
        return found

    def take_no_more(self) -> None:
        """Leave further requests unread: the method has one."""
        self._taken = True

    # ----------------------------------------------------------------------- responses

    async def send(self, message: bytes) -> None:
        """Send a response, as the client has room for it. Does nothing after the end of the call.

        Raises:
            CallEnded: too many responses wait for room.
        """
        data = memoryview(framed(message))
        at = 0
        while at < len(data):
            room = self._room()
            if self.is_over:
                return
            if room <= 0:
                self._unsent_bytes = len(data) - at
                if not self._count():
                    raise CallEnded(
                        Code.RESOURCE_EXHAUSTED,
                        "too many responses of this connection, or of this node, are unread",
                    )
                self._wake_writer = asyncio.get_running_loop().create_future()
                await self._wake_writer
                continue
            self._begin_response()
            part = data[at : at + room]
            self.stream.send_data(self, bytes(part))
            at += len(part)
        if self._unsent_bytes:
            self._unsent_bytes = 0
            self._count()

    def finish(self, code: int, text: str = "", details: bytes = b"") -> None:
        """End the call with a status. Does nothing on one that has ended."""
        if self.is_over:
            return
        trailers = trailers_of(code, text, details)
        self.stream.send_headers(self, [*([] if self._has_begun else RESPONSE), *trailers], is_end=True)
        self.is_over = True
        self.status = code

    def reject(self, status: int) -> None:
        """End with a status of HTTP what is not a call of gRPC."""
        self.stream.send_headers(self, [(":status", str(status))], is_end=True)
        self.is_over = True

    def end(self) -> None:
        """Note that the client has ended the call, or has gone: its task is cancelled."""
        if not self.is_over:
            self.is_over = True
            self.status = Code.CANCELLED
        if self.task is not None:
            self.task.cancel()

    def wake_writer(self) -> None:
        """Let a response go on for which there may be room now."""
        self._wake(reader=False)

    def release(self) -> None:
        """Give back what the call has kept, after the end of its task."""
        self.is_over = True
        self.task = None
        self._error = None  # its traceback has the call: memory that only a collection would free
        self._give_room()
        self._reader = None
        self._requests.clear()
        self._queued_bytes = self._unsent_bytes = 0
        self._count()

    # ----------------------------------------------------------------------- inner

    def _room(self) -> int:
        return 0 if self.is_over else self.stream.room_of(self)

    def _begin_response(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self.stream.send_headers(self, RESPONSE, is_end=False)

    def _give_room(self) -> None:
        size, self._unread_bytes = self._unread_bytes, 0
        if size:
            self.stream.give_room(self, size)

    def _count(self) -> bool:
        """Count what is kept of requests and responses. Returns whether there is room for it."""
        held_bytes = (
            self._queued_bytes + self._unsent_bytes + (0 if self._reader is None else len(self._reader.rest))
        )
        more, self._held_bytes = held_bytes - self._held_bytes, held_bytes
        return self.stream.hold(self, more)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._wake(reader=True)

    def _wake(self, *, reader: bool) -> None:
        waiting = self._wake_reader if reader else self._wake_writer
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


RESPONSE: Final[list[tuple[str, str]]] = [
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-accept-encoding", ",".join(ENCODINGS)),
]
"""The headers of a response."""


def is_call(headers: Headers) -> int:
    """Return 0 if the headers are those of a call of gRPC, else the status of HTTP that says what is wrong."""
    if _single(headers, b":method") != b"POST":
        return 405
    kind = _single(headers, b"content-type") or b""
    if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
        return 415
    return 0


def _single(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header, the first if there are several, None without one."""
    return next((value for each, value in headers if each == name), None)


def _deadline_ns(headers: Headers) -> int | None:
    timeout = _single(headers, b"grpc-timeout")
    if timeout is None:
        return None
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise InvalidRequest("`grpc-timeout` has up to eight digits and a unit, such as 5S")
    timeout_ns = int(found[1]) * _UNIT_NS[found[2]]
    return monotonic_ns() + timeout_ns if timeout_ns <= _TIMEOUT_NS_MAX else None


def _encoding(headers: Headers) -> str:
    encoding = (_single(headers, b"grpc-encoding") or b"identity").decode("ascii", "replace")
    if encoding not in ENCODINGS:
        raise CallEnded(Code.UNIMPLEMENTED, f"`grpc-encoding` is one of {', '.join(ENCODINGS)}")
    return encoding
