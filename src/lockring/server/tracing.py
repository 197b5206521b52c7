"""Traces of a node, sent by OpenTelemetry if its variables ask for that and its packages are there.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names the collector, and `OTEL_TRACES_SAMPLER`
and the other variables of OpenTelemetry's SDK hold as everywhere. A node begins no trace of its own: it continues those
of acquires whose client has one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from lockring._version import __version__
from lockring.ids import NodeId
from lockring.log_events import event

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log: Final = logging.getLogger("lockring.node")


class TraceExport(NamedTuple):
    """The way in which a node's spans leave.

    Attributes:
        tracer: OpenTelemetry's, which makes spans.
        close: sends what is left, and ends; blocks.
    """

    tracer: Any
    close: Callable[[], object]


def tracing_of(node: NodeId) -> TraceExport | None:
    """Return how a node's spans leave, None if no variable asks for them.

    Where the packages are missing, a line of the log says so, and the node runs without.

    Args:
        node: the node's id.
    """
    endpoints = [os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)]
    if not endpoints or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.warning(
            "no traces leave this node: the package %s is not installed; install lockring[otel]",
            error.name,
            extra=event("no-traces"),
        )
        return None
    # The exporter's troubles, such as a collector that is gone, belong into the log of this server, in its format.
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers, theirs.propagate = logging.getLogger("lockring").handlers, False
    about = {"service.name": "lockring", "service.version": __version__, "service.instance.id": node}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("traces go to %s", endpoints[0], extra=event("traces-leave", endpoint=endpoints[0]))
    return TraceExport(provider.get_tracer("lockring", __version__), provider.shutdown)
