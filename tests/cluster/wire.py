"""A socket in the hands of a test: sends whatever bytes, and reads the frames that come back."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import msgspec

from lockring.net.frames import FrameReader, encode_frame
from lockring.net.oneshot import Dial, dial_plain
from lockring.protocol import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    ClientHello,
    Message,
    Refusal,
    Routes,
    ToClient,
    Welcome,
)


class Wire:
    """One connection to a server.

    Args:
        address: HOST:PORT of the server.
        accepted: the messages that may come: those to a client, unless a node is played.
        timeout_s: how long a read or a write may take.
        dial: opens the connection, without TLS by default.
    """

    def __init__(
        self, address: str, *, accepted: Any = ToClient, timeout_s: float = 60.0, dial: Dial = dial_plain
    ) -> None:
        self._sock = dial(address, timeout_s)
        self._reader: FrameReader[Message] = FrameReader(msgspec.msgpack.Decoder(accepted), FRAME_BYTES_MAX)
        self._read: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._sock.sendall(data)

    def send(self, message: Message) -> None:
        """Send a message."""
        self.write(encode_frame(message))

    def greet(
        self, *, cluster: str = "", protocol: int = PROTOCOL, client: str = "test", credential: str = ""
    ) -> Message:
        """Send a client's hello and return the first answer."""
        self.send(ClientHello(protocol, cluster, client, 1, credential=credential))
        return self.read()

    def read(self) -> Message:
        """Return the next message other than routes.

        Raises:
            EOFError: the server has ended the connection.
        """
        while True:
            message = self._next()
            if not isinstance(message, Routes):
                return message

    def _next(self) -> Message:
        while not self._read:
            data = self._sock.recv(65_536)
            if not data:
                raise EOFError
            self._read = self._reader.feed(data)
        return self._read.pop(0)

    def read_routes(self) -> Routes:
        """The next routes, whatever comes before them."""
        while True:
            message = self._next()
            if isinstance(message, Routes):
                return message

    def refusal(self) -> Refusal:
        """The refusal that comes next, after which the server ends the connection."""
        message = self.read()
        assert isinstance(message, Refusal), message
        assert self.read_to_end() == [], "the server goes on after a refusal"
        return message

    def request(self, message: Message) -> Message:
        """Send a message and return what comes next."""
        self.send(message)
        return self.read()

    def read_to_end(self) -> list[Message]:
        """All that still comes before the server ends the connection."""
        messages = []
        try:
            while True:
                messages.append(self.read())
        except EOFError:
            return messages


def welcome_of(address: str) -> Welcome:
    """Greet a server as a client, and return its welcome: it lives and answers."""
    with Wire(address) as wire:
        welcome = wire.greet()
    assert isinstance(welcome, Welcome), welcome
    return welcome
