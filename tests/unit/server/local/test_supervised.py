"""Supervised children: their lines under their names, restarted when they die, ended on request."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from pathlib import Path

import pytest

from lockring.server.local.supervised import LinePrinter, SupervisedChild
from tests.processes import PATIENCE_S
from tests.unit.net.serving import run, until

SLEEPS = "import time; print('here', flush=True); time.sleep(600)"


def child_of(code: str, stream: io.StringIO, hopeless: list[int]) -> SupervisedChild:
    printer = LinePrinter(["coordinator", "N1"], stream=stream)
    return SupervisedChild(
        "N1", [sys.executable, "-c", code], printer, lambda name, code: hopeless.append(code)
    )


def test_lines_of_json_stay_json() -> None:
    stream = io.StringIO()
    LinePrinter(["coordinator", "N1"], stream=stream, in_colour=True, is_json=True).print(
        "N1", '{"server":"N1"}'
    )
    assert json.loads(stream.getvalue()) == {"server": "N1"}


def test_names_are_aligned_and_coloured_only_on_request() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    LinePrinter(["coordinator", "N1"], stream=plain).print("N1", "hello")
    LinePrinter(["coordinator", "N1"], stream=coloured, in_colour=True).print("N1", "hello")
    assert plain.getvalue() == "         N1 │ hello\n"
    assert coloured.getvalue().startswith("\033[")


def test_a_child_that_dies_is_started_again() -> None:
    async def main() -> None:
        stream, hopeless = io.StringIO(), list[int]()
        child = child_of("print('here', flush=True); raise SystemExit(1)", stream, hopeless)
        child.start()
        await until(lambda: stream.getvalue().count("N1 │ here") == 2)
        child.tell(signal.SIGTERM)
        await child.ended(timeout_s=PATIENCE_S)
        assert hopeless == []

    run(main())


def test_a_child_that_is_notified_is_started_again_when_it_dies() -> None:
    async def main() -> None:
        stream, hopeless = io.StringIO(), list[int]()
        child = child_of(
            "import signal; signal.signal(signal.SIGHUP, lambda *_: print('heard', flush=True) or exit(1));"
            + SLEEPS,
            stream,
            hopeless,
        )
        child.notify(signal.SIGHUP)  # before it is started, there is nothing to notify
        child.start()
        await until(lambda: stream.getvalue().count("N1 │ here") == 1)
        child.notify(signal.SIGHUP)
        await until(lambda: stream.getvalue().count("N1 │ heard") == 1)
        await until(lambda: stream.getvalue().count("N1 │ here") == 2)
        await child.ended(timeout_s=0)
        assert hopeless == []

    run(main())


def test_a_child_that_cannot_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stream, command = io.StringIO(), tmp_path / "command"
        child = SupervisedChild(
            "N1", [str(command)], LinePrinter(["N1"], stream=stream), lambda name, code: None
        )
        child.start()
        await until(lambda: "N1 cannot be started" in caplog.text)
        command.write_text("#!/bin/sh\necho here\n")
        command.chmod(0o755)
        await until(lambda: "here" in stream.getvalue())
        await child.ended(timeout_s=PATIENCE_S)

    run(main())


def test_a_child_is_supervised_despite_endless_lines_and_a_reader_that_is_gone() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            if "here" not in self.getvalue():
                raise BrokenPipeError

    async def main() -> None:
        stream = Gone()
        child = child_of("print('x' * 3_000_000); print('y'); print('here')", stream, [])
        child.start()
        await until(lambda: "here" in stream.getvalue())
        await child.ended(timeout_s=PATIENCE_S)

    run(main())


def test_a_child_that_would_end_the_same_way_again_is_not_started_again() -> None:
    async def main() -> None:
        hopeless: list[int] = []
        child = child_of("raise SystemExit(78)", io.StringIO(), hopeless)
        child.start()
        await child.ended(timeout_s=PATIENCE_S)
        assert hopeless == [78]

    run(main())


def test_a_child_that_was_drained_is_not_started_again() -> None:
    async def main() -> None:
        stream, hopeless = io.StringIO(), list[int]()
        child = child_of("print('here')", stream, hopeless)
        child.start()
        await child.ended(timeout_s=PATIENCE_S)
        assert stream.getvalue() == "         N1 │ here\n"
        assert hopeless == []

    run(main())


def test_a_child_gets_sigterm_and_is_killed_if_it_does_not_end() -> None:
    async def main() -> None:
        stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
        for code in (SLEEPS, stubborn):
            stream = io.StringIO()
            child = child_of(code, stream, [])
            child.start()
            await until(lambda stream=stream: "here" in stream.getvalue())  # type: ignore[misc]
            child.tell(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await child.ended(timeout_s=0.2)

    run(main())
