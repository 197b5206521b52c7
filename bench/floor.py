"""The floor: the cost of a 64-byte round trip between two Python processes on this machine, with blocking sockets.

No lock that a server on this machine keeps can be acquired faster than this. It is taken beside each measurement, in
the same pinning, since it moves with the other load of the machine.
"""

from __future__ import annotations

import socket
import time
from typing import Final

from bench.children import Child, Inbox, run_in_child, settle
from bench.figures import quantile

_SIZE: Final = 64
_WARM: Final = 200


def floor_us(cores: tuple[int, ...] = (), *, seconds: float = 0.3) -> float:
    """Return the median round trip in microseconds.

    Args:
        cores: the cores of both processes; () for any.
        seconds: the duration of the measurement.
    """
    with Child(_echo, cores) as server:
        return run_in_child(_ask, server.hear(), cores, seconds)


def _echo(inbox: Inbox, cores: tuple[int, ...]) -> None:
    settle(cores)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.say(listener.getsockname()[1])
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(_SIZE):
                sock.sendall(data)


def _ask(inbox: Inbox, port: int, cores: tuple[int, ...], seconds: float) -> float:
    del inbox
    settle(cores)
    message = b"x" * _SIZE
    samples_ns = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_WARM):
            sock.sendall(message)
            sock.recv(_SIZE)
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        now_ns = 0
        while now_ns < end_ns:
            begin_ns = time.perf_counter_ns()
            sock.sendall(message)
            sock.recv(_SIZE)
            now_ns = time.perf_counter_ns()
            samples_ns.append(now_ns - begin_ns)
    return quantile(sorted(samples_ns), 0.5) / 1e3
