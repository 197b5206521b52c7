"""The variables of OpenTelemetry, as a node follows them, and the end of a node whose collector is silent."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lockring.server import tracing
from lockring.server.tracing import DEFAULT_ENDPOINT, TraceExport, tracing_of
from tests.processes import PATIENCE_S

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TraceExport]]:
    """Those to close after the test, before any batch is due."""
    monkeypatch.setattr(tracing, "CLOSE_S_MAX", PATIENCE_S)
    found: list[TraceExport] = []
    yield found
    for each in found:
        each.close()


def traces(made: list[TraceExport], monkeypatch: pytest.MonkeyPatch, **variables: str) -> TraceExport | None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    export = tracing_of("N1")
    if export is not None:
        made.append(export)
    return export


def resource_of(export: TraceExport | None) -> dict[str, Any]:
    assert export is not None
    return dict(export.tracer.resource.attributes)


@pytest.mark.parametrize(
    ("variables", "leave"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": ""}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "console"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "1"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_leave_where_the_variables_say_so(
    variables: dict[str, str], leave: bool, made: list[TraceExport], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (traces(made, monkeypatch, **variables) is not None) == leave


def test_an_exporter_without_an_endpoint_has_that_of_the_specification(
    made: list[TraceExport], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lockring")
    traces(made, monkeypatch, OTEL_TRACES_EXPORTER="otlp")
    assert f"traces go to {DEFAULT_ENDPOINT}" in caplog.text


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "lockring"),
        ({"OTEL_SERVICE_NAME": "locks"}, "locks"),
        ({"OTEL_SERVICE_NAME": ""}, "lockring"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=locks,team=red"}, "locks"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=locks", "OTEL_SERVICE_NAME": "more"}, "more"),
    ],
)
def test_the_variables_name_the_service(
    variables: dict[str, str], name: str, made: list[TraceExport], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = resource_of(traces(made, monkeypatch, **ENDPOINT, **variables))
    assert resource["service.name"] == name
    assert resource["service.instance.id"] == "N1"
    assert resource.get("team") == ("red" if "team" in str(variables) else None)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "and not as grpc, which OTEL_EXPORTER_OTLP_PROTOCOL asks for"),
        ({"OTEL_TRACES_EXPORTER": "zipkin,otlp"}, "OTEL_TRACES_EXPORTER: a node sends traces by otlp, and not by zipkin"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "no traces leave this node: OpenTelemetry refuses a variable: max_export"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "long"}, "Invalid timeout value 'long'"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_logged_and_the_node_goes_on(
    variables: dict[str, str],
    words: str,
    made: list[TraceExport],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    traces(made, monkeypatch, **ENDPOINT, **variables)
    assert words in caplog.text


def test_the_end_does_not_wait_for_a_collector_that_never_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The collector accepts, and is silent: by itself, the exporter would wait for it for 10 s and more."""
    monkeypatch.setattr(tracing, "CLOSE_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        export = tracing_of("N1")
        assert export is not None
        export.tracer.start_span("never seen").end()
        began_s = time.monotonic()
        export.close()
        assert time.monotonic() - began_s < PATIENCE_S
    assert "the collector of traces has not answered within 0.2 s" in caplog.text
    (flushing,) = [each for each in threading.enumerate() if each.name == "lockring-traces"]
    assert flushing.daemon, "so the process does not wait for it"
