"""The spans of acquires at a node: from the arrival of the request to its answer, as a part of its client's trace.

Only acquires that bring a trace are looked at, and only if this node's traces go anywhere (`tracing`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from lockring.ids import ConnectionId, NodeId, RequestNumber
from lockring.protocol import Acquire, GrantReply, Message, Mode, QueueNotice, Refusal
from lockring.server.metrics.exemplars import WaitExemplars

OPEN_MAX: Final = 10_000
"""Spans that may be open at once; further acquires get none, so that waiters of all kinds cost a bounded memory."""

_HEADER: Final = "traceparent"


class RequestSpans:
    """See the module. To be used in one event loop.

    Args:
        tracer: OpenTelemetry's, for all spans.
        node: the node's id.
        exemplars: gets the spans of acquires that were granted, None if nothing does.
    """

    def __init__(self, tracer: Any, node: NodeId, exemplars: WaitExemplars | None = None) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._exemplars = exemplars
        self._node = node
        self._kind = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[ConnectionId, dict[RequestNumber, Any]] = {}
        self._count = 0
        self._has_names = os.environ.get("LOCKRING_OTEL_NAMES") != "0"

    def arrived(self, connection: ConnectionId, messages: Iterable[Message]) -> None:
        """Begin the spans of requests that have just arrived."""
        for message in messages:
            if type(message) is Acquire and message.traceparent and self._count < OPEN_MAX:
                self._begin(connection, message)

    def answered(self, connection: ConnectionId, message: Message) -> None:
        """Note an answer, which ends its request's span."""
        spans = self._open.get(connection)
        if spans is None:
            return
        if type(message) is QueueNotice:
            span = spans.get(message.request)
            if span is not None:
                span.add_event("queued")
        elif type(message) is GrantReply:
            span = spans.pop(message.request, None)
            if span is not None:
                span.set_attribute("lockring.fencing_token", message.generation)
                self._end(span, "granted")
        elif type(message) is Refusal:
            span = spans.pop(message.request, None)
            if span is not None:
                span.set_attribute("error.type", message.code)
                self._end(span, "timeout" if message.code == "timeout" else "refused")
        if not spans:
            del self._open[connection]

    def left(self, connection: ConnectionId) -> None:
        """End the spans of a connection that has ended: their requests come again on another one."""
        for span in self._open.pop(connection, {}).values():
            self._end(span, "disconnected")

    def _begin(self, connection: ConnectionId, message: Acquire) -> None:
        attributes: dict[str, str] = {
            "lockring.node": self._node,
            "lockring.lock.mode": Mode(message.mode).name.lower()
            if message.mode in tuple(Mode)
            else "unknown",
        }
        if self._has_names:
            attributes["lockring.lock.name"] = message.name
        parent = self._propagator.extract({_HEADER: message.traceparent})
        span = self._tracer.start_span(
            "lockring.node/acquire", context=parent, kind=self._kind, attributes=attributes
        )
        self._open.setdefault(connection, {})[message.request] = span
        self._count += 1

    def _end(self, span: Any, outcome: str) -> None:
        self._count -= 1
        span.set_attribute("lockring.outcome", outcome)
        span.end()
        if outcome == "granted" and self._exemplars is not None:
            self._exemplars.granted(span)
