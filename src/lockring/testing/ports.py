"""Ports that stay reserved for their servers while other tests on this machine look for ports too."""

from __future__ import annotations

import random
import socket
import sys
from typing import Final

from lockring.server.local.children import PORTS

_ATTEMPTS_MAX: Final = 1_000


class ReservedPorts:
    """TCP ports of one address that no other process gets by chance while this is open. Not thread-safe.

    Each is bound, exclusively at first, by a socket that never listens: connections to it are refused, and a search
    for a free port skips it. A server that knows the port can still listen there, repeatedly even, because it sets
    SO_REUSEADDR as all servers do. Systems other than Linux do not allow that: there a port is found in the same
    way, but not kept.

    Args:
        host: the address.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._kept: list[socket.socket] = []

    def take(self, count: int = 1, *, beside: int = 0) -> list[int]:
        """Reserve consecutive ports, and return them.

        Args:
            count: how many.
            beside: if not 0, those that are so much higher are reserved too, as for a second port of each server.

        Raises:
            OSError: there are none.
        """
        for _ in range(_ATTEMPTS_MAX):
            first = random.choice(PORTS[: len(PORTS) - count - beside + 1])
            row = range(first, first + count)
            socks: list[socket.socket] = []
            try:
                for port in (*row, *(each + beside for each in row if beside)):
                    socks.append(socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET))
                    socks[-1].bind((self._host, port))
            except OSError:
                _close(socks)
                continue
            if sys.platform == "linux":
                for sock in socks:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._kept += socks
            else:
                _close(socks)
            return list(row)
        raise OSError(f"no {count} consecutive free ports at {self._host}")

    def close(self) -> None:
        """Release all ports. Closing twice is harmless."""
        _close(self._kept)
        self._kept.clear()


def _close(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()
