"""Spans of acquires at a node: as parts of their clients' traces, from arrival to answer."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lockring.protocol import (
    Acquire,
    CloseSession,
    GrantReply,
    Keepalive,
    ListedAcquisition,
    LossNotice,
    QueueNotice,
    Refusal,
    Release,
    SlotList,
)
from lockring.server import request_spans
from lockring.server.request_spans import RequestSpans
from lockring.slots import slot_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> RequestSpans:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RequestSpans(provider.get_tracer("test"), "n1")


def acquire(request: int, traceparent: str = TRACEPARENT, mode: int = 0) -> Acquire:
    return Acquire(request, "s", 1000, "o", request, "nightly", mode=mode, traceparent=traceparent)


def outcome(span: ReadableSpan) -> object:
    return (span.attributes or {})["lockring.outcome"]


def test_a_span_is_a_child_of_the_clients_and_ends_with_the_grant(
    spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1), Release(2, "s", 9, "nightly")])
    spans.answered(7, QueueNotice(1))
    assert exporter.get_finished_spans() == ()
    spans.answered(8, GrantReply(1, 5, 1000, 1))
    spans.answered(7, GrantReply(1, 5, 1000, 1))
    (span,) = exporter.get_finished_spans()
    assert span.context is not None and f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None and f"{span.parent.span_id:016x}" == PARENT
    assert span.attributes == {
        "lockring.node": "n1", "lockring.lock.mode": "exclusive", "lockring.lock.name": "nightly",
        "lockring.outcome": "granted", "lockring.fencing_token": 5,
    }  # fmt: skip
    assert [each.name for each in span.events] == ["queued"]


@pytest.mark.parametrize(("code", "expected"), [("timeout", "timeout"), ("denied", "refused")])
def test_a_refusal_ends_it(
    code: str, expected: str, spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1)])
    spans.answered(7, Refusal(1, code, "text", "nightly"))
    (span,) = exporter.get_finished_spans()
    assert outcome(span) == expected
    assert (span.attributes or {})["error.type"] == code


def test_the_end_of_a_connection_ends_its_spans_alone(
    spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1), acquire(2)])
    spans.arrived(8, [acquire(1)])
    spans.left(7)
    spans.left(9)
    assert [outcome(span) for span in exporter.get_finished_spans()] == ["disconnected"] * 2
    spans.answered(8, GrantReply(1, 5, 1000, 1))
    assert len(exporter.get_finished_spans()) == 3


@pytest.mark.parametrize(
    "traceparent",
    ["", "nonsense", "00-\u0000-zz", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "0" * 600],
)
def test_acquires_without_a_trace_and_those_with_a_malformed_one_have_no_span(
    traceparent: str, spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1, traceparent)])
    assert spans.count == 0
    spans.answered(7, GrantReply(1, 5, 1000, 1))
    assert exporter.get_finished_spans() == ()


def test_a_mode_of_a_later_version_is_unknown(spans: RequestSpans, exporter: InMemorySpanExporter) -> None:
    spans.arrived(7, [acquire(1, mode=99)])
    spans.answered(7, GrantReply(1, 5, 1000, 1))
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["lockring.lock.mode"] == "unknown"


@pytest.mark.parametrize(
    ("message", "over"),
    [
        (Release(9, "s", 2, "nightly"), [2]),
        (Release(9, "s", 2, "nightly", acquire=2), [2]),
        (Release(9, "s", 2, "nightly", acquire=1), []),
        (Release(9, "t", 2, "nightly"), []),
        (CloseSession(9, "s"), [1, 2, 3]),
        (CloseSession(9, "t"), []),
        (Keepalive(9, "s", 1000, "o", 3, 3, 0), []),
        (
            Keepalive(
                9, "s", 1000, "o", 2, 1, 0,
                listed=[SlotList(slot_of("nightly"), [ListedAcquisition(1, "nightly")])],
            ),
            [2],
        ),
        (Keepalive(9, "s", 1000, "o", 3, 1, 0, listed=[SlotList(slot_of("other"), [])]), []),
    ],
)  # fmt: skip
def test_a_message_that_gives_up_waiting_acquires_ends_their_spans(
    message: Release | CloseSession | Keepalive,
    over: list[int],
    spans: RequestSpans,
    exporter: InMemorySpanExporter,
) -> None:
    spans.arrived(7, [acquire(request) for request in (1, 2, 3)])
    spans.arrived(8, [message])
    assert spans.count == 3, "another connection gives up nothing here"
    spans.arrived(7, [message])
    assert [outcome(span) for span in exporter.get_finished_spans()] == ["cancelled"] * len(over)
    assert spans.count == 3 - len(over)
    for request in (1, 2, 3):
        spans.answered(7, GrantReply(request, 5, 1000, request))
    assert spans.count == 0
    assert len(exporter.get_finished_spans()) == 3


def test_a_repetition_is_answered_in_place_of_the_former_request(
    spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1)])
    for again in ("", TRACEPARENT):
        spans.arrived(7, [Acquire(2, "s", 1000, "o", 1, "nightly", traceparent=again)])
    assert [outcome(span) for span in exporter.get_finished_spans()] == ["repeated"]
    assert spans.count == 1
    spans.answered(7, GrantReply(2, 5, 1000, 2))
    assert spans.count == 0


def test_a_request_that_arrives_twice_has_one_span(
    spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1), acquire(2)])
    spans.arrived(7, [acquire(2), acquire(3)])
    assert spans.count == 3
    spans.left(7)
    assert spans.count == 0
    assert len(exporter.get_finished_spans()) == 3


def test_a_loss_ends_the_span_of_a_grant_that_was_never_answered(
    spans: RequestSpans, exporter: InMemorySpanExporter
) -> None:
    spans.arrived(7, [acquire(1)])
    spans.answered(7, LossNotice("t", 1, "nightly", "expired"))
    spans.answered(7, LossNotice("s", 1, "nightly", "expired"))
    (span,) = exporter.get_finished_spans()
    assert outcome(span) == "refused"
    assert (span.attributes or {})["error.type"] == "expired"
    assert spans.count == 0


def test_open_spans_are_bounded(
    spans: RequestSpans, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_spans, "OPEN_MAX", 3)
    spans.arrived(7, [acquire(request) for request in range(1, 10)])
    assert spans.count == 3
    spans.left(7)
    assert len(exporter.get_finished_spans()) == 3
    assert spans.count == 0
    spans.arrived(7, [acquire(1)])
    spans.answered(7, GrantReply(1, 5, 1000, 1))
    assert len(exporter.get_finished_spans()) == 4
