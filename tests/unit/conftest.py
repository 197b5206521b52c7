"""The coverage of unit tests, and the time that a slow one may take."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Generator, Iterator

import pytest

MEASURED = ("tests/unit/core/", "tests/unit/ring/")
REPEATED = (
    "tests/unit/core/coordinator/test_clients.py",
    "tests/unit/core/coordinator/test_drains.py",
    "tests/unit/core/coordinator/test_heirs.py",
    "tests/unit/core/coordinator/test_lost_stores.py",
    "tests/unit/core/coordinator/test_random_inputs.py",
    "tests/unit/core/coordinator/test_roster.py",
    "tests/unit/core/coordinator/test_term.py",
    "tests/unit/core/node/test_journal_replay.py",
    "tests/unit/core/node/test_name_index.py",
    "tests/unit/core/test_state_differences.py",
    "tests/unit/ring/test_ring_movement.py",
)
"""They go the same ways again and again, through long histories or many nodes, so they add hardly a line."""
SLOW_S_MAX = 600
"""Of one test that is marked as slow, on a machine that is busy with other things."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure only the quick tests of what must be covered: it makes a test twice as slow, or several times."""
    for item in items:
        is_slow = item.get_closest_marker("slow") is not None
        if is_slow:
            item.add_marker(pytest.mark.timeout(SLOW_S_MAX))
        if is_slow or not item.nodeid.startswith(MEASURED) or item.nodeid.startswith(REPEATED):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Do not trace tests without coverage: pytest-cov's own marker does not stop the tracing in a process of xdist."""
    tracer, tracer_of_threads = sys.gettrace(), threading.gettrace()
    if tracer is None or item.get_closest_marker("no_cover") is None:
        return (yield)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        return (yield)
    finally:
        threading.settrace(tracer_of_threads)  # type: ignore[arg-type]
        sys.settrace(tracer)


def is_of_this_test(record: logging.LogRecord) -> bool:
    """Return False for a line of the thread of an exporter of traces: another test may have left it, and it tries again
    for long."""
    is_of_exporter = record.name.startswith("opentelemetry.exporter.otlp")
    return not is_of_exporter or record.thread == threading.main_thread().ident


@pytest.fixture(autouse=True)
def records_are_of_this_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep from a test's records what exporters log that other tests have left."""
    caplog.handler.addFilter(is_of_this_test)
    yield
    caplog.handler.removeFilter(is_of_this_test)


@pytest.fixture(autouse=True)
def ends_the_threads_of_its_journals() -> Iterator[None]:
    """Check that a test leaves no thread of a journal to those that come after it, which look at all threads."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name == "lockring-journal"]
    assert left == [], "end the journal's writer or worker within the test"
