"""Spans of OpenTelemetry for acquisitions, in a program that uses OpenTelemetry.

Only its API is used, and only where the program has imported its SDK: nothing is set up, and nothing is installed for
it. Without it, an acquire pays one look into `sys.modules`.

- `lockring.acquire`: from the call to the grant, or to the error.
- `lockring.hold`: from the grant to the release or the loss, linked to its acquire.
- `lockring.release`: the call that releases.

The node continues the trace, if its operator lets it: the acquire's context goes along with the request.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any, Final, Self

from lockring._version import __version__
from lockring.errors import AcquireTimeout, LockringError
from lockring.protocol import Mode

SDK: Final = "opentelemetry.sdk.trace"
"""The module whose presence says that spans go somewhere. The API alone is imported by many libraries."""

_API: Final = "opentelemetry.trace"

NAMES_VARIABLE: Final = "LOCKRING_OTEL_NAMES"
"""Environment variable that keeps the names of locks out of spans, if it is "0"."""


class AcquireSpan:
    """The span of one acquire. As a context manager it ends the span, with the error if there is one.

    Args:
        name: the lock's name.
        mode: how the lock is wanted.
    """

    __slots__ = ("_attributes", "_span", "_tracer")

    def __init__(self, name: str, mode: int) -> None:
        self._tracer: Any = sys.modules[_API].get_tracer("lockring", __version__)
        self._attributes: dict[str, str | int] = {"lockring.lock.mode": Mode(mode).name.lower()}
        if os.environ.get(NAMES_VARIABLE) != "0":
            self._attributes["lockring.lock.name"] = name
        self._span: Any = self._tracer.start_span("lockring.acquire", attributes=self._attributes)

    @property
    def traceparent(self) -> str:
        """The span as the node gets to know it (W3C Trace Context), "" if there is no trace."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return ""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def granted(self, fencing_token: int) -> HoldSpan:
        """Note the grant, and begin the span of its hold."""
        self._span.set_attribute("lockring.outcome", "granted")
        self._span.set_attribute("lockring.fencing_token", fencing_token)
        link = sys.modules[_API].Link(self._span.get_span_context())
        hold = self._tracer.start_span("lockring.hold", links=[link], attributes=self._attributes)
        hold.set_attribute("lockring.fencing_token", fencing_token)
        return HoldSpan(self._tracer, hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _fail(self._span, error)
        self._span.end()


class HoldSpan:
    """The span of one grant.

    Args:
        tracer: of OpenTelemetry.
        span: the span.
    """

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer = tracer
        self._span = span

    def releasing(self) -> ReleaseSpan:
        """Return the span of the release, which ends this one."""
        return ReleaseSpan(self._tracer, self)

    def end(self, outcome: str) -> None:
        """End the span. Later calls do nothing."""
        if self._span.is_recording():
            self._span.set_attribute("lockring.outcome", outcome)
        self._span.end()


class ReleaseSpan:
    """The span of one release. As a context manager it ends the span, and that of the hold."""

    __slots__ = ("_hold", "_span")

    def __init__(self, tracer: Any, hold: HoldSpan) -> None:
        self._hold = hold
        self._span: Any = tracer.start_span(
            "lockring.release", links=[sys.modules[_API].Link(hold._span.get_span_context())]
        )

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _fail(self._span, error)
        self._span.end()
        self._hold.end("released" if error is None else outcome_of(error))


def outcome_of(error: BaseException) -> str:
    """Return in a word how an error ended a call: "timeout", "refused" or "cancelled"."""
    if isinstance(error, AcquireTimeout):
        return "timeout"
    return "refused" if isinstance(error, LockringError) else "cancelled"


def _fail(span: Any, error: BaseException) -> None:
    span.set_attribute("lockring.outcome", outcome_of(error))
    span.set_attribute("error.type", type(error).__qualname__)
    if not isinstance(error, AcquireTimeout):  # which is one of the outcomes that the caller asked for
        status = sys.modules[_API]
        span.set_status(status.Status(status.StatusCode.ERROR, str(error)))
