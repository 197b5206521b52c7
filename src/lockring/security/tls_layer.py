"""TLS of one connection without its socket: encrypted bytes in, plain bytes out, and the reverse.

A port for clients and servers shows each of them another certificate. A server says that it is one by the name that it
asks for, `tls_contexts.PEER_NAME`, in its first message. So that message is read before a context is chosen. The two
contexts have nothing in common.

The event loops' own TLS offers neither this nor a look at handshakes under way. asyncio's takes 256 KiB more for each
connection, and is slower; uvloop's is not faster than this.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

from lockring.clock import wall_ns
from lockring.security.client_hello import asked_name
from lockring.security.peer_certificates import PeerCertificate, certificate_of
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_errors import NOT_TLS, TlsError, TlsFault
from lockring.security.tls_policy import PortContexts
from lockring.units import NS_PER_S

HANDSHAKE_BYTES_MAX: Final = 64 * 1024
"""How many bytes may come before the handshake is over: room for long chains of certificates."""


class TlsLayer:
    """TLS of one connection. Not thread-safe.

    Make one with `accept` or `dial`. Pass what the socket brings to `receive`, and send what `take_output` returns
    after each call, and what `seal` returns.

    Attributes:
        is_ready: whether the handshake is over, so that plain bytes may be sent.
        is_ended: whether the other side has said that it sends no more.
        is_server: whether the other side is a server, by the context that was used.
    """

    def __init__(self) -> None:
        """Make the layer of one connection, without a context yet; see `accept` and `dial`."""
        self._contexts: PortContexts | None = None
        self._first = bytearray()
        self._early_bytes = 0
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._read: Callable[[int], bytes]
        self._write: Callable[[bytes | bytearray | memoryview], int]
        self._unread: Callable[[], int]
        self._server_side = False
        self.is_ready = False
        self.is_ended = False
        self.is_server = False

    @classmethod
    def accept(cls, contexts: PortContexts) -> TlsLayer:
        """Return the layer of a connection that was accepted.

        Args:
            contexts: those of the port; it has at least one.
        """
        layer = cls()
        if contexts.clients is not None and contexts.servers is not None:
            layer._contexts = contexts
            return layer
        context = contexts.clients or contexts.servers
        assert context is not None, "a port without contexts has no TLS"
        layer.is_server = contexts.clients is None
        layer._begin(context, server_side=True)
        return layer

    @classmethod
    def dial(cls, context: ssl.SSLContext, server_name: str, *, is_server: bool = False) -> TlsLayer:
        """Return the layer of a connection that was opened from here; `take_output` has the first bytes already.

        Args:
            context: see `TlsPolicy.dial_context` and `ClientTls.context`.
            server_name: the host that was dialed, or `PEER_NAME`.
            is_server: whether the context is one for servers.
        """
        layer = cls()
        layer.is_server = is_server
        layer._begin(context, server_side=False, server_name=server_name)
        layer._shake_hands()
        return layer

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the socket, and return the plain bytes that they complete.

        Raises:
            TlsError: the handshake has failed, or the bytes are not TLS. `take_output` may have an alert for the
                other side.
        """
        if self.is_ready:
            self._incoming.write(data)
        elif not self._receive_early(data):
            return b""
        parts: list[bytes] = []
        # The plain bytes of a record are fewer than its own. A longer buffer is allocated and cut with each read.
        size, incoming = len(data), self._incoming
        try:
            while True:
                plain = self._read(size)
                if not plain:
                    self.is_ended = True
                    break
                # Nearly always all is read now. Another call would raise, which takes longer than reading.
                if not incoming.pending and not self._unread():
                    if not parts:
                        return plain
                    parts.append(plain)
                    break
                parts.append(plain)
        except ssl.SSLWantReadError:
            pass  # the rest of a record has not come yet
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLError as error:
            raise _explained(error) from error
        return b"".join(parts)

    @property
    def has_output(self) -> bool:
        """Whether `take_output` has bytes."""
        return self._outgoing.pending > 0

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt plain bytes, and return them with all others that the socket must send. Only once `is_ready`.

        Raises:
            TlsError: the connection has ended.
        """
        assert self.is_ready
        if data:
            try:
                written = self._write(data)
            except ssl.SSLError as error:
                raise _explained(error) from error
            assert written == len(data), "a buffer in memory takes everything"
        return self._outgoing.read()

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
        der = self._tls.getpeercert(binary_form=True)
        return certificate_of(self._tls.getpeercert(), is_server=self.is_server, der=der)

    @property
    def tls_object(self) -> ssl.SSLObject:
        """The library's object, for its version and cipher."""
        return self._tls

    # ----------------------------------------------------------------------- inner

    def _receive_early(self, data: bytes) -> bool:
        """Take bytes of the handshake, and return whether it is over."""
        if self._early_bytes > HANDSHAKE_BYTES_MAX:
            raise TlsError(f"its handshake is longer than {HANDSHAKE_BYTES_MAX // 1024} KiB")
        # Afterwards: the last bytes may bring the first data, as much as one read has.
        self._early_bytes += len(data)
        if self._contexts is not None:
            data = self._choose(self._contexts, data)
            if not data:
                return False
        self._incoming.write(data)
        self._shake_hands()
        return self.is_ready

    def _choose(self, contexts: PortContexts, data: bytes) -> bytes:
        """Choose the context by the first message, and return all bytes so far; b"" if it is not complete yet."""
        self._first += data
        asked = asked_name(bytes(self._first))
        if not asked.is_known:
            return b""
        self.is_server = asked.name == PEER_NAME
        context = contexts.servers if self.is_server else contexts.clients
        assert context is not None
        self._begin(context, server_side=True)
        self._contexts = None
        first, self._first = bytes(self._first), bytearray()
        return first

    def _begin(self, context: ssl.SSLContext, *, server_side: bool, server_name: str = "") -> None:
        self._server_side = server_side
        self._tls = tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name or None
        )
        # The methods of the library's own object, if Python shows it: around each is a function of Python's `ssl`.
        inner: Any = getattr(tls, "_sslobj", tls)
        self._read, self._write, self._unread = inner.read, inner.write, inner.pending

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise _explained(error) from error
        if self._server_side and self._tls.session_reused:
            self._require_valid_still()
        self.is_ready = True

    def _require_valid_still(self) -> None:
        """Check what the library has not checked again: that the certificate of a resumed session has not ended."""
        certificate = self.certificate
        if certificate is not None and certificate.not_after_s < wall_ns() / NS_PER_S:
            raise TlsError("its certificate is refused: certificate has expired", "untrusted")


def _explained(error: ssl.SSLError) -> TlsError:
    """Return an error of the library with words that say what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"its certificate is refused: {error.verify_message.rstrip('.')}", "untrusted")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    # Versions of the library name alerts differently: sslv3, tlsv1, tlsv13, or ssl/tls for all of them.
    _, is_alert, alert = reason.partition(" alert ")
    known = _ALERTS.get(alert) if is_alert else _EXPLAINED.get(reason)
    return TlsError(reason) if known is None else TlsError(*known)


_OLD_VERSION: Final = "it speaks an older version of TLS than 1.2"
_NOT_ACCEPTED: Final = "it does not accept this side's certificate"
_EXPLAINED: Final[dict[str, tuple[str, TlsFault]]] = {
    "http request": ("it speaks HTTP, not TLS", "not-tls"),
    "wrong version number": (NOT_TLS, "not-tls"),
    "unsupported protocol": (_OLD_VERSION, ""),
    "peer did not return a certificate": ("it has shown no certificate", "untrusted"),
}
"""The library's words that leave open what to do, and the kind of each failure."""

_ALERTS: Final[dict[str, tuple[str, TlsFault]]] = {
    "protocol version": (_OLD_VERSION, ""),
    "certificate required": ("it asks for a certificate, and this side has shown none", "refused"),
    "unknown ca": (f"{_NOT_ACCEPTED}: it comes from another authority", "refused"),
    "certificate unknown": (_NOT_ACCEPTED, "refused"),
    "certificate expired": (f"{_NOT_ACCEPTED}: it has expired", "refused"),
    "bad certificate": (_NOT_ACCEPTED, "refused"),
    "unsupported certificate": (f"{_NOT_ACCEPTED}: it is not made for this use", "refused"),
}
"""The same for the reasons that the other side gives."""
