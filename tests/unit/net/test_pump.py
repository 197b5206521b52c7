"""The pump: one flush per turn, one timer, and what has arrived is read before anything is expired."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

from lockring.clock import monotonic_ns
from lockring.net.pump import Pump
from lockring.units import NS_PER_MS
from tests.unit.net.serving import run, until


class Recorder:
    """What a core would be asked, in order; it has one deadline at a time."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.deadline_ns: int | None = None
        self.fired_at_ns = 0
        self.pump = Pump(
            flush=lambda: self.events.append("flush"),
            next_deadline_ns=lambda: self.deadline_ns,
            on_timer=self.on_timer,
        )

    def on_timer(self) -> None:
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
    async def main() -> None:
        recorder = Recorder()
        recorder.deadline_ns = monotonic_ns() + 10 * NS_PER_MS
        recorder.pump.schedule()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later_ns = recorder.deadline_ns = monotonic_ns() + 60 * NS_PER_MS
        await until(lambda: "timer" in recorder.events)
        assert recorder.fired_at_ns >= later_ns

    run(main())


def test_what_arrived_while_the_process_was_frozen_is_read_before_the_timer_is_run() -> None:
    """A process that goes on after SIGCONT would run its timers first: its wait for sockets was interrupted."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.net.stalled"],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.03)  # until it waits for its sockets; if not, the test only shows less
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            ours.send(b"a renewal")
            time.sleep(0.15)  # its deadline passes meanwhile
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "data timer\n"


def test_a_stopped_pump_never_calls_again() -> None:
    async def main() -> None:
        recorder = Recorder()
        recorder.deadline_ns = monotonic_ns() + 10 * NS_PER_MS
        recorder.pump.schedule()
        await asyncio.sleep(0.002)
        recorder.pump.schedule()
        recorder.pump.stop()
        recorder.pump.schedule()
        await asyncio.sleep(0.05)
        assert recorder.events == ["flush"]

    run(main())
