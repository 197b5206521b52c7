"""TLS on a blocking socket, for clients that do their own I/O."""

from __future__ import annotations

import contextlib
import socket

from lockring.clock import monotonic_ns
from lockring.security.tls_errors import TlsError
from lockring.security.tls_layer import TlsLayer
from lockring.units import NS_PER_S, seconds_to_ns

_READ_BYTES = 64 * 1024


def shake_hands(sock: socket.socket, layer: TlsLayer, *, timeout_s: float) -> None:
    """Complete the handshake of a connection that was opened from here. Blocks, and sets the socket's timeout.

    Args:
        sock: the connected socket.
        layer: made by `TlsLayer.dial`.
        timeout_s: how long it may take altogether.

    Raises:
        TlsError: it failed.
        TimeoutError: the other side did not answer in time.
        OSError: the connection was lost.
    """
    end_ns = monotonic_ns() + seconds_to_ns(timeout_s)
    while True:
        out = layer.take_output()
        if out:
            sock.sendall(out)
        if layer.is_ready:
            return
        left_ns = end_ns - monotonic_ns()
        if left_ns <= 0:
            raise TimeoutError
        sock.settimeout(left_ns / NS_PER_S)
        data = sock.recv(_READ_BYTES)
        if not data:
            raise TlsError("the other side ended the connection")
        try:
            early = layer.receive(data)
        except TlsError:
            with contextlib.suppress(OSError):  # an alert, from which the other side learns the reason
                sock.sendall(layer.take_output())
            raise
        if early:
            raise TlsError("the other side has spoken first, which no lockring server does")


class TlsStream:
    """A connection with TLS, by the methods of a blocking socket that `net.oneshot` needs. Not thread-safe.

    Args:
        sock: the connected socket.
        layer: its TLS, whose handshake is over.
    """

    def __init__(self, sock: socket.socket, layer: TlsLayer) -> None:
        self._sock = sock
        self._layer = layer

    def settimeout(self, timeout_s: float | None, /) -> None:
        """Set how long a call may wait, in seconds."""
        self._sock.settimeout(timeout_s)

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""
        self._sock.sendall(self._layer.seal(data))

    def recv(self, size: int, /) -> bytes:
        """Return the bytes that come next, b"" at the end; more than `size` if one read has brought them.

        Raises:
            TlsError: they are not TLS, or the other side refuses this one.
        """
        while not self._layer.is_ended:
            data = self._sock.recv(size)
            if not data:
                break
            plain = self._layer.receive(data)
            if self._layer.has_output:
                self._sock.sendall(self._layer.take_output())
            if plain:
                return plain
        return b""

    def close(self) -> None:
        """End the connection."""
        self._sock.close()
