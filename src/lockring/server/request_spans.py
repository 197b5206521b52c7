"""The spans of acquires at a node: from the arrival of the request to its answer, as a part of its client's trace.

Only acquires that bring a trace are looked at, and only if this node's traces go anywhere (`tracing`).

Each span that has begun ends: with the answer, or with that which says that no answer will come. That is the end of
the connection or of the node's life, a release of what is still waited for, the end of its session, a keepalive that
lists it no longer, or a repetition under another request number, which is answered instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from lockring.ids import AcquisitionNumber, ConnectionId, NodeId, RequestNumber, SessionId
from lockring.protocol import (
    Acquire,
    CloseSession,
    GrantReply,
    Keepalive,
    LossNotice,
    Message,
    Mode,
    QueueNotice,
    Refusal,
    Release,
)
from lockring.slots import slot_of

OPEN_MAX: Final = 10_000
"""Spans that may be open at once; further acquires get none, so that waiters of all kinds cost a bounded memory."""

_HEADER: Final = "traceparent"

_Acquisition = tuple[SessionId, AcquisitionNumber]


class _OpenSpan(NamedTuple):
    span: Any
    acquire: Acquire


class _ConnectionSpans:
    """The open spans of one connection, by their requests and by what these ask for: one for each of either."""

    def __init__(self) -> None:
        self.by_request: dict[RequestNumber, _OpenSpan] = {}
        self.by_acquisition: dict[_Acquisition, RequestNumber] = {}


class RequestSpans:
    """See the module. To be used in one event loop.

    Args:
        tracer: OpenTelemetry's, for all spans.
        node: the node's id.
    """

    def __init__(self, tracer: Any, node: NodeId) -> None:
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._node = node
        self._kind = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()
        self._span_in = get_current_span
        self._open: dict[ConnectionId, _ConnectionSpans] = {}
        self._count = 0
        self._has_names = os.environ.get("LOCKRING_OTEL_NAMES") != "0"

    @property
    def count(self) -> int:
        """How many spans are open."""
        return self._count

    def arrived(self, connection: ConnectionId, messages: Iterable[Message]) -> None:
        """Begin the spans of requests that have just arrived, and end those of requests that they give up.

        A message that waits for its turn may come twice: a request that has a span keeps it.
        """
        for message in messages:
            if type(message) is Acquire:
                self._asked(connection, message)
            elif connection in self._open:
                self._given_up(connection, message)

    def answered(self, connection: ConnectionId, message: Message) -> None:
        """Note an answer, which ends its request's span."""
        spans = self._open.get(connection)
        if spans is None:
            return
        if type(message) is QueueNotice:
            found = spans.by_request.get(message.request)
            if found is not None:
                found.span.add_event("queued")
        elif type(message) is GrantReply:
            about = {"lockring.fencing_token": message.generation}
            self._end(connection, message.request, "granted", about)
        elif type(message) is Refusal:
            outcome = "timeout" if message.code == "timeout" else "refused"
            self._end(connection, message.request, outcome, {"error.type": message.code})
        elif type(message) is LossNotice:
            number = spans.by_acquisition.get((message.session, message.acquisition))
            if number is not None:
                self._end(connection, number, "refused", {"error.type": message.reason})

    def left(self, connection: ConnectionId) -> None:
        """End the spans of a connection that has ended: their requests come again on another one."""
        spans = self._open.get(connection)
        for number in [] if spans is None else list(spans.by_request):
            self._end(connection, number, "disconnected")

    # ----------------------------------------------------------------------- inner

    def _asked(self, connection: ConnectionId, message: Acquire) -> None:
        spans = self._open.get(connection)
        if spans is not None:
            if message.request in spans.by_request:
                return
            former = spans.by_acquisition.get((message.session, message.acquisition))
            if former is not None:
                self._end(connection, former, "repeated")
        if message.traceparent and self._count < OPEN_MAX:
            self._begin(connection, message)

    def _begin(self, connection: ConnectionId, message: Acquire) -> None:
        parent = self._propagator.extract({_HEADER: message.traceparent})
        if not self._span_in(parent).get_span_context().is_valid:
            return  # malformed: the node begins no trace of its own
        attributes: dict[str, str] = {
            "lockring.node": self._node,
            "lockring.lock.mode": Mode(message.mode).name.lower()
            if message.mode in tuple(Mode)
            else "unknown",
        }
        if self._has_names:
            attributes["lockring.lock.name"] = message.name
        span = self._tracer.start_span(
            "lockring.node/acquire", context=parent, kind=self._kind, attributes=attributes
        )
        spans = self._open.setdefault(connection, _ConnectionSpans())
        spans.by_request[message.request] = _OpenSpan(span, message)
        spans.by_acquisition[message.session, message.acquisition] = message.request
        self._count += 1

    def _given_up(self, connection: ConnectionId, message: Message) -> None:
        """End the spans of the acquires to which a message's sender wants no answer any more."""
        spans = self._open[connection].by_request
        over: list[RequestNumber] = []
        if type(message) is Release:
            number = self._open[connection].by_acquisition.get((message.session, message.acquisition))
            if number is not None and message.acquire in (0, number):
                over = [number]
        elif type(message) is CloseSession:
            over = [number for number, each in spans.items() if each.acquire.session == message.session]
        elif type(message) is Keepalive and message.listed:
            listed = {each.slot: {one.acquisition for one in each.acquisitions} for each in message.listed}
            over = [
                number
                for number, (_, acquire) in spans.items()
                if acquire.session == message.session
                and acquire.acquisition <= message.through
                and acquire.acquisition not in listed.get(slot_of(acquire.name), {acquire.acquisition})
            ]
        for number in over:
            self._end(connection, number, "cancelled")

    def _end(
        self,
        connection: ConnectionId,
        number: RequestNumber,
        outcome: str,
        about: dict[str, Any] | None = None,
    ) -> None:
        """End the span of a request, if it has one."""
        spans = self._open[connection]
        found = spans.by_request.pop(number, None)
        if found is None:
            return
        spans.by_acquisition.pop((found.acquire.session, found.acquire.acquisition), None)
        if not spans.by_request:
            del self._open[connection]
        self._count -= 1
        found.span.set_attributes({**(about or {}), "lockring.outcome": outcome})
        found.span.end()
