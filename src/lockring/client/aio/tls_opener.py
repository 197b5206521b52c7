"""How an asyncio client opens connections, with TLS or without."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from lockring.client.tls import layer_to
from lockring.net.openers import Opener, open_plain

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls


def opener_with(tls: ClientTls | None) -> Opener:
    """Return how a client opens connections: plainly, or with its TLS."""
    return open_plain if tls is None else functools.partial(_open, tls)


async def _open(tls: ClientTls, make: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    from lockring.security.tls_protocol import open_tls  # clients without TLS need not load it

    await open_tls(make, host, port, functools.partial(layer_to, tls, host))
