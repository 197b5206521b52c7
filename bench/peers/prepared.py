"""lockring's node without lockring's client: what of a lock's time is the node's, and what the client's.

The client sends frames that it has nothing to do for but to encode them, and takes an answer for what it is
without reading it. It renews nothing, and so is of no use but for measuring one lock at a time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count

import msgspec

from bench.peers.base import HOST, Endpoint
from bench.peers.lockring import OneNode
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import PROTOCOL, Acquire, ClientHello, Release, Routes, ToClient

_READ_BYTES = 65_536


class NodeAlone(OneNode):
    """The same as one node."""

    peer = "lockring+frames"
    title = "lockring's node alone, asked by bare frames"


class BlockingClient:
    """Asks a node by bare frames."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._ttl_ms = endpoint.ttl_s * 1000
        self._numbers = count(1)
        self._sock = socket.create_connection((HOST, endpoint.port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(encode_frame(ClientHello(PROTOCOL, "", "bench", 1, "bench")))
        reader: FrameReader[object] = FrameReader(msgspec.msgpack.Decoder(ToClient))
        while not any(isinstance(message, Routes) for message in reader.feed(self._sock.recv(_READ_BYTES))):
            continue

    def acquire(self, name: str) -> Callable[[], object]:
        """Acquire a lock that is free, and return what releases it."""
        number = next(self._numbers)
        self._ask(encode_frame(Acquire(2 * number, "bench", self._ttl_ms, "bench", number, name)))
        return lambda: self._ask(encode_frame(Release(2 * number + 1, "bench", number, name)))

    def hold_many(self) -> None:
        """Nothing is to be done."""

    def _ask(self, frame: bytes) -> None:
        self._sock.sendall(frame)
        self._sock.recv(_READ_BYTES)
