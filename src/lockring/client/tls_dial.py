"""How commands open a connection for a single question, with TLS or without."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lockring.addresses import split_address
from lockring.client.tls import failure_of, layer_to
from lockring.errors import LockringError, Unavailable
from lockring.net.oneshot import ByteStream, Dial, dial_plain
from lockring.net.sockets import open_connection
from lockring.security.tls_errors import TlsError

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls
    from lockring.security.tls_socket import TlsStream


def dial_with(tls: ClientTls | None) -> Dial:
    """Return how connections are opened: plainly, or with TLS. See `net.oneshot`."""
    return dial_plain if tls is None else functools.partial(_dial, tls)


def _dial(tls: ClientTls, address: str, timeout_s: float) -> ByteStream:
    from lockring.security.tls_socket import TlsStream, shake_hands

    sock = open_connection(address, timeout_s)
    try:
        layer = layer_to(tls, split_address(address)[0])
        try:
            shake_hands(sock, layer, timeout_s=timeout_s)
        except TlsError as error:
            raise _failure(address, error) from error
        return _AskedStream(address, TlsStream(sock, layer))
    except BaseException:
        sock.close()
        raise


def _failure(address: str, error: TlsError) -> LockringError:
    failure = failure_of(error, address)
    if isinstance(failure, Unavailable):
        return Unavailable(f"{address} cannot be reached: {failure}", reason="unreachable")
    return failure


class _AskedStream:
    """A connection for single questions, whose failures of TLS are errors of lockring."""

    def __init__(self, address: str, stream: TlsStream) -> None:
        self._address = address
        self._stream = stream

    def settimeout(self, timeout_s: float | None, /) -> None:
        self._stream.settimeout(timeout_s)

    def sendall(self, data: bytes, /) -> None:
        self._stream.sendall(data)

    def recv(self, size: int, /) -> bytes:
        try:
            return self._stream.recv(size)
        except TlsError as error:
            raise _failure(self._address, error) from error

    def close(self) -> None:
        self._stream.close()
