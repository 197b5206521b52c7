"""The TLS of a server's process: what all of its ports, and its connections to other servers, share.

The certificates that other servers show are looked at too. Their connections last, so one that is replaced there is
seen here only with the next connection: of several that a server has shown, the one that ends last counts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import string
from collections.abc import Callable
from typing import Final

from lockring.addresses import split_address
from lockring.clock import monotonic_ns, wall_ns
from lockring.errors import ConfigError, Denied, Unauthenticated
from lockring.ids import NO_REQUEST, NodeId
from lockring.log_events import event
from lockring.net.frames import encode_frame
from lockring.net.listener import Securing
from lockring.net.oneshot import ByteStream, Dial, dial_plain
from lockring.net.openers import Opener, open_plain
from lockring.protocol import CertificateInfo, Refusal
from lockring.security.handshakes import FailureReport, HandshakeGate
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_layer import TlsLayer
from lockring.security.tls_policy import WARN_S, TlsPolicy
from lockring.security.tls_protocol import TlsTransport, accepting, open_tls
from lockring.security.tls_socket import TlsStream, shake_hands
from lockring.server.tls_settings import TlsSettings
from lockring.units import NS_PER_S

_PLAIN_ANSWER: Final = encode_frame(
    Refusal(
        NO_REQUEST,
        Unauthenticated.code,
        "this port demands TLS: a client names it as lockrings://HOST:PORT, and the authority of its certificate with --ca;"
        " a server needs --tls-cert and --peer-tls-cert",
    )
)
"""The answer to a client or a server that comes without TLS, which can read this much."""

_PLAIN_PAGE: Final = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n"
    b"this port demands TLS: its address begins with https://\n"
)
"""The answer to a browser or a probe that comes without TLS."""

_METHODS: Final = string.ascii_uppercase.encode()
"""The first bytes of requests without TLS."""

SecuringPages = Callable[[Callable[[], asyncio.Protocol], int], Callable[[], asyncio.Protocol]]
"""Puts TLS below the protocols of a port for HTTP, with a bound on the handshakes under way. See `net.listener`."""

_LOOK_AT_PEERS_NS: Final = 60 * NS_PER_S
_REMIND_NS: Final = 86_400 * NS_PER_S

log = logging.getLogger("lockring.tls")


class ServerTls:
    """TLS for the ports and the outgoing connections of one process. Lives in one event loop.

    Args:
        policy: has the contexts. It reads its files again when it is asked for one, and `look` sees to it in between.

    Attributes:
        policy: the same.
        gates: of the ports, each with the counts of its handshakes.
    """

    def __init__(self, policy: TlsPolicy) -> None:
        self.policy: Final = policy
        self.gates: list[HandshakeGate] = []
        self._peers: list[TlsTransport] = []
        self._looked_at_peers_ns = monotonic_ns() - _LOOK_AT_PEERS_NS
        self._warned_ns: dict[str, int] = {}

    def secure(
        self, make: Callable[[], asyncio.Protocol], on_failure: FailureReport | None = None
    ) -> Callable[[], asyncio.Protocol]:
        """Put TLS below the protocols of a port that accepts. See `net.listener.Securing`.

        Args:
            make: makes the protocols.
            on_failure: called for each handshake that fails.
        """
        # Each port has its own: one that is crowded does not keep the others from accepting.
        return accepting(
            make,
            lambda: self.policy.port_contexts,
            self._keep(HandshakeGate(on_failure=on_failure)),
            plain_answer=_PLAIN_ANSWER,
            opened=self._note_peer,
        )

    def securing_calls(self, under_way_max: int, on_failure: FailureReport | None = None) -> Securing:
        """Return how a port for gRPC clients accepts: as a port for clients alone.

        Args:
            under_way_max: how many handshakes may be under way.
            on_failure: called for each handshake that fails.

        Raises:
            ConfigError: there are no files for clients.
        """
        if self.policy.port_contexts.clients is None:
            raise ConfigError("the gRPC port has no certificate: name one with --tls-cert and --tls-key")

        def secure(make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
            gate = HandshakeGate(under_way_max=under_way_max, on_failure=on_failure)
            return accepting(make, lambda: self.policy.call_contexts, self._keep(gate))

        return secure

    def securing_pages(self, on_failure: FailureReport | None = None) -> SecuringPages:
        """Return how a port for HTTP accepts: as a port for clients alone.

        Args:
            on_failure: called for each handshake that fails.
        """

        def secure(
            make: Callable[[], asyncio.Protocol], under_way_max: int
        ) -> Callable[[], asyncio.Protocol]:
            return accepting(
                make,
                lambda: self.policy.page_contexts,
                self._keep(HandshakeGate(under_way_max=under_way_max, on_failure=on_failure)),
                plain_answer=_PLAIN_PAGE,
                plain_begins=_METHODS,
            )

        return secure

    async def open(self, make: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        """Open a connection to another server. See `net.dialer.Opener`.

        Raises:
            TlsError: the handshake failed, or took too long.
            OSError: the other side cannot be reached.
        """

        def begin() -> TlsLayer:
            context = self.policy.dial_context
            assert context is not None, "the settings have both sides, or none"
            return TlsLayer.dial(context, PEER_NAME, is_server=True)

        await open_tls(make, host, port, begin, opened=self._note_peer)

    def dial(self, address: str, timeout_s: float) -> ByteStream:
        """Open a connection to another server for a single question. Blocks; see `net.oneshot.Dial`.

        Raises:
            OSError: it cannot be reached, or its certificate is refused.
        """
        context = self.policy.dial_context
        assert context is not None, "the settings have both sides, or none"
        sock = socket.create_connection(split_address(address), timeout=timeout_s)
        try:
            layer = TlsLayer.dial(context, PEER_NAME, is_server=True)
            shake_hands(sock, layer, timeout_s=timeout_s)
        except BaseException:
            sock.close()
            raise
        return TlsStream(sock, layer)

    def look(self, now_ns: int) -> None:
        """Read the files again if that is due, and report certificates that end soon. Called at least once a second."""
        self.policy.look_if_due(now_ns=now_ns)
        if now_ns - self._looked_at_peers_ns >= _LOOK_AT_PEERS_NS:
            self._looked_at_peers_ns = now_ns
            self._warn_of_peers(now_ns)

    def reload(self, now_ns: int) -> None:
        """Read the files again, at once."""
        self.policy.look(now_ns=now_ns)

    def certificates(self) -> list[CertificateInfo]:
        """Return when this process's own certificates end, and those of other servers that end soon."""
        own = [
            CertificateInfo(each.side, each.path, int(each.not_after_s), each.fingerprint)
            for each in self.policy.expiries()
        ]
        return own + [
            CertificateInfo("peer", name, int(each.not_after_s), each.fingerprint)
            for name, each in self._peers_that_end().items()
        ]

    # ----------------------------------------------------------------------- inner

    def _note_peer(self, transport: TlsTransport) -> None:
        if transport.certificate is not None and transport.certificate.is_server:
            self._peers.append(transport)

    def _peers_that_end(self) -> dict[str, PeerCertificate]:
        """Return the other servers whose certificates end soon, each with the certificate."""
        self._peers = [each for each in self._peers if not each.is_closing()]
        shown = [each.certificate for each in self._peers if each.certificate is not None]
        until_s = wall_ns() / NS_PER_S + WARN_S
        if all(each.not_after_s > until_s for each in shown):
            return {}  # as nearly always: this is asked for twice a second, and a node may have a thousand peers
        last: dict[str, PeerCertificate] = {}
        for certificate in shown:
            name = certificate.identity().name
            if name not in last or certificate.not_after_s > last[name].not_after_s:
                last[name] = certificate
        return {name: each for name, each in sorted(last.items()) if each.not_after_s <= until_s}

    def _keep(self, gate: HandshakeGate) -> HandshakeGate:
        self.gates.append(gate)
        return gate

    def _warn_of_peers(self, now_ns: int) -> None:
        """Log once a day for each server that the certificate that it has shown ends soon."""
        ending = self._peers_that_end()
        self._warned_ns = {name: at_ns for name, at_ns in self._warned_ns.items() if name in ending}
        wall_s = wall_ns() / NS_PER_S
        for name, certificate in ending.items():
            if now_ns - self._warned_ns.get(name, now_ns - _REMIND_NS) >= _REMIND_NS:
                self._warned_ns[name] = now_ns
                log.warning(
                    "the certificate that %s has shown ends in %.1f days: replace it there, unless that was done since it"
                    " connected",
                    name,
                    (certificate.not_after_s - wall_s) / 86_400,
                    extra=event("certificate-of-peer-expires", peer=name),
                )


def make_tls(settings: TlsSettings) -> ServerTls | None:
    """Return the TLS that settings ask for, None for none.

    Raises:
        ConfigError: a file is missing or malformed, does not fit, or both sides trust the same authority.
    """
    if not settings.has_tls:
        return None
    clients = TlsPaths(settings.tls_cert, settings.tls_key, settings.tls_ca)
    peers = TlsPaths(settings.peer_tls_cert, settings.peer_tls_key, settings.peer_tls_ca)
    return ServerTls(TlsPolicy(clients, peers, client_auth=settings.client_auth))


def secure_of(tls: ServerTls | None, on_failure: FailureReport | None = None) -> Securing | None:
    """Return how a port of a process accepts.

    Args:
        tls: the process's TLS, None without.
        on_failure: called for each handshake that fails: `AccessGate.handshakes_at`.
    """
    return None if tls is None else functools.partial(tls.secure, on_failure=on_failure)


def opener_of(tls: ServerTls | None) -> Opener:
    """Return how a process opens connections to other servers."""
    return open_plain if tls is None else tls.open


def dial_of(tls: ServerTls | None) -> Dial:
    """Return how a process asks another server a single question."""
    return dial_plain if tls is None else tls.dial


def check_node_certificate(certificate: PeerCertificate | None, node: NodeId, address: str) -> None:
    """Check that a server that was dialed, and says that it is a node, may be that one.

    Args:
        certificate: what it has shown; None without TLS.
        node: the node.
        address: HOST:PORT, for the error.

    Raises:
        Denied: its certificate names other nodes.
    """
    if certificate is not None and not certificate.may_be_node(node):
        names = ", ".join(certificate.nodes) or "no node"
        raise Denied(
            f"{address} answers as {node}, and its certificate is for {names}: give each node its own",
            name=node,
        )
