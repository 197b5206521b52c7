"""A process that a test freezes: `stalled.py MILLISECONDS` prints the deadline that is so long from now, and later
what a pump did with a byte on standard input and with the deadline, in the order in which it was done."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS
from tests.unit.net.test_core_loop import Recorder


async def main() -> None:
    done = asyncio.Event()
    events: list[str] = []
    deadline_ns = monotonic_ns() + int(sys.argv[1]) * NS_PER_MS

    class Once(Recorder):
        def on_timer(self, *, now_ns: int) -> None:
            super().on_timer(now_ns=now_ns)
            events.append("timer")
            done.set()

    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            events.append("data")

    sock = socket.socket(fileno=0)
    transport, _ = await asyncio.get_running_loop().create_connection(Reader, sock=sock)
    machine = Once()
    machine.deadline_ns = deadline_ns
    machine.pump.schedule()
    print(deadline_ns, flush=True)
    await done.wait()
    print(*events, flush=True)
    transport.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
