"""Spans of OpenTelemetry for acquisitions, in a program that uses OpenTelemetry.

Only its API is used, and only where the program has imported its SDK: nothing is set up, and nothing is installed for
it. Without it, an acquire pays one look into `sys.modules`. While another thread is still importing it, there are no
spans.

- `lockring.acquire`: from the call to the grant, or to the error.
- `lockring.hold`: from the grant to the release or the loss, linked to its acquire.
- `lockring.release`: the call that releases.

A span ends once, and in the process in which it began: the child of a fork has the same objects, and ends none of them.

The node continues the trace, if its operator lets it: the acquire's context goes along with the request.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, Final, Self

from lockring._version import __version__
from lockring.client.loaded import loaded
from lockring.errors import AcquireTimeout, LockLost, LockringError
from lockring.protocol import Mode

SDK: Final = "opentelemetry.sdk.trace"
"""The module whose presence says that spans go somewhere. The API alone is imported by many libraries."""

_API: Final = "opentelemetry.trace"

NAMES_VARIABLE: Final = "LOCKRING_OTEL_NAMES"
"""Environment variable that keeps the names of locks out of spans, if it is "0"."""


def acquire_span(name: str, mode: int) -> AcquireSpan | None:
    """Begin the span of an acquire; None if OpenTelemetry is not there, or not yet as a whole.

    Args:
        name: the lock's name.
        mode: how the lock is wanted.
    """
    api = loaded(_API)
    return None if api is None or loaded(SDK) is None else AcquireSpan(api, name, mode)


class _Span:
    """A span that ends once, and in no other process than its own. Any thread may end it.

    Args:
        api: the module of OpenTelemetry's API.
        span: OpenTelemetry's own.
    """

    __slots__ = ("_pid", "_turn", "api", "span")

    def __init__(self, api: Any, span: Any) -> None:
        self.api = api
        self.span = span
        self._pid = os.getpid()
        self._turn = threading.Lock()
        """Taken by the end, and never given back: that is one step, whichever threads, signals and forks there are."""

    def link(self) -> Any:
        """Return a link to the span."""
        return self.api.Link(self.span.get_span_context())

    def end(self, outcome: str = "", error: BaseException | None = None) -> None:
        """End the span. Later calls do nothing, and neither do calls in the child of a fork.

        Args:
            outcome: see `outcome_of`; "" for none.
            error: of the call that the span stands for, None without.
        """
        if os.getpid() != self._pid or not self._turn.acquire(blocking=False):
            return
        if outcome:
            self.span.set_attribute("lockring.outcome", outcome)
        if error is not None:
            self.span.set_attribute("error.type", type(error).__qualname__)
            if not isinstance(
                error, AcquireTimeout
            ):  # which is one of the outcomes that the caller asked for
                status = self.api.Status(self.api.StatusCode.ERROR, str(error))
                self.span.set_status(status)
        self.span.end()


class AcquireSpan:
    """The span of one acquire; see `acquire_span`. As a context manager it ends the span, with the error if any.

    Args:
        api: the module of OpenTelemetry's API.
        name: the lock's name.
        mode: how the lock is wanted.
    """

    __slots__ = ("_attributes", "_span", "_tracer")

    def __init__(self, api: Any, name: str, mode: int) -> None:
        self._tracer: Any = api.get_tracer("lockring", __version__)
        self._attributes: dict[str, str | int] = {"lockring.lock.mode": Mode(mode).name.lower()}
        if os.environ.get(NAMES_VARIABLE) != "0":
            self._attributes["lockring.lock.name"] = name
        self._span = _Span(api, self._tracer.start_span("lockring.acquire", attributes=self._attributes))

    @property
    def traceparent(self) -> str:
        """The span as the node gets to know it (W3C Trace Context), "" if there is no trace."""
        context = self._span.span.get_span_context()
        if not context.is_valid:
            return ""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def granted(self, fencing_token: int) -> HoldSpan:
        """Note the grant, and begin the span of its hold."""
        self._span.span.set_attribute("lockring.outcome", "granted")
        self._span.span.set_attribute("lockring.fencing_token", fencing_token)
        attributes = self._attributes | {"lockring.fencing_token": fencing_token}
        hold = self._tracer.start_span("lockring.hold", links=[self._span.link()], attributes=attributes)
        return HoldSpan(self._tracer, _Span(self._span.api, hold))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.end("" if error is None else outcome_of(error), error)


class HoldSpan:
    """The span of one grant.

    Args:
        tracer: of OpenTelemetry.
        span: the span.
    """

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Any, span: _Span) -> None:
        self._tracer = tracer
        self._span = span

    def releasing(self) -> ReleaseSpan:
        """Return the span of the release, which ends this one."""
        return ReleaseSpan(self._tracer, self._span)

    def end(self, outcome: str) -> None:
        """End the span as "released" or "lost". The first call counts, from whichever thread."""
        self._span.end(outcome)


class ReleaseSpan:
    """The span of one release. As a context manager it ends the span, and that of the hold.

    Args:
        tracer: of OpenTelemetry.
        hold: the span of the hold.
    """

    __slots__ = ("_hold", "_span")

    def __init__(self, tracer: Any, hold: _Span) -> None:
        self._hold = hold
        self._span = _Span(hold.api, tracer.start_span("lockring.release", links=[hold.link()]))

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.end("" if error is None else outcome_of(error), error)
        # A release that was interrupted goes on without its caller.
        self._hold.end("lost" if isinstance(error, LockLost) else "released")


def outcome_of(error: BaseException) -> str:
    """Return in a word how an error ended a call: "timeout", "refused" or "cancelled"."""
    if isinstance(error, AcquireTimeout):
        return "timeout"
    return "refused" if isinstance(error, LockringError) else "cancelled"
