"""How a connection is opened: plainly here; with TLS by what a server or a client makes of its files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Opener = Callable[[Callable[[], asyncio.Protocol], str, int], Awaitable[object]]
"""Opens a connection for the protocol that a function makes, to a host and a port. Raises an `OSError` if it cannot."""


async def open_plain(make: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    """Open a connection without TLS.

    Raises:
        OSError: the other side cannot be reached.
    """
    await asyncio.get_running_loop().create_connection(make, host, port)
