"""Traces of a node, sent by OpenTelemetry if its variables ask for that and its packages are there.

The variables are those of OpenTelemetry's specification, and mean what it says. An endpoint for OTLP asks for traces,
or `OTEL_TRACES_EXPORTER=otlp` does; `OTEL_TRACES_EXPORTER=none` and `OTEL_SDK_DISABLED=true` forbid them. An empty
variable counts as none, and a value that cannot be used is logged and left out. A node begins no trace of its own: it
continues those of acquires whose client has one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from lockring._version import __version__
from lockring.ids import NodeId
from lockring.log_events import event

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER_VARIABLE: Final = "OTEL_TRACES_EXPORTER"
DISABLED_VARIABLE: Final = "OTEL_SDK_DISABLED"

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
"""The specification's, for an exporter that is asked for by its name alone."""

CLOSE_S_MAX: Final = 2.0
"""How long the end of a node waits for the collector, in seconds."""

_PROTOCOL: Final = "http/protobuf"

log: Final = logging.getLogger("lockring.node")


class TraceExport(NamedTuple):
    """The way in which a node's spans leave.

    Attributes:
        tracer: OpenTelemetry's, which makes spans.
        close: sends what is left, and ends; blocks for `CLOSE_S_MAX` at most.
    """

    tracer: Any
    close: Callable[[], object]


def tracing_of(node: NodeId) -> TraceExport | None:
    """Return how a node's spans leave, None if no variable asks for them.

    Where the packages are missing, or a variable cannot be used, a line of the log says so, and the node runs without.

    Args:
        node: the node's id.
    """
    endpoint = _endpoint()
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.warning(
            "no traces leave this node: the package %s is not installed; install lockring[otel]",
            error.name,
            extra=event("no-traces"),
        )
        return None
    protocol = _first(PROTOCOL_VARIABLES)
    if protocol not in ("", _PROTOCOL):
        log.warning(
            "traces leave this node as %s, and not as %s, which %s asks for",
            _PROTOCOL,
            protocol,
            next(name for name in PROTOCOL_VARIABLES if os.environ.get(name)),
            extra=event("traces-setting-unused"),
        )
    try:
        about = {"service.name": "lockring", "service.version": __version__, "service.instance.id": node}
        named = OTELResourceDetector().detect().attributes  # by the variables, which count for more
        resource = Resource.create({key: value for key, value in about.items() if key not in named})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:  # of a variable, such as a batch that is larger than the queue
        log.warning(
            "no traces leave this node: OpenTelemetry refuses a variable: %s", error, extra=event("no-traces")
        )
        return None
    log.info("traces go to %s", endpoint, extra=event("traces-leave", endpoint=endpoint))
    return TraceExport(provider.get_tracer("lockring", __version__), lambda: _close(provider.shutdown))


def _endpoint() -> str:
    """Return where traces go, "" if no variable asks for them."""
    if os.environ.get(DISABLED_VARIABLE, "").strip().lower() == "true":
        return ""
    exporters = [each.strip() for each in os.environ.get(EXPORTER_VARIABLE, "").split(",") if each.strip()]
    endpoint = _first(ENDPOINT_VARIABLES)
    if not exporters:
        return endpoint
    unknown = [each for each in exporters if each not in ("otlp", "none")]
    if unknown:
        log.warning(
            "%s: a node sends traces by otlp, and not by %s",
            EXPORTER_VARIABLE,
            ", ".join(unknown),
            extra=event("traces-setting-unused"),
        )
    return endpoint or DEFAULT_ENDPOINT if "otlp" in exporters else ""


def _first(names: tuple[str, ...]) -> str:
    """Return the first of some variables that is set and not empty, "" for none."""
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _close(shutdown: Callable[[], object]) -> None:
    """Send what is left, in a thread that does not keep the process: a collector may answer late, or never."""
    thread = threading.Thread(target=shutdown, name="lockring-traces", daemon=True)
    thread.start()
    thread.join(CLOSE_S_MAX)
    if thread.is_alive():
        log.warning(
            "the collector of traces has not answered within %g s: the newest spans may be missing there",
            CLOSE_S_MAX,
            extra=event("traces-unsent"),
        )
