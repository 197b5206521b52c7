"""What every lockring socket wants of the system, whichever side opened it and whatever drives it."""

from __future__ import annotations

import socket
from typing import Final

KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 10_000
"""After so long without a sign from the other machine the system gives a connection up. Without that bound
a connection over a network that was cut for half a minute may go on only minutes after it is whole again."""


def tune(sock: socket.socket) -> None:
    """Set what every lockring socket wants: no delay, and the end noticed when the other machine is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS_MAX),
    ):
        number = getattr(socket, option, None)  # not every system has them all
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)
