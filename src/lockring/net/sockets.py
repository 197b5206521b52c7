"""Socket options of every lockring connection, whichever side opened it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a program with the blocking client starts 25 ms sooner without it
    import asyncio

KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 10_000
"""How long the system waits for a sign from the other machine until it gives a connection up. Without this limit,
a connection over a network that was cut for half a minute may resume only minutes after it is whole again."""


def tune(sock: socket.socket) -> None:
    """Send without delay, and notice when the other machine is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS_MAX),
    ):
        number = getattr(socket, option, None)  # not every system has all of them
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)


def end_writing(transport: asyncio.Transport) -> None:
    """Say that no more will be sent, or end a connection that the other side has reset at this moment."""
    try:
        transport.write_eof()
    except OSError:
        transport.abort()  # its end is reported as for any other
