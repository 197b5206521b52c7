"""TLS of one connection without its socket: encrypted bytes in, plain bytes out, and the reverse.

A port for clients and servers shows each of them another certificate. A server says that it is one by the name that it
asks for, `tls_contexts.PEER_NAME`. When that name is read, nothing has been answered yet; so the layer begins again
with the context for servers, and gives it the same bytes. The two contexts have nothing in common.

The event loops' own TLS offers neither this, nor a look at handshakes under way, and keeps 256 KiB for each connection.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from lockring.clock import wall_ns
from lockring.security.peer_certificates import PeerCertificate, certificate_of
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_policy import PortContexts
from lockring.units import NS_PER_S

FIRST_BYTES_MAX: Final = 32 * 1024
"""How many bytes may come before the server name is known: two of the longest records."""

_READ_BYTES: Final = 64 * 1024


class TlsError(Exception):
    """The handshake has failed, or the connection is not TLS any more. The text says why, as a clause."""


class _NamedObject(ssl.SSLObject):
    """The library's object, with the name that a client has asked for."""

    asked_name: str | None = None


class TlsLayer:
    """TLS of one connection. Not thread-safe.

    Make one with `accept` or `dial`. Pass what the socket brings to `receive`, and send what `take_output` returns
    after each call.

    Attributes:
        is_ready: whether the handshake is over, so that plain bytes may be sent.
        is_ended: whether the other side has said that it sends no more.
        is_server: whether the other side is a server, by the context that was used.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str = "") -> None:
        """Make the layer of one connection; see `accept` and `dial`.

        Args:
            context: with which to begin.
            server_side: whether the connection was accepted.
            server_name: the name that the server's certificate must have, if it was dialed.
        """
        self._server_side = server_side
        self._server_name = server_name
        self._servers: ssl.SSLContext | None = None
        self._first: bytearray | None = None
        self.is_ready = False
        self.is_ended = False
        self.is_server = False
        self._begin(context)

    @classmethod
    def accept(cls, contexts: PortContexts) -> TlsLayer:
        """Return the layer of a connection that was accepted.

        Args:
            contexts: those of the port; it has at least one.
        """
        if contexts.clients is None:
            assert contexts.servers is not None, "a port without contexts has no TLS"
            layer = cls(contexts.servers, server_side=True)
            layer.is_server = True
            return layer
        if contexts.servers is not None:
            _listen_for_name(contexts.clients)
        layer = cls(contexts.clients, server_side=True)
        if contexts.servers is not None:
            layer._servers = contexts.servers
            layer._first = bytearray()
        return layer

    @classmethod
    def dial(cls, context: ssl.SSLContext, server_name: str, *, is_server: bool = False) -> TlsLayer:
        """Return the layer of a connection that was opened from here; `take_output` has the first bytes already.

        Args:
            context: see `TlsPolicy.dial_context` and `ClientTls.context`.
            server_name: the host that was dialed, or `PEER_NAME`.
            is_server: whether the context is one for servers.
        """
        layer = cls(context, server_side=False, server_name=server_name)
        layer.is_server = is_server
        layer._shake_hands()
        return layer

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes from the socket, and return the plain bytes that they complete.

        Raises:
            TlsError: the handshake has failed, or the bytes are not TLS. `take_output` may have an alert for the
                other side.
        """
        if self._first is not None:
            self._first += data
            if len(self._first) > FIRST_BYTES_MAX:
                raise TlsError(f"its first {FIRST_BYTES_MAX // 1024} KiB name no server")
        self._incoming.write(data)
        if not self.is_ready:
            self._shake_hands()
            if not self.is_ready:
                return []
        found: list[bytes] = []
        try:
            while True:
                plain = self._tls.read(_READ_BYTES)
                if not plain:
                    self.is_ended = True
                    return found
                found.append(plain)
        except ssl.SSLWantReadError:
            return found
        except ssl.SSLZeroReturnError:
            self.is_ended = True
            return found
        except ssl.SSLError as error:
            raise TlsError(_reason_of(error)) from error

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt plain bytes; `take_output` returns the result. Only once `is_ready`.

        Raises:
            TlsError: the connection has ended.
        """
        assert self.is_ready
        if not data:
            return
        try:
            written = self._tls.write(data)
        except ssl.SSLError as error:
            raise TlsError(_reason_of(error)) from error
        assert written == len(data), "a buffer in memory takes everything"

    def take_output(self) -> bytes:
        """Return the bytes that the socket must send, b"" if there are none, and forget them."""
        return self._outgoing.read()

    def end(self) -> None:
        """Say that no more will be sent; `take_output` returns how."""
        if not self.is_ready:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # the other side has not said so yet, and is not waited for

    @property
    def certificate(self) -> PeerCertificate | None:
        """The verified certificate of the other side, None if it has shown none. Once `is_ready`."""
        return certificate_of(self._tls.getpeercert(), is_server=self.is_server)

    @property
    def tls_object(self) -> ssl.SSLObject:
        """The library's object, for its version and cipher."""
        return self._tls

    # ----------------------------------------------------------------------- inner

    def _begin(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        name = self._server_name or None
        self._tls: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_side=self._server_side, server_hostname=name
        )

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            # The name comes with the first message of the other side. Once there is an answer, it was read.
            if self._outgoing.pending:
                self._first = None
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            if self._first is not None and _asked_for_server(self._tls):
                self._begin_again()
                return
            raise TlsError(_reason_of(error)) from error
        self._first = None
        if self._server_side and self._tls.session_reused:
            self._require_valid_still()
        self.is_ready = True

    def _require_valid_still(self) -> None:
        """Check what the library has not checked again: that the certificate of a resumed session has not ended."""
        certificate = self.certificate
        if certificate is not None and certificate.not_after_s < wall_ns() / NS_PER_S:
            raise TlsError("its certificate is refused: certificate has expired")

    def _begin_again(self) -> None:
        assert self._servers is not None
        assert self._first is not None
        first, self._first = bytes(self._first), None
        self.is_server = True
        self._begin(self._servers)
        self._incoming.write(first)
        self._shake_hands()


def _listen_for_name(context: ssl.SSLContext) -> None:
    """Let a context for clients end the handshake of a connection that asks for the servers' certificate."""
    if context.sslobject_class is not _NamedObject:
        context.sslobject_class = _NamedObject
        context.sni_callback = _note_name


def _note_name(tls: Any, name: str | None, context: ssl.SSLContext) -> int | None:
    tls.asked_name = name
    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if name == PEER_NAME else None


def _asked_for_server(tls: ssl.SSLObject) -> bool:
    return isinstance(tls, _NamedObject) and tls.asked_name == PEER_NAME


def _reason_of(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return _EXPLAINED.get(reason, reason)


_EXPLAINED: Final = {
    "http request": "it speaks HTTP, not TLS",
    "wrong version number": "it does not speak TLS",
    "unsupported protocol": "it speaks an older version of TLS than 1.2",
    "tlsv1 alert protocol version": "it speaks an older version of TLS than 1.2",
    "peer did not return a certificate": "it has shown no certificate",
    "tlsv13 alert certificate required": "it asks for a certificate, and this side has shown none",
    "tlsv1 alert unknown ca": "it does not accept this side's certificate: unknown authority",
    "sslv3 alert certificate unknown": "it does not accept this side's certificate",
    "sslv3 alert certificate expired": "it does not accept this side's certificate: expired",
    "sslv3 alert bad certificate": "it does not accept this side's certificate",
}
"""The library's words that leave open what to do."""
