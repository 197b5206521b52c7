"""Traces over a real node, as a collector receives them."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

import lockring
from tests.cluster.grpc_calls import PATIENCE_S, Caller
from tests.cluster.running import Running, running
from tests.processes import eventually

pytestmark = pytest.mark.cluster

SERVE = (
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--coordinator-listen",
    "127.0.0.1:0",
    "--no-grpc",
    "--in-memory",
    "--new-cluster",
)


class Received(NamedTuple):
    """A span that a collector has received."""

    service: str
    name: str
    trace_id: str
    parent_id: str
    attributes: dict[str, str]


class Collector:
    """A collector of OTLP over HTTP.

    Attributes:
        spans: all that it has received.
        endpoint: its address.
    """

    def __init__(self) -> None:
        self.spans: list[Received] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base says so
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_service in request.resource_spans:
            about = {each.key: each.value.string_value for each in of_service.resource.attributes}
            for span in (span for scope in of_service.scope_spans for span in scope.spans):
                attributes = {each.key: each.value.string_value for each in span.attributes}
                self.spans.append(
                    Received(
                        about["service.instance.id"],
                        span.name,
                        span.trace_id.hex(),
                        span.parent_span_id.hex(),
                        attributes,
                    )
                )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def traced(endpoint: str, delay_ms: str) -> list[str]:
    """Return the command that starts a server whose traces go to an endpoint, after a delay at most."""
    return ["env", f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}", f"OTEL_BSP_SCHEDULE_DELAY={delay_ms}"]


def address_of(server: Running) -> str:
    server.wait_for("clients reach it with")
    return server.text.partition("LOCKRING_SERVER=")[2].partition(";")[0]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_nodes_part_of_a_trace_reaches_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    with running(*SERVE, within=traced(collector.endpoint, "100")) as server:
        server.wait_for("traces go to")
        with lockring.Client(address_of(server)) as client:
            with provider.get_tracer("test").start_as_current_span("job") as job:
                client.lock("nightly").acquire().release()
            context = job.get_span_context()
            eventually(lambda: collector.spans)
    (span,) = collector.spans
    assert span.service == "node-1"
    assert span.name == "lockring.node/acquire"
    assert span.trace_id == f"{context.trace_id:032x}"
    assert span.parent_id not in ("", f"{context.span_id:016x}"), "the parent is the client's acquire"
    assert span.attributes["lockring.lock.name"] == "nightly"
    assert span.attributes["lockring.outcome"] == "granted"


def test_what_is_left_is_sent_at_the_end_and_a_collector_that_is_gone_stops_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    for endpoint, count in ((collector.endpoint, 1), ("http://127.0.0.1:1", 0)):
        collector.spans.clear()
        with running(*SERVE, within=traced(endpoint, "60000")) as server:
            with lockring.Client(address_of(server)) as client:
                client.lock("nightly").acquire().release()
            server.popen.terminate()
            assert server.wait() == 0
        assert len(collector.spans) == count


def test_a_call_over_grpc_brings_its_trace_along(collector: Collector) -> None:
    command = tuple("--grpc-listen=127.0.0.1:0" if each == "--no-grpc" else each for each in SERVE)
    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with running(*command, within=traced(collector.endpoint, "100")) as server:
        server.wait_for("clients reach it with")
        with Caller(server.text.partition("gRPC API at ")[2].split()[0]) as caller:
            for name, shown in (("untraced", "nonsense"), ("nightly", f"00-{trace_id}-{parent_id}-01")):
                caller.stub.Lock(
                    caller.request(name, "k"), timeout=PATIENCE_S, metadata=(("traceparent", shown),)
                )
            eventually(lambda: collector.spans)
    (span,) = collector.spans
    assert (span.trace_id, span.parent_id) == (trace_id, parent_id)
    assert span.attributes["lockring.lock.name"] == "nightly"
    assert span.attributes["lockring.outcome"] == "granted"
