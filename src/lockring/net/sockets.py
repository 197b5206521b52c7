"""Sockets of lockring connections: how one is opened where a thread may wait, and the options that all have."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from lockring.addresses import split_address

if TYPE_CHECKING:  # a program with the blocking client starts 25 ms sooner without it
    import asyncio

KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 10_000
"""How long the system waits for a sign from the other machine until it gives a connection up. Without this limit,
a connection over a network that was cut for half a minute may resume only minutes after it is whole again."""


def open_connection(address: str, timeout_s: float) -> socket.socket:
    """Open a connection to HOST:PORT; blocks.

    Raises:
        OSError: the host was not found, or none of its addresses accepts the connection in time.
        InvalidRequest: see `split_address`.
    """
    host, port = split_address(address)
    # As bytes the host is looked up as it is. For text, Python loads its tables of international names, two
    # milliseconds of a process, though nearly all hosts are ASCII.
    name: Any = host.encode("ascii") if host.isascii() else host
    return socket.create_connection((name, port), timeout=timeout_s)


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
