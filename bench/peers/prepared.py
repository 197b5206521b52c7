"""lockring's node without lockring's client: it separates the node's part of a lock's time from the client's.

The client only encodes frames, and does not decode the answers. It renews nothing, so it can only measure one lock at a
time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count

import msgspec

from bench.peers.base import HOST, Endpoint
from bench.peers.lockring import Servers
from lockring.ids import (
    NO_CLUSTER,
    AcquisitionNumber,
    ClientId,
    GreetingNumber,
    LockName,
    RequestNumber,
    SessionId,
)
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import PROTOCOL, Acquire, ClientHello, Release, Routes, ToClient

__all__ = ["BlockingClient", "Servers"]

_READ_BYTES = 65_536


class BlockingClient:
    """A client that sends bare frames."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._ttl_ms = endpoint.ttl_s * 1000
        self._numbers = count(1)
        self._sock = socket.create_connection((HOST, endpoint.port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(
            encode_frame(ClientHello(PROTOCOL, NO_CLUSTER, ClientId("bench"), GreetingNumber(1), "bench"))
        )
        reader: FrameReader[object] = FrameReader(msgspec.msgpack.Decoder(ToClient))
        while not any(isinstance(message, Routes) for message in reader.feed(self._sock.recv(_READ_BYTES))):
            continue

    def acquire(self, name: str) -> Callable[[], object]:
        """Acquire a free lock, and return the function that releases it."""
        number = AcquisitionNumber(next(self._numbers))
        request, session = RequestNumber(2 * number), SessionId("bench")
        lock = LockName(name)
        self._ask(
            encode_frame(
                Acquire(
                    request=request,
                    session=session,
                    ttl_ms=self._ttl_ms,
                    owner="bench",
                    acquisition=number,
                    name=lock,
                )
            )
        )
        return lambda: self._ask(encode_frame(Release(RequestNumber(request + 1), session, number, lock)))

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""

    def _ask(self, frame: bytes) -> None:
        self._sock.sendall(frame)
        self._sock.recv(_READ_BYTES)
