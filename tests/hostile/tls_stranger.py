"""A stranger whose bytes go through TLS, and which may damage the records that it sends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Final, cast

from tests.hostile.samples import flipped
from tests.hostile.stranger import Stranger

RAW: Final = "raw"
"""In place of what follows from it: after the first input, all others are sent as they are."""

_HEADER_BYTES: Final = 5


class TlsStranger(Stranger):
    """One end of a connection with TLS. It believes the server, and throws away what comes after the handshake.

    Args:
        context: what it shows.
        server_name: the name that it asks for.
        tamper: see `guises.Shown`.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str, tamper: str = "") -> None:
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._has_shaken_hands = False
        self._is_raw = tamper == RAW
        self._rng = random.Random(tamper) if tamper and not self._is_raw else None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if not self._has_shaken_hands:
            self._incoming.write(data)
            self._shake_hands()

    def send(self, data: bytes) -> None:
        """Send an input."""
        self._sent += 1
        if not self._has_shaken_hands or (self._is_raw and self._sent > 1):
            super().send(data)
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
        sealed = self._outgoing.read()
        super().send(sealed if self._rng is None else _damaged(self._rng, sealed))

    def close(self) -> None:
        """Say that there will be no more, and close."""
        if self._has_shaken_hands:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # the other side's word is not awaited
            super().send(self._outgoing.read())
        super().close()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.opened.set()  # refused: what follows is not encrypted
        else:
            self._has_shaken_hands = True
            self.opened.set()
        super().send(self._outgoing.read())


def _damaged(rng: random.Random, sealed: bytes) -> bytes:
    """Return records damaged, left out, repeated, in another order, or as they are."""
    records = []
    while sealed:
        end = _HEADER_BYTES + int.from_bytes(sealed[3:5], "big")
        records.append(sealed[:end])
        sealed = sealed[end:]
    at = rng.randrange(len(records) or 1)
    match rng.randrange(8):
        case 0:
            records[at : at + 1] = [flipped(rng, records[at], rng.choice((1, 3)))] if records else []
        case 1:
            del records[at : at + 1]
        case 2:
            records *= 2
        case 3:
            records.reverse()
        case 4 if records:
            records[at] = records[at][: rng.randrange(1, len(records[at]))]
    return b"".join(records)
