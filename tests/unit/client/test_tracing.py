"""Spans of acquires, holds and releases, in a program that has OpenTelemetry; and nothing in one that has not."""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lockring
import lockring.aio
from lockring.client.loaded import loaded
from lockring.client.tracing import NAMES_VARIABLE, SDK, HoldSpan, acquire_span
from lockring.errors import LockLost, NotHeld
from lockring.protocol import Acquire, FollowGroup, Mode
from tests.processes import PATIENCE_S, eventually
from tests.unit.client.lock_server import LockServer
from tests.unit.client.test_fork import in_child

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


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


def test_a_hold_ends_once_whatever_comes_after_its_end(
    server: LockServer, client: lockring.Client, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    lost, released = client.lock("lost").acquire(), client.lock("released").acquire()
    server.lose("lost")
    assert lost.lost.wait(PATIENCE_S)
    with pytest.raises(LockLost):
        lost.release()
    released.release()
    with pytest.raises(NotHeld):
        released.release()
    outcomes = {
        attributes(span)["lockring.lock.name"]: attributes(span)["lockring.outcome"]
        for span in spans.ended()
        if span.name == "lockring.hold"
    }
    assert outcomes == {"lost": "lost", "released": "released"}
    assert [record.getMessage() for record in caplog.records if "opentelemetry" in record.name] == []


def test_the_first_end_of_a_hold_counts_from_whichever_thread(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    acquire = acquire_span("x", Mode.EXCLUSIVE)
    assert acquire is not None
    hold: HoldSpan = acquire.granted(1)
    hold.end("released")
    thread = threading.Thread(target=hold.end, args=("lost",))
    thread.start()
    thread.join()
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "released"
    assert caplog.records == []


def test_a_release_that_finds_its_lock_lost_ends_the_hold_as_lost(spans: Spans) -> None:
    acquire = acquire_span("x", Mode.EXCLUSIVE)
    assert acquire is not None
    hold = acquire.granted(1)
    with pytest.raises(LockLost), hold.releasing():
        raise LockLost("it was lost", name="x")
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "lost"
    assert attributes(spans.one("lockring.release"))["error.type"] == "LockLost"


def test_locks_that_are_given_back_since_another_one_failed_end_their_holds(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    with lockring.Client(server.address) as other, other.lock("b"):
        with pytest.raises(lockring.AcquireTimeout):
            client.acquire_all(["a", "b"], timeout=0)
        (hold,) = [span for span in spans.ended() if span.name == "lockring.hold"]
        assert attributes(hold)["lockring.lock.name"] == "a"
        assert attributes(hold)["lockring.outcome"] == "released"


# ----------------------------------------------------------------------- forks


@forks
def test_a_forked_child_ends_no_span_of_its_parent(client: lockring.Client, spans: Spans) -> None:
    grant, membership = client.lock("nightly").acquire(), client.group("crawl").join("me")
    acquiring = acquire_span("x", Mode.EXCLUSIVE)
    assert acquiring is not None

    def child() -> None:
        before = len(spans.ended())
        with acquiring:
            assert not grant.held
        with pytest.raises(LockLost, match="forked"):
            grant.release()
        with pytest.raises(LockLost, match="forked"):
            membership.leave()
        # The release is a call of the child, and so is its span.
        assert {span.name for span in spans.ended()[before:]} <= {"lockring.release"}

    in_child(child)
    assert not [span for span in spans.ended() if span.name == "lockring.hold"]
    grant.release()
    membership.leave()
    holds = [attributes(span) for span in spans.ended() if span.name == "lockring.hold"]
    assert [each["lockring.outcome"] for each in holds] == ["released", "released"]


@forks
@pytest.mark.parametrize("own_thread", [False, True])
def test_nor_does_one_of_an_asyncio_client(own_thread: bool, server: LockServer, spans: Spans) -> None:
    async def main() -> None:
        async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
            grant = await client.lock("nightly").acquire()

            def child() -> None:
                assert not grant.held
                assert [span.name for span in spans.ended()] == ["lockring.acquire"]

            in_child(child)
            await grant.release()

    asyncio.run(main())
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "released"


# ----------------------------------------------------------------------- groups


def check_spans_of_a_membership(spans: Spans, server: LockServer) -> None:
    acquire, hold, release = (spans.one(f"lockring.{each}") for each in ("acquire", "hold", "release"))
    assert attributes(acquire) == {
        "lockring.lock.mode": "shared",
        "lockring.lock.name": "group:crawl",
        "lockring.outcome": "granted",
        "lockring.fencing_token": 1,
    }
    assert attributes(hold) == attributes(acquire) | {"lockring.outcome": "released"}
    assert [link.context for link in hold.links] == [acquire.context]
    assert [link.context for link in release.links] == [hold.context]
    (asked,) = [each for each in server.seen if isinstance(each, Acquire)]
    assert asked.traceparent == traceparent(acquire)
    assert asked.payload != b""


def test_a_membership_has_the_spans_of_its_groups_lock(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    with client.group("crawl").join("me"):
        assert [span.name for span in spans.ended()] == ["lockring.acquire"]
    check_spans_of_a_membership(spans, server)


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_membership_of_the_asyncio_client_has_them_too(
    own_thread: bool, server: LockServer, spans: Spans
) -> None:
    async def work() -> None:
        async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
            membership = await client.group("crawl").join("me")
            await membership.leave()

    asyncio.run(work())
    check_spans_of_a_membership(spans, server)


def test_the_loss_of_a_membership_ends_its_hold(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    membership = client.group("crawl").join("me")
    server.lose("group:crawl")
    assert membership.lost.wait(PATIENCE_S)
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "lost"


def test_a_membership_without_a_view_is_given_back_and_its_hold_ends(
    server: LockServer, client: lockring.Client, spans: Spans
) -> None:
    server.mute.add(FollowGroup)
    with pytest.raises(lockring.Unavailable):
        client.group("crawl").join("me", timeout=0)
    assert attributes(spans.one("lockring.hold"))["lockring.outcome"] == "released"


# ----------------------------------------------------------------------- imports under way


@pytest.mark.parametrize("name", [SDK, "opentelemetry.trace"])
@pytest.mark.parametrize("state", ["missing", "under way"])
def test_a_program_that_is_still_importing_opentelemetry_gets_locks_without_spans(
    client: lockring.Client, spans: Spans, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    if state == "under way":
        begun = ModuleType(name)
        begun.__spec__ = importlib.machinery.ModuleSpec(name, None)
        begun.__spec__._initializing = True  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, begun)
    else:
        monkeypatch.delitem(sys.modules, name)
    client.lock("nightly").acquire().release()
    client.group("crawl").join().leave()
    client.acquire_all(["a", "b"]).release()
    assert spans.ended() == []


def test_an_import_counts_once_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_tracer.py").write_text(
        "import sys\nfrom lockring.client.loaded import loaded\nDURING = loaded(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("half_a_tracer")
    assert module.DURING is None
    assert loaded("half_a_tracer") is module
    del sys.modules["half_a_tracer"]


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
