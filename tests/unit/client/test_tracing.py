"""Spans of acquires, holds and releases, in a program that has OpenTelemetry; and nothing in one that has not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lockring
import lockring.aio
from lockring.client.tracing import NAMES_VARIABLE
from lockring.protocol import Acquire
from tests.processes import PATIENCE_S, eventually
from tests.unit.client.lock_server import LockServer


class Spans:
    """The spans of a program whose provider of traces is this one."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        eventually(lambda: any(span.name == name for span in self.ended()))
        (found,) = [span for span in self.ended() if span.name == name]
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    made = Spans()
    # The program's provider can be set only once in a process.
    monkeypatch.setattr(trace, "get_tracer", made.provider.get_tracer)
    yield made
    made.provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def check_spans_of_a_lock(spans: Spans, server: LockServer) -> None:
    acquire, hold, release = (spans.one(f"lockring.{each}") for each in ("acquire", "hold", "release"))
    assert attributes(acquire) == {
        "lockring.lock.mode": "exclusive",
        "lockring.lock.name": "nightly",
        "lockring.outcome": "granted",
        "lockring.fencing_token": 1,
    }
    assert attributes(hold) == attributes(acquire) | {"lockring.outcome": "released"}
    assert [link.context for link in hold.links] == [acquire.context]
    assert [link.context for link in release.links] == [hold.context]
    (asked,) = [each for each in server.seen if isinstance(each, Acquire)]
    assert asked.traceparent == traceparent(acquire)


def test_a_lock_has_spans_of_its_acquire_its_hold_and_its_release(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    with client.lock("nightly"):
        assert [span.name for span in spans.ended()] == ["lockring.acquire"]
    check_spans_of_a_lock(spans, server)


@pytest.mark.parametrize("own_thread", [False, True])
def test_the_asyncio_client_has_them_too(own_thread: bool, spans: Spans) -> None:
    async def work(server: LockServer) -> None:
        async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
            grant = await client.lock("nightly").acquire()
            await grant.release()

    with LockServer() as server:
        asyncio.run(work(server))
        check_spans_of_a_lock(spans, server)


def test_several_locks_have_spans_each(client: lockring.Client, spans: Spans) -> None:
    client.acquire_all(["b", "a"], shared=True).release()
    acquires = [attributes(span) for span in spans.ended() if span.name == "lockring.acquire"]
    assert [each["lockring.lock.name"] for each in acquires] == ["a", "b"]
    assert {each["lockring.lock.mode"] for each in acquires} == {"shared"}
    assert sum(span.name == "lockring.hold" for span in spans.ended()) == 2


def test_a_span_begins_in_the_trace_of_its_caller(client: lockring.Client, spans: Spans) -> None:
    with spans.provider.get_tracer("job").start_as_current_span("job") as job:
        client.lock("nightly").acquire().release()
    for name in ("acquire", "hold", "release"):
        span = spans.one(f"lockring.{name}")
        assert span.parent == job.get_span_context()


def test_a_timeout_is_an_outcome_and_no_error(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    with lockring.Client(server.address) as other:
        grant = other.lock("nightly").acquire()
        with pytest.raises(lockring.AcquireTimeout):
            client.lock("nightly").acquire(timeout=0)
        failed = next(span for span in spans.ended() if attributes(span)["lockring.outcome"] == "timeout")
        assert attributes(failed)["error.type"] == "AcquireTimeout"
        assert not failed.status.is_ok or failed.status.status_code is trace.StatusCode.UNSET
        assert failed.status.status_code is not trace.StatusCode.ERROR
        grant.release()


def test_an_error_ends_the_span_as_one(spans: Spans) -> None:
    with lockring.Client("127.0.0.1:1", connect_timeout=0.2) as client, pytest.raises(lockring.Unavailable):
        client.lock("nightly").acquire()
    failed = spans.one("lockring.acquire")
    assert attributes(failed)["lockring.outcome"] == "refused"
    assert failed.status.status_code is trace.StatusCode.ERROR


def test_a_loss_ends_the_hold(server: LockServer, client: lockring.Client, spans: Spans) -> None:
    grant = client.lock("nightly").acquire()
    server.lose("nightly")
    assert grant.lost.wait(PATIENCE_S)
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "lost"


def test_names_stay_out_of_spans_on_request(
    client: lockring.Client, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAMES_VARIABLE, "0")
    client.lock("nightly").acquire().release()
    assert all("lockring.lock.name" not in attributes(span) for span in spans.ended())


def test_a_program_without_a_provider_sends_no_trace(server: LockServer, client: lockring.Client) -> None:
    client.lock("nightly").acquire().release()
    (asked,) = [each for each in server.seen if isinstance(each, Acquire)]
    assert asked.traceparent == ""


def test_the_client_imports_nothing_of_opentelemetry() -> None:
    program = (
        "import sys, lockring, lockring.aio; print([each for each in sys.modules if 'opentelemetry' in each])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.strip() == "[]"
