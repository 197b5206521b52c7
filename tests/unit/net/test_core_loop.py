"""The pump: one flush per turn, one timer, and what has arrived is read before anything is expired."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from lockring.clock import monotonic_ns
from lockring.net.core_loop import CoreLoop
from lockring.protocol import Message
from lockring.units import NS_PER_MS
from tests.unit.net.serving import run, until

LONGER_AND_LONGER = (50, 500, 5_000)
"""Milliseconds until a deadline before which a test must have done something. Where the machine was too busy for the
first, so that nothing was shown, the next is tried; if all of them were too short, the test fails."""


class Recorder:
    """A machine that records its calls, in order. It has one deadline at a time."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.deadline_ns: int | None = None
        self.fired_at_ns = 0
        self.pump = CoreLoop(self, lambda effects: None)

    def connected(self, endpoint: int, /, *, now_ns: int) -> None:
        """No test opens a connection."""

    def receive(self, sender: int, message: Message, /, *, now_ns: int) -> None:
        """No test sends a message."""

    def disconnected(self, endpoint: int, /, *, now_ns: int) -> None:
        """No test ends a connection."""

    def check_invariants(self) -> None:
        """Nothing could be wrong."""

    def status(self, *, now_ns: int) -> None:
        """There is nothing to say."""

    def next_deadline_ns(self) -> int | None:
        return self.deadline_ns

    def take_effects(self, *, now_ns: int) -> list[object]:
        self.events.append("flush")
        return []

    def on_timer(self, *, now_ns: int) -> None:
        self.deadline_ns = None
        self.fired_at_ns = monotonic_ns()
        self.events.append("timer")


def test_many_inputs_of_one_turn_cause_one_flush() -> None:
    async def main() -> None:
        recorder = Recorder()
        for _ in range(10):
            recorder.pump.schedule()
        assert recorder.events == [], "not inside the input"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert recorder.events == ["flush"]
        recorder.pump.schedule()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert recorder.events == ["flush", "flush"]

    run(main())


def test_a_single_input_is_served_at_once_and_a_crowd_in_one_flush() -> None:
    async def main() -> None:
        recorder = Recorder()
        long_ago_ns, now_ns = monotonic_ns(), monotonic_ns() + 10 * NS_PER_MS
        recorder.pump.flush_if_idle(now_ns)
        assert recorder.events == ["flush"], "inside the input"
        for _ in range(10):
            recorder.pump.flush_if_idle(long_ago_ns)  # right after the last flush, as it were
        assert recorder.events == ["flush"]
        recorder.pump.flush_if_idle(now_ns + NS_PER_MS)
        assert recorder.events == ["flush"], "one is to come at the end of this turn anyway"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert recorder.events == ["flush", "flush"]
        recorder.pump.stop()
        recorder.pump.flush_if_idle(monotonic_ns() + NS_PER_MS)
        recorder.pump.flush()
        assert recorder.events == ["flush", "flush"]

    run(main())


def test_the_timer_fires_not_before_the_deadline_and_a_flush_follows() -> None:
    async def main() -> None:
        recorder = Recorder()
        deadline_ns = recorder.deadline_ns = monotonic_ns() + 30 * NS_PER_MS
        recorder.pump.schedule()
        await until(lambda: "timer" in recorder.events)
        assert recorder.events == ["flush", "timer", "flush"]
        assert recorder.fired_at_ns >= deadline_ns

    run(main())


def test_an_earlier_deadline_replaces_the_armed_one() -> None:
    async def main() -> None:
        recorder = Recorder()
        recorder.deadline_ns = monotonic_ns() + 3_600_000 * NS_PER_MS
        recorder.pump.schedule()
        await asyncio.sleep(0.01)
        recorder.deadline_ns = monotonic_ns() + 20 * NS_PER_MS
        recorder.pump.schedule()
        await until(lambda: "timer" in recorder.events)

    run(main())


def test_a_later_deadline_is_kept_though_the_timer_was_armed_for_an_earlier_one() -> None:
    async def main(earlier_in_ms: int) -> bool:
        recorder = Recorder()
        earlier_ns = recorder.deadline_ns = monotonic_ns() + earlier_in_ms * NS_PER_MS
        recorder.pump.schedule()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later_ns = recorder.deadline_ns = earlier_ns + 50 * NS_PER_MS
        if monotonic_ns() >= earlier_ns:
            return False
        await until(lambda: "timer" in recorder.events)
        assert recorder.fired_at_ns >= later_ns
        return True

    assert any(run(main(earlier_in_ms)) for earlier_in_ms in LONGER_AND_LONGER)


def test_work_that_was_left_goes_on_without_a_pause_and_with_others_in_between() -> None:
    class Worker(Recorder):
        """A machine with work for four turns."""

        left = 4

        def on_timer(self, *, now_ns: int) -> None:
            super().on_timer(now_ns=now_ns)
            self.left -= 1
            self.deadline_ns = now_ns if self.left else None

    async def main(*, says: bool) -> None:
        worker = Worker()
        loop, pauses = asyncio.get_running_loop(), 0

        class Loop:
            def call_soon(self, *call: Any) -> asyncio.Handle:
                return loop.call_soon(*call)

            def call_later(self, delay_s: float, *call: Any) -> asyncio.Handle:
                nonlocal pauses
                pauses += 1
                return loop.call_later(delay_s, *call)

        def other() -> None:
            worker.events.append("other")
            if worker.left:
                loop.call_soon(other)

        worker.pump = CoreLoop(
            worker, lambda effects: None, has_work_left=(lambda: worker.left > 0) if says else None
        )
        worker.pump._loop = Loop()  # type: ignore[assignment]
        worker.deadline_ns = monotonic_ns()
        worker.pump.schedule()
        other()
        await until(lambda: not worker.left)
        assert pauses == (0 if says else 4)
        turns = "".join("t" if each == "timer" else "o" for each in worker.events if each != "flush")
        assert "tt" not in turns and turns.count("t") == 4

    run(main(says=True))
    run(main(says=False))


def test_messages_that_arrived_while_the_process_was_frozen_are_read_before_the_timer_fires() -> None:
    """A process that goes on after SIGCONT would run its timers first: its wait for sockets was interrupted."""
    assert any(_reads_first_after_a_stop(deadline_in_ms) for deadline_in_ms in LONGER_AND_LONGER)


def _reads_first_after_a_stop(deadline_in_ms: int) -> bool:
    """Whether it does; False if the process was not stopped before its deadline, so that nothing was shown."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.net.stalled", str(deadline_in_ms)],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            deadline_ns = int(process.stdout.readline())
            time.sleep(0.03)  # until it waits for its sockets; if not, the test only shows less
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            if monotonic_ns() >= deadline_ns:
                return False
            ours.send(b"a renewal")
            while monotonic_ns() <= deadline_ns:
                time.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "data timer\n"
            return True
        finally:
            process.kill()


def test_a_stopped_pump_never_calls_again() -> None:
    async def main(deadline_in_ms: int) -> bool:
        recorder = Recorder()
        deadline_ns = recorder.deadline_ns = monotonic_ns() + deadline_in_ms * NS_PER_MS
        recorder.pump.schedule()
        await asyncio.sleep(0.002)
        recorder.pump.schedule()
        recorder.pump.stop()
        recorder.pump.schedule()
        if monotonic_ns() >= deadline_ns:
            return False
        await asyncio.sleep(deadline_in_ms / 1_000 + 0.05)
        assert recorder.events == ["flush"]
        return True

    assert any(run(main(deadline_in_ms)) for deadline_in_ms in LONGER_AND_LONGER)
