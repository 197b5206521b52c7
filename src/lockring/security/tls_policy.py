"""The TLS of a process: one object for all of its ports, and for all of its connections to other servers.

There are two sides. *Clients* are let in by one authority, *servers* by one of their own, so that the certificate of a
client makes no node. A port that serves both has both contexts; `tls_layer` chooses.

Files may change at any time. `look` reads them again, and makes a new *edition* of the contexts if their content has
changed. Open connections keep theirs. While the files do not fit together, as when half of a pair has been written,
the old edition stays, and one line of the log says so.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from lockring.addresses import check_host
from lockring.clock import monotonic_ns, wall_ns
from lockring.errors import ConfigError, InvalidRequest
from lockring.log_events import event
from lockring.protocol.infos import CERTIFICATE_ENDS_SOON_S
from lockring.security.certificate_times import certificates_in
from lockring.security.tls_contexts import ClientAuth, client_context, peer_context, port_context
from lockring.security.tls_files import HalfWritten, TlsContent, TlsPaths, changed_since, read_files
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

LOOK_NS: Final = NS_PER_S
"""How often the files are looked at, at most."""

WARN_S: Final = CERTIFICATE_ENDS_SOON_S

_ATTEMPTS_MAX: Final = 4
_PAUSE_S: Final = 0.05
"""How often files that are just being replaced are read at the start, and how long after one another."""

_LATELY_NS: Final = NS_PER_S
"""How soon after a change the rest of the files may still have to follow."""

_REMIND_NS: Final = 86_400 * NS_PER_S

log = logging.getLogger("lockring.tls")

_T = TypeVar("_T")


class PortContexts(NamedTuple):
    """The contexts of a port.

    Attributes:
        clients: for clients; None if the port is not for them.
        servers: for other servers, which ask for it by `tls_contexts.PEER_NAME`; None if there are none.
    """

    clients: ssl.SSLContext | None
    servers: ssl.SSLContext | None


class CertificateExpiry(NamedTuple):
    """When a certificate ends that this process shows.

    Attributes:
        side: "clients" or "servers": the connections on which it is shown; "client" in a client.
        path: its file.
        not_after_s: its end, in seconds since 1970: the earliest in the file.
        fingerprint: of the certificate itself, see `certificate_times`.
    """

    side: str
    path: str
    not_after_s: float
    fingerprint: str = ""


@dataclass(frozen=True)
class _Edition(Generic[_T]):
    number: str
    content: TlsContent
    made: _T
    not_after_s: float
    fingerprint: str


class _FileSet(Generic[_T]):
    """The files of one side, and what is made of them.

    Args:
        side: see `CertificateExpiry`.
        paths: of the files.
        make: makes it of their content; raises a `ConfigError` if that must not be used.
    """

    def __init__(self, side: str, paths: TlsPaths, make: Callable[[TlsContent], _T]) -> None:
        self.side = side
        self.paths = paths
        self._make = make
        self.problem = ""
        """Why the files as they are now are not in use, "" if they are."""
        self._refused = RepeatedTrouble()
        self._warned_ns: int | None = None
        self.edition = self._first_edition()

    def look(self, now_ns: int) -> bool:
        """Read the files again, and return whether there is a new edition."""
        try:
            content = read_files(self.paths)
            is_new = content != self.edition.content
            if is_new:
                self.edition = self._edition(content)
        except ConfigError as error:
            self.problem = str(error)
            # One line for all reasons: half of a pair gives another one with each look.
            text = f"the TLS files for {self.side} have changed and are not used yet, the earlier ones stay in use"
            told = self._refused.fails(text, now_ns=now_ns)
            if told:
                log.warning("%s: %s", told, error, extra=event("certificates-unreadable", side=self.side))
            return False
        self.problem = ""
        self._refused.ends(now_ns=now_ns)
        if is_new:
            self._warned_ns = None
            log.info(
                "new TLS files for %s are in use",
                self.side,
                extra=event("certificates-reloaded", side=self.side),
            )
        return is_new

    def warn(self, now_ns: int, wall_s: float) -> None:
        """Log once a day that the certificate ends soon, or has ended."""
        left_s = self.edition.not_after_s - wall_s
        if left_s > WARN_S or (self._warned_ns is not None and now_ns - self._warned_ns < _REMIND_NS):
            return
        self._warned_ns = now_ns
        when = (
            f"ends in {left_s / 86_400:.1f} days" if left_s > 0 else f"ended {-left_s / 86_400:.1f} days ago"
        )
        log.warning(
            "the certificate %s %s: replace it, and it is in use within a second",
            self.paths.cert,
            when,
            extra=event("certificate-expires", file=str(self.paths.cert)),
        )

    def expiry(self) -> list[CertificateExpiry]:
        """Return when the certificate ends; an empty list if none is shown."""
        if not self.paths.cert:
            return []
        shown = self.edition
        return [CertificateExpiry(self.side, self.paths.cert, shown.not_after_s, shown.fingerprint)]

    def _first_edition(self) -> _Edition[_T]:
        """Make the first edition; a process may begin in the moment in which its files are replaced.

        Anything else that is wrong is an error at once, and so it is with files that have not changed lately: they are
        as they are meant to be.
        """
        attempts = 0
        while True:
            try:
                return self._edition(read_files(self.paths))
            except HalfWritten as error:
                attempts += 1
                if attempts == _ATTEMPTS_MAX or not changed_since(self.paths, wall_ns() - _LATELY_NS):
                    raise ConfigError(str(error)) from None
                time.sleep(_PAUSE_S)

    def _edition(self, content: TlsContent) -> _Edition[_T]:
        not_after_s, fingerprint = float("inf"), ""
        if content.cert:
            try:
                found = certificates_in(content.cert.decode("ascii", "ignore"))
            except InvalidRequest as error:
                raise HalfWritten(f"{self.paths.cert}: {error}") from None
            not_after_s = min(each.times.not_after_s for each in found)
            fingerprint = found[0].fingerprint
        return _Edition(content.edition, content, self._make(content), not_after_s, fingerprint)


class _Pace:
    """When files were looked at last, and that one thread at a time does so."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._looked_ns = monotonic_ns()

    def is_due(self, now_ns: int) -> bool:
        """Return whether it is time to look, and no other thread does."""
        return now_ns - self._looked_ns >= LOOK_NS and not self._looking.locked()

    @contextmanager
    def begins(self, now_ns: int) -> Iterator[None]:
        """Look, once another thread is done."""
        with self._looking:
            self._looked_ns = now_ns
            yield


class _ClientSide(NamedTuple):
    """The contexts of one edition of the files for clients: of ports for locks, for gRPC and for HTTP."""

    locks: ssl.SSLContext
    calls: ssl.SSLContext
    pages: ssl.SSLContext


class _ServerSide(NamedTuple):
    accepts: ssl.SSLContext
    dials: ssl.SSLContext


class TlsPolicy:
    """The TLS of a server's process. Safe for use by several threads.

    It reads its files again whenever it is asked for a context, at most once in `LOOK_NS`.

    Args:
        clients: certificate, key and authority for clients; None if clients come without TLS.
        peers: the same for servers among themselves; None if they come without TLS.
        client_auth: whether clients need certificates.

    Raises:
        ConfigError: a file is missing or malformed, does not fit, or both sides trust the same authority.
    """

    def __init__(
        self, clients: TlsPaths | None, peers: TlsPaths | None, *, client_auth: ClientAuth = "none"
    ) -> None:
        self.client_auth: Final = client_auth
        self._clients: _FileSet[_ClientSide] | None = None
        self._peers: _FileSet[_ServerSide] | None = None
        self._pace = _Pace()
        if clients is not None:
            paths = _complete(clients, "tls", needs_ca=client_auth != "none")

            def for_clients(content: TlsContent) -> _ClientSide:
                self._require_apart(content.ca, self._peers)
                return _ClientSide(
                    port_context(paths, content, client_auth),
                    port_context(paths, content, client_auth, protocol="h2"),
                    port_context(paths, content, client_auth, protocol="http/1.1"),
                )

            self._clients = _FileSet("clients", paths, for_clients)
        if peers is not None:
            peer_paths = _complete(peers, "peer-tls", needs_ca=True)

            def for_servers(content: TlsContent) -> _ServerSide:
                self._require_apart(content.ca, self._clients)
                accepts = port_context(peer_paths, content, "required")
                return _ServerSide(accepts, peer_context(peer_paths, content))

            self._peers = _FileSet("servers", peer_paths, for_servers)

    @property
    def port_contexts(self) -> PortContexts:
        """The contexts for a connection that is accepted now."""
        self.look_if_due()
        return PortContexts(
            None if self._clients is None else self._clients.edition.made.locks,
            None if self._peers is None else self._peers.edition.made.accepts,
        )

    @property
    def call_contexts(self) -> PortContexts:
        """The contexts for a connection that a port for gRPC accepts now: for clients alone, and HTTP/2."""
        self.look_if_due()
        return PortContexts(None if self._clients is None else self._clients.edition.made.calls, None)

    @property
    def page_contexts(self) -> PortContexts:
        """The contexts for a connection that a port for HTTP accepts now: for clients alone, and HTTP/1.1."""
        self.look_if_due()
        return PortContexts(None if self._clients is None else self._clients.edition.made.pages, None)

    @property
    def dial_context(self) -> ssl.SSLContext | None:
        """The context for a connection to another server that is opened now, None for one without TLS."""
        self.look_if_due()
        return None if self._peers is None else self._peers.edition.made.dials

    def expiries(self) -> list[CertificateExpiry]:
        """Return when each certificate ends that this process shows."""
        return [each for side in self._sides() for each in side.expiry()]

    @property
    def edition(self) -> str:
        """The content of all files that is in use, in a few characters."""
        return ".".join(each.edition.number[:12] for each in self._sides())

    @property
    def problem(self) -> str:
        """Why the files as they are now are not all in use, "" if they are."""
        return "; ".join(each.problem for each in self._sides() if each.problem)

    def look(self, *, now_ns: int | None = None, wall_s: float | None = None) -> bool:
        """Read the files again, at once.

        Args:
            now_ns: the monotonic clock, read here if None.
            wall_s: seconds since 1970, read here if None.

        Returns:
            Whether anything new is in use.
        """
        now_ns = monotonic_ns() if now_ns is None else now_ns
        wall_s = wall_ns() / NS_PER_S if wall_s is None else wall_s
        is_new = False
        with self._pace.begins(now_ns):
            for side in self._sides():
                is_new = side.look(now_ns) or is_new
                side.warn(now_ns, wall_s)
        return is_new

    def look_if_due(self, *, now_ns: int | None = None) -> None:
        """Read the files again unless that was done a moment ago, or another thread is about it. See `look`."""
        now_ns = monotonic_ns() if now_ns is None else now_ns
        if self._pace.is_due(now_ns):
            self.look(now_ns=now_ns)

    def _sides(self) -> list[_FileSet[Any]]:
        return [side for side in (self._clients, self._peers) if side is not None]

    def _require_apart(self, authorities: bytes, other: _FileSet[Any] | None) -> None:
        """Check that no authority makes both clients and servers."""
        if other is None or self.client_auth == "none":
            return
        if set(_certificates(authorities)) & set(_certificates(other.edition.content.ca)):
            raise ConfigError(
                "the files of --tls-ca and --peer-tls-ca have an authority in common, so that each client could be a node;"
                " give servers one of their own (lockring certs ca makes both)"
            )


class ClientTls:
    """The TLS of a client. Safe for use by several threads.

    Args:
        paths: see `tls_contexts.client_context`.
        server_name: the name that the server's certificate must have, "" for the host that is dialed.

    Raises:
        ConfigError: a file is missing or malformed, or does not fit; or no host can have that name.
    """

    def __init__(self, paths: TlsPaths = TlsPaths(), *, server_name: str = "") -> None:  # noqa: B008 - immutable
        if bool(paths.cert) != bool(paths.key):
            missing, there = ("--key", "--cert") if paths.cert else ("--cert", "--key")
            raise ConfigError(f"{there} needs {missing}: a certificate is of no use without its key")
        try:
            self.server_name: Final = check_host(server_name) if server_name else ""
        except InvalidRequest as error:
            raise ConfigError(
                f"--server-name (server_name, LOCKRING_SERVER_NAME) is {server_name[:80]!r}, which no certificate has:"
                f" {error}"
            ) from None
        self._files = _FileSet("client", paths, lambda content: client_context(paths, content))
        self._pace = _Pace()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a connection that is opened now."""
        now_ns = monotonic_ns()
        if self._pace.is_due(now_ns):
            self.look(now_ns=now_ns)
        return self._files.edition.made

    def look(self, *, now_ns: int | None = None, wall_s: float | None = None) -> bool:
        """See `TlsPolicy.look`."""
        now_ns = monotonic_ns() if now_ns is None else now_ns
        wall_s = wall_ns() / NS_PER_S if wall_s is None else wall_s
        with self._pace.begins(now_ns):
            is_new = self._files.look(now_ns)
            self._files.warn(now_ns, wall_s)
        return is_new

    def expiries(self) -> list[CertificateExpiry]:
        """Return when the client's certificate ends, an empty list if it has none."""
        return self._files.expiry()


def _complete(paths: TlsPaths, flag: str, *, needs_ca: bool) -> TlsPaths:
    """Return the paths if all are given that are needed."""
    needed = {"cert": paths.cert, "key": paths.key} | ({"ca": paths.ca} if needs_ca else {})
    missing = [f"--{flag}-{name}" for name, path in needed.items() if not path]
    if missing:
        given = [f"--{flag}-{name}" for name, path in paths._asdict().items() if path]
        raise ConfigError(f"{' and '.join(given) or 'TLS'} needs {' and '.join(missing)}")
    return paths


def _certificates(pem: bytes) -> list[bytes]:
    """Return the certificates in a PEM text, without what stands between them."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    return [b"".join(each.partition(end)[0].split()) for each in pem.split(begin)[1:]]
