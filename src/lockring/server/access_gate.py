"""The access control of a server: every connection passes it before a core hears of the connection.

Rules:

- With `off`, nothing is looked at: connections are `UNCHECKED`, and the cores look up no rights.
- With `permissive`, what would be refused is reported and counted, and passes.
- A node's connection is a matter of its certificate alone, in every mode: where the servers have a CA of their own, a
  connection without a certificate of that CA cannot be a node's.
- Credentials and hashes stay here. A core gets an identity and its rights.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from lockring.clock import monotonic_ns
from lockring.core.access import (
    ANY_NODE,
    NO_NODE,
    NOTHING,
    UNCHECKED,
    Grantee,
    Newcomer,
    NodeProof,
    Outcome,
    Quota,
)
from lockring.core.effects import AuditEntry
from lockring.errors import Denied, ExtraMissing, LockringError, Unauthenticated
from lockring.ids import ConnectionId, NodeId
from lockring.log_events import event
from lockring.protocol import ClientHello, Message
from lockring.protocol.identities import Identity
from lockring.security.access_control import AccessControl
from lockring.security.audit import AuditLog
from lockring.security.handshakes import FailureReport
from lockring.security.peer_certificates import PeerCertificate
from lockring.server.access_settings import AccessSettings, danger_of
from lockring.server.handshake_records import HandshakeRecords
from lockring.server.reload_records import ReloadRecords
from lockring.troubles import REMIND_NS, RepeatedTrouble

if TYPE_CHECKING:
    from lockring.security.jwks import IssuerKeys
    from lockring.security.jwt_verifier import JwtVerifier

_REPORTED_MAX: Final = 1_000
"""Identities whose missing rights have a line in the log each minute; those of others are only counted.

An identity that has missed none for as long makes room for another.
"""

TLS_FILES: Final = "tls"
"""Name of the files of TLS in the audit log."""

log: Final = logging.getLogger("lockring.access")


def expired_among(grantees: Mapping[ConnectionId, Grantee]) -> list[ConnectionId]:
    """Return the connections whose credential has ended or is not accepted any more, where that is enforced."""
    return [number for number, each in grantees.items() if each.is_expired and each.is_enforced]


def not_accepted(grantee: Grantee) -> Unauthenticated:
    """Return the error of a connection whose credential has ended, or is not accepted any more."""
    return Unauthenticated(f"{grantee.identity} has expired, or was revoked; show another credential")


def _short(edition: str) -> str:
    """Return as much of a digest as a person compares."""
    return edition[:12]


class _MissingRights(NamedTuple):
    """The missing rights of one identity: what the log has of them, and when it missed one last."""

    trouble: RepeatedTrouble
    at_ns: int


class AccessGate:
    """The access control of one server. Lives in one event loop.

    Args:
        settings: see `AccessSettings`.
        server: the name of the server, for the audit log.
        demands_node_certificates: whether only a certificate of the servers' own CA makes a node.

    Attributes:
        is_on: whether identities and rights are looked at.
        audits: whether there is an audit log.
        auth: whether rights are checked, as in the settings.
        is_insecure: whether other machines can reach the server without proving what they are, on purpose.
        failures: connections that were refused for what they have shown, by the code of the error.
        denied: requests that were refused, by the right that they lacked; "other" if no right would help.
        would_refuse: how many requests and connections would have been refused, where rights are only tried out.

    Raises:
        ConfigError: the ACL file is malformed, or a file cannot be opened.
        ExtraMissing: JWTs need packages that are not installed.
    """

    def __init__(
        self, settings: AccessSettings, *, server: str, demands_node_certificates: bool = False
    ) -> None:
        self.auth = settings.auth
        self.is_on = settings.auth != "off"
        self.audits = settings.audit_log is not None
        self.is_insecure = settings.insecure
        self.would_refuse = 0
        self.failures: Counter[str] = Counter()
        self.denied: Counter[str] = Counter()
        self._server = server
        self._demands_node_certificates = demands_node_certificates
        self._is_enforced = settings.auth == "enforcing"
        self._reported: dict[str, _MissingRights] = {}  # the one that was refused last is the last
        self._control: AccessControl | None = None
        self._keys: IssuerKeys | None = None
        if settings.acl_file is not None:
            jwt = self._verifier(settings)
            self._control = AccessControl(Path(settings.acl_file), jwt=jwt, is_enforced=self._is_enforced)
        self._audit = None if settings.audit_log is None else AuditLog(settings.audit_log, server=server)
        self._handshakes = None if self._audit is None else HandshakeRecords(self._audit)
        edition = "" if self._control is None else _short(self._control.content.edition)
        self._acl_reloads = ReloadRecords(self._audit, settings.acl_file or "", edition)
        self._tls_reloads: ReloadRecords | None = None
        if self.is_on:
            log.info(
                "rights are %s: %s",
                settings.auth,
                settings.acl_file,
                extra=event("rights-loaded", auth=settings.auth, file=settings.acl_file),
            )
        if settings.insecure:
            log.warning(
                "other machines can reach %s, as --insecure says: %s",
                server,
                self._danger(),
                extra=event("open-on-purpose"),
            )
        elif self._is_enforced and not demands_node_certificates:
            log.warning(
                "nodes are not asked for certificates: any process that reaches this port may join the cluster as a node",
                extra=event("nodes-without-certificates"),
            )

    def _danger(self) -> str:
        return danger_of(has_tls=self._demands_node_certificates, has_identities=self._is_enforced)

    def _verifier(self, settings: AccessSettings) -> JwtVerifier | None:
        if not settings.jwt_jwks:
            return None
        try:
            import cryptography  # noqa: F401 - without it, PyJWT knows no signature that is accepted

            from lockring.security.jwks import IssuerKeys, JwksPlace
            from lockring.security.jwt_verifier import JwtVerifier
        except ImportError as error:
            raise ExtraMissing(
                f"--jwt-jwks needs a package that is not installed ({error}): install lockring[jwt]"
            ) from error
        place = JwksPlace(settings.jwt_jwks, settings.jwt_ca or "", settings.jwt_token_file or "")
        self._keys = IssuerKeys.at(place)
        return JwtVerifier(self._keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience)

    @property
    def edition(self) -> str:
        """The edition of the ACL file that is in force, "" without one."""
        return self._acl_reloads.edition

    # ----------------------------------------------------------------------- connections

    def newcomer(self, hello: Message, certificate: object, *, origin: str) -> Newcomer:
        """Return what a core may know of a connection by its first message.

        Args:
            hello: the first message.
            certificate: the verified certificate of the other side, None without one.
            origin: HOST:PORT of the other side.

        Raises:
            Unauthenticated: nothing was shown where something is needed, or it is unknown, malformed or expired.
            Denied: the identity has no role.
        """
        shown = certificate if isinstance(certificate, PeerCertificate) else None
        if isinstance(hello, ClientHello):
            return Newcomer(self.admit(shown, hello.credential, origin=origin), NO_NODE)
        return Newcomer(None, self._node_proof(shown))

    def admit(
        self, certificate: PeerCertificate | None, credential: str, *, origin: str, is_call: bool = False
    ) -> Grantee | None:
        """Return the rights of a client by what it has shown, None if none are looked at. See `newcomer`.

        Args:
            certificate: the verified certificate of its connection, None without one.
            credential: a token or a JWT, "" for none.
            origin: HOST:PORT of the client.
            is_call: whether it is one of many calls on a connection, which the audit log does not name each.
        """
        control = self._control
        if control is None:
            return None
        try:
            grantee = control.admit(certificate, credential)
        except Denied as error:
            return self.turn_down(error, origin=origin)
        if self._audit is not None and not is_call:
            self._audit.write("connect", "ok", identity=grantee.identity, origin=origin)
        return grantee

    def turn_down(self, error: Denied, *, origin: str) -> Grantee:
        """Report a client that is not let in, and return its rights where that is only tried out.

        Args:
            error: the reason.
            origin: HOST:PORT of the client.

        Raises:
            Denied: the same, where rights are enforced.
        """
        assert self._control is not None, "without rights, nothing is refused"
        try:
            self.refused(error, origin=origin, is_enforced=self._is_enforced)
            if self._is_enforced:
                raise error
            return self._control.stranger()
        finally:
            del error  # its traceback has this call, and would keep itself and the connection in memory

    def grantee_of(self, identity: Identity) -> Grantee:
        """Return the rights here of an identity for which another server forwards requests."""
        assert self._control is not None, "a core that knows no rights asks for none"
        return self._control.admit_for(identity)

    def own(self, node: NodeId) -> Newcomer:
        """Return what the core of this node may know of a client in its own process, which asks for others."""
        if self._control is None:
            return UNCHECKED
        me = Identity("node", node)
        return Newcomer(Grantee(me, NOTHING, Quota(str(me)), is_enforced=self._is_enforced), NO_NODE)

    def _node_proof(self, certificate: PeerCertificate | None) -> NodeProof:
        if not self._demands_node_certificates:
            return ANY_NODE
        if certificate is None or not certificate.is_server:
            return NO_NODE
        return NodeProof(True, tuple(NodeId(each) for each in certificate.nodes))

    # ----------------------------------------------------------------------- reports

    def refused(self, error: LockringError, *, origin: str, is_enforced: bool = True, name: str = "") -> None:
        """Report a connection that is refused, or would be.

        Args:
            error: the reason.
            origin: HOST:PORT of the other side.
            is_enforced: whether it is refused.
            name: the node that it claims to be, "" for a client.
        """
        if self._audit is not None:
            outcome: Outcome = "refused" if is_enforced else "would-refuse"
            self._audit.write("denied", outcome, origin=origin, name=name, reason=str(error))
        if is_enforced:
            self.failures[error.code] += 1
        else:
            self._report(origin.rpartition(":")[0], f"a client at {origin}: {error}")

    def handshakes_at(self, port: str) -> FailureReport | None:
        """Return how to report the TLS handshakes that fail at a port; None without an audit log.

        Args:
            port: its name in a sentence, such as "lock port".
        """
        records = self._handshakes
        if records is None:
            return None
        return lambda origin, reason: records.note(port, origin, reason, now_ns=monotonic_ns())

    def record(self, entry: AuditEntry, *, origin: str, via: str = "") -> None:
        """Report an act that a core has reported.

        Args:
            entry: the act.
            origin: HOST:PORT of the other side, "" if there is none.
            via: the node that has forwarded the request, "" if none has.
        """
        if entry.outcome == "refused":
            self.denied[entry.right or "other"] += 1
        elif entry.outcome == "would-refuse":
            self._report("" if entry.identity is None else entry.identity.key, entry.reason)
        if self._audit is not None:
            self._audit.write(
                entry.act,
                entry.outcome,
                identity=entry.identity,
                origin=origin,
                via=via,
                name=entry.name,
                fencing_token=entry.fencing_token,
                right=entry.right,
                rule=entry.rule,
                reason=entry.reason,
            )

    def joined(self, node: NodeId, *, origin: str) -> None:
        """Report that a node has joined."""
        if self._audit is not None:
            self._audit.write("join", "ok", identity=Identity("node", node), origin=origin, name=node)

    def _report(self, who: str, text: str) -> None:
        self.would_refuse += 1
        now_ns = monotonic_ns()
        self._forget_quiet(now_ns)
        found = self._reported.pop(who, None)
        if found is None and len(self._reported) >= _REPORTED_MAX:
            return
        trouble = RepeatedTrouble() if found is None else found.trouble
        self._reported[who] = _MissingRights(trouble, now_ns)
        told = trouble.fails(text, now_ns=now_ns)
        if told:
            log.warning("would be refused: %s", told, extra=event("would-be-refused"))

    def _forget_quiet(self, now_ns: int) -> None:
        """Forget the identities that have missed no right for so long that the next line is due at once."""
        while self._reported:
            who, oldest = next(iter(self._reported.items()))
            if now_ns - oldest.at_ns < REMIND_NS:
                return
            del self._reported[who]

    # ----------------------------------------------------------------------- files

    def look(self) -> None:
        """Read the ACL file again if it has changed, and give each connection the rights that it has now.

        Called at least once a second.
        """
        if self._handshakes is not None:
            self._handshakes.look(monotonic_ns())
        control = self._control
        if control is None:
            return
        self._forget_quiet(monotonic_ns())
        control.look()
        # Either was read just now, or since the last look for a new connection.
        self._acl_reloads.note(_short(control.content.edition), control.problem)

    def note_tls(self, edition: str, problem: str) -> None:
        """Report the files of TLS as they are in use. See `ReloadRecords.note`."""
        if self._tls_reloads is None:
            self._tls_reloads = ReloadRecords(self._audit, TLS_FILES, edition)
        self._tls_reloads.note(edition, problem)

    def begin_life(self) -> None:
        """Hear that the server begins another life; see `AccessControl.begin_life`."""
        if self._control is not None:
            self._control.begin_life()

    def start(self) -> None:
        """Begin to read the keys of JWTs."""
        if self._keys is not None:
            self._keys.start()

    def close(self) -> None:
        """End, with what the audit log still has to write. May take two seconds."""
        if self._keys is not None:
            self._keys.close()
        if self._handshakes is not None:
            self._handshakes.close()
        if self._audit is not None:
            self._audit.close()
