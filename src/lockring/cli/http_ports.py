"""How `lockring doctor` looks at the HTTP port of a server: whether it lives and is ready, and its certificate."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from lockring.addresses import split_address
from lockring.client.tls import failure_of, layer_to
from lockring.clock import monotonic_ns
from lockring.errors import ProtocolError
from lockring.net.oneshot import ByteStream, dial_plain
from lockring.security.tls_errors import TlsError
from lockring.units import NS_PER_S, seconds_to_ns

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls

LIVE: Final = "/livez"
READY: Final = "/readyz"

_ANSWER_BYTES_MAX: Final = 64 * 1024
_NOTE_CHARS_MAX: Final = 300


class HttpAnswer(NamedTuple):
    """The answer of an HTTP port to one question.

    Attributes:
        status: of HTTP.
        text: the beginning of the page, on one line.
        took_s: the time from the dial to the end of the answer, in seconds.
        ends_at_s: the end of the port's certificate, in seconds since 1970; None without TLS.
    """

    status: int
    text: str
    took_s: float
    ends_at_s: float | None


class HttpLook(NamedTuple):
    """The answers of one HTTP port: whether it lives, and whether its server is ready."""

    live: HttpAnswer
    ready: HttpAnswer


def look_at_http(address: str, tls: ClientTls | None, timeout_s: float) -> HttpLook:
    """Ask an HTTP port both questions. Blocks; may be called from any thread.

    Args:
        address: HOST:PORT.
        tls: for the connection, None for one without TLS.
        timeout_s: how long each answer may take.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
        LockringError: it is not trusted, refuses this client, or does not speak HTTP.
    """
    return HttpLook(ask_http(address, LIVE, tls, timeout_s), ask_http(address, READY, tls, timeout_s))


def ask_http(address: str, path: str, tls: ClientTls | None, timeout_s: float) -> HttpAnswer:
    """Ask an HTTP port one question, over a connection of its own. See `look_at_http`."""
    began_ns = monotonic_ns()
    ends_at_s: float | None = None
    try:
        stream: ByteStream
        if tls is None:
            stream = dial_plain(address, timeout_s)
        else:
            stream, ends_at_s = _dial(address, tls, timeout_s)
        with closing(stream):
            stream.settimeout(timeout_s)
            request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            stream.sendall(request.encode("ascii", "replace"))
            data = _read(stream, began_ns + seconds_to_ns(timeout_s))
    except TlsError as error:
        raise failure_of(error, address) from error
    status, text = _parsed(data)
    return HttpAnswer(status, text, (monotonic_ns() - began_ns) / NS_PER_S, ends_at_s)


def is_out_of_reach(address: str, server: str) -> bool:
    """Return whether only processes of another machine can reach an HTTP port. Blocks while names are looked up.

    Args:
        address: HOST:PORT of the HTTP port, as its server names it.
        server: HOST:PORT of the server, as it was reached from here.
    """
    if not _is_loopback(split_address(address)[0]):
        return False
    host = split_address(server)[0]
    return not _is_loopback(host) and not _is_of_this_machine(host)


# ---------------------------------------------------------------------- inner


def _dial(address: str, tls: ClientTls, timeout_s: float) -> tuple[ByteStream, float | None]:
    from lockring.security.tls_socket import TlsStream, shake_hands

    host, port = split_address(address)
    sock = socket.create_connection((host, port), timeout=timeout_s)
    try:
        layer = layer_to(tls, host)
        shake_hands(sock, layer, timeout_s=timeout_s)
        certificate = layer.certificate
    except BaseException:
        sock.close()
        raise
    return TlsStream(sock, layer), None if certificate is None else certificate.not_after_s


def _read(stream: ByteStream, end_ns: int) -> bytes:
    """Return all that comes up to the end of the connection, and no more than an answer may have."""
    data = b""
    while len(data) < _ANSWER_BYTES_MAX:
        left_ns = end_ns - monotonic_ns()
        if left_ns <= 0:
            raise TimeoutError("timed out")
        stream.settimeout(left_ns / NS_PER_S)
        part = stream.recv(_ANSWER_BYTES_MAX)
        if not part:
            break
        data += part
    return data


class _AnswerBytes:
    """Bytes that have come, by the one method of a socket that the library's parser needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parsed(data: bytes) -> tuple[int, str]:
    answer = http.client.HTTPResponse(cast(socket.socket, _AnswerBytes(data)))
    try:
        answer.begin()
        page = answer.read()
    except (http.client.HTTPException, ValueError) as error:
        raise ProtocolError(f"it does not speak HTTP: {str(error) or type(error).__name__}") from error
    text = "; ".join(page.decode("utf-8", "replace").split("\n")).strip("; ")
    return answer.status, text[:_NOTE_CHARS_MAX]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_of_this_machine(host: str) -> bool:
    """Return whether an address of a host can be bound here."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as sock:
            try:
                sock.bind(address)
            except OSError:
                continue
            return True
    return False
