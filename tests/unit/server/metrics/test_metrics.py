"""The page of metrics: its formats, its table in the documentation, and values that no core counts."""

from __future__ import annotations

import gc
import itertools
import re
import sys
from types import FrameType, MappingProxyType
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.histograms import LONG, Durations
from lockring.core.node import NodeCore
from lockring.protocol import Mode
from lockring.server.metrics.exemplars import WaitExemplars
from lockring.server.metrics.exposition import Exposition
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.loop_watch import LoopWatch
from lockring.server.metrics.names import METRICS
from lockring.server.metrics.node import add_node
from lockring.server.metrics.slot_moves import SlotMoves
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, NAMES, Nodes
from tests.unit.house.rules import ROOT
from tests.unit.net.serving import run, until

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def figures_of(core: NodeCore, **more: Any) -> Figures:
    figures = Figures()
    add_node(figures, core, exemplars=None, now_ns=0, **more)
    return figures


def value(figures: Figures, name: str, **labels: str) -> float:
    found = {frozenset(key): value for key, value in figures.values[name].items()}
    return found[frozenset(labels.items())]


@pytest.fixture
def nodes() -> Nodes:
    made = Nodes("A")
    made.assign("A")
    made.advance(200 * MS)
    return made


def test_the_page_has_the_table_of_all_metrics() -> None:
    rows = re.findall(r"^\| `(lockring_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows
    ] == [(name, *metric) for name, metric in METRICS.items()]


def test_names_say_their_unit_and_which_are_counts() -> None:
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert not set(metric.labels) & {"name", "lock", "session", "owner", "identity"}, name
        if metric.kind == "histogram":
            assert name.endswith(("_seconds", "_ratio")), name


def test_the_page_is_read_by_the_parsers_of_prometheus_in_both_formats(nodes: Nodes) -> None:
    client = nodes.client("A", "first")
    client.acquire("x", 1)
    figures = figures_of(nodes.cores["A"])
    text, kind = Exposition().page(figures, "")
    assert kind.startswith("text/plain")
    found = {family.name for family in parse_text(text.decode())}
    assert {"lockring_locks", "lockring_grants", "lockring_hold_seconds", "lockring_node_info"} <= found
    text, kind = Exposition().page(figures, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(text.decode())}
    assert families["lockring_grants"].type == "counter"
    assert families["lockring_node"].type == "info"
    assert b"first" not in text
    assert b'"x"' not in text


def test_grants_that_were_given_at_once_are_waits_of_nothing(nodes: Nodes) -> None:
    first, second = nodes.client("A", "first"), nodes.client("A", "second")
    first.acquire("x", 1)
    second.acquire("x", 1, wait_ms=60_000)
    nodes.advance(300 * MS)
    first.release("x", 1)
    figures = figures_of(nodes.cores["A"])
    assert value(figures, "lockring_grants_total", mode="exclusive") == 2
    waits = figures.histograms["lockring_acquire_wait_seconds"]
    granted = waits[("mode", "exclusive"), ("outcome", "granted")]
    assert sum(granted.counts) == 2
    assert granted.counts[0] == 1
    assert granted.total == pytest.approx(0.3, rel=0.2)


def test_locks_by_prefix_have_the_label_and_others_an_empty_one(nodes: Nodes) -> None:
    core = nodes.cores["A"]
    core.counters.count_apart(["job/"])
    client = nodes.client("A", "first")
    client.acquire("job/1", 1)
    client.acquire("x", 2)
    figures = figures_of(core)
    for prefix in ("", "job/"):
        assert value(figures, "lockring_grants_total", mode="exclusive", prefix=prefix) == 1
    assert value(figures, "lockring_requests_total", kind="acquire", code="ok") == 2
    page, _ = Exposition().page(figures, "")
    assert list(parse_text(page.decode()))


def test_a_page_takes_as_much_work_for_many_locks_as_for_few(nodes: Nodes) -> None:
    core = nodes.cores["A"]
    calls: list[int] = []
    client = nodes.client("A", "first")

    def note(frame: FrameType, event: str, argument: Any) -> None:
        calls[-1] += event in ("call", "c_call")

    figures_of(core)  # what is made once is made
    shared, *few = NAMES
    slots = {slot_of(each) for each in NAMES}
    many = [name for name in map(str, range(60_000)) if slot_of(name) in slots]
    acquisitions = itertools.count(1)
    for names in (few, many):  # after the few, each slot has locks
        for name in names:
            client.acquire(shared, next(acquisitions), mode=Mode.SHARED)
            client.acquire(name, next(acquisitions))
        calls.append(0)
        sys.setprofile(note)
        try:
            figures_of(core)
        finally:
            sys.setprofile(None)
    assert calls[0] == calls[1]
    assert value(figures_of(core), "lockring_locks", mode="exclusive") == len(few) + len(many)
    assert value(figures_of(core), "lockring_lock_holders") == 2 * (len(few) + len(many))


def test_a_value_with_other_labels_than_its_metric_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Figures().add("lockring_locks", 1, port="x")


def test_buckets_add_up_and_keep_the_trace_of_the_last_acquire() -> None:
    class Span:
        attributes = MappingProxyType({"lockring.lock.mode": "exclusive"})
        start_time, end_time = 10**18, 10**18 + 30 * MS

        @staticmethod
        def get_span_context() -> Any:
            flags = type("Flags", (), {"sampled": True})
            return type("Context", (), {"trace_id": 0xABC, "trace_flags": flags})

    exemplars = WaitExemplars()
    exemplars.granted(Span())
    waits = Durations(LONG)
    waits.observe(30 * MS)
    figures = Figures()
    figures.add_histogram(
        "lockring_acquire_wait_seconds",
        [waits],
        instantly=2,
        exemplars=exemplars.of("exclusive"),
        mode="exclusive",
        outcome="granted",
    )
    page, _ = Exposition().page(figures, "application/openmetrics-text; version=1.0.0")
    (family,) = [each for each in parse_openmetrics(page.decode()) if each.name.startswith("lockring_")]
    buckets = [each for each in family.samples if each.name.endswith("_bucket")]
    assert [each.value for each in buckets[:4]] == [2, 2, 2, 3]
    assert buckets[-1].value == 3
    with_trace = [each for each in buckets if each.exemplar is not None]
    assert [each.labels["le"] for each in with_trace] == ["0.067108864"]
    assert with_trace[0].exemplar.labels == {"trace_id": f"{0xABC:032x}"}
    assert with_trace[0].exemplar.value == pytest.approx(0.03)


def test_moves_of_slots_are_counted_by_their_reason() -> None:
    a, b = Replica("A", 1), Replica("B", 1)
    moves, version = SlotMoves(), 1

    def becomes(slot: SlotState) -> None:
        nonlocal version
        version += 1
        empty = ClusterState(cluster="c", version=version)
        moves.note(msgspec.structs.replace(empty, slots=(slot, *empty.slots[1:])))

    becomes(SlotState())
    becomes(SlotState(primary=a, backup=Copy(b, 1)))
    becomes(SlotState(primary=b, backup=Copy(a, 1)))  # swapped
    becomes(SlotState(primary=a))
    becomes(SlotState(primary=b, base=9))
    becomes(SlotState())
    assert moves.counts == {"first": 1, "planned": 1, "takeover": 1, "emptied": 1, "unserved": 1}


def test_a_loop_that_stands_still_and_a_collection_are_seen() -> None:
    async def scenario() -> None:
        watch = LoopWatch()
        watch.start()
        try:
            gc.collect()
            assert watch.gc_ns > 0
            watch._due_ns -= 300 * MS  # as if the loop had come so late
            await until(lambda: bool(watch.lag.count))
            assert watch.lag.total >= 290 * MS  # a timer may be a little early
            bounds = zip(watch.lag.bounds, watch.lag.counts, strict=False)
            assert sum(count for bound, count in bounds if bound < 250 * MS) == 0
        finally:
            watch.stop()
        collected = watch.gc_ns
        gc.collect()
        assert watch.gc_ns == collected

    run(scenario())
