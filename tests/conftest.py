"""Settings for every test.

Property tests draw the same examples on each run, so that a run that fails fails again. To look for new
ones: HYPOTHESIS_PROFILE=explore make unit
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import settings

from tests import builds

# No deadline: the time of one example says nothing on a busy machine, and pytest-timeout bounds the test.
settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# Under nohup, and in the background of a shell, these would be ignored, and so in every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_WATCHED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)

# Servers keep a directory by default: not that of the person who runs the tests, nor of an earlier run on the same
# port.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="lockring-tests-state-")
os.environ.pop("STATE_DIRECTORY", None)
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_report_header() -> str:
    builds.check()
    return f"lockring: {builds.BUILD}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    builds.skip_marked(items)


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """Fail a test that leaves the process otherwise than it was: it would decide how later ones of this worker end."""
    before = _state_of_process()
    yield
    assert _state_of_process() == before, "the test has changed what belongs to the whole process"


def _state_of_process() -> dict[str, object]:
    handlers: dict[str, object] = {number.name: signal.getsignal(number) for number in _WATCHED}
    return handlers | {"collects garbage": gc.isenabled(), "directory": os.getcwd()}


@pytest.fixture
def monkeypatch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As pytest's; a test that patches what is compiled is skipped, since compiled code would not notice."""
    set_attribute = monkeypatch.setattr

    def setattr_unless_compiled(target: Any, *arguments: Any, **options: Any) -> None:
        # A test that is skipped within its event loop leaves open what the loop then waits for.
        assert asyncio._get_running_loop() is None, "patch before the event loop runs"
        builds.skip_if_compiled(target)
        set_attribute(target, *arguments, **options)

    monkeypatch.setattr = setattr_unless_compiled  # type: ignore[method-assign,assignment]
    return monkeypatch
