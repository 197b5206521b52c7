"""The identity behind an HTTP request, and its rights, by the same access control as on all other ports.

A request shows a token or a JWT as `Authorization: Bearer …`, or the certificate of its connection. A page that takes
credentials in another way, such as a cookie, gives the site a function for it.
"""

from __future__ import annotations

from typing import Final, Protocol

from starlette.requests import HTTPConnection

from lockring.core.access import Grantee, MissingRight, Requirement, Verb, lacks, missing_right
from lockring.core.effects import AuditEntry, denied_entry
from lockring.errors import Unauthenticated
from lockring.protocol.identities import Identity
from lockring.security.peer_certificates import PeerCertificate

_BEARER: Final = "bearer "


class VisitGate(Protocol):
    """The access control of the server, as requests see it.

    Attributes:
        is_on: whether identities and rights are looked at.
    """

    is_on: bool

    def admit(
        self, certificate: PeerCertificate | None, credential: str, *, origin: str, is_call: bool = False
    ) -> Grantee | None:
        """Return the rights of a client by what it has shown; raise `Denied` if it is not let in."""

    def record(self, entry: AuditEntry, *, origin: str, via: str = "") -> None:
        """Report an act."""


class Visit:
    """One request, with what its client may do.

    Args:
        gate: the access control of the server.
        certificate: the verified certificate of the connection, None without one.
        credential: a token or a JWT, "" for none.
        origin: HOST:PORT of the client.

    Attributes:
        credential: the same.
        origin: the same.
        grantee: the identity and its rights; None where none are looked at. The rights follow the ACL file: an answer
            that lasts looks at `is_over` now and then.

    Raises:
        Unauthenticated: nothing was shown where something is needed, or it is unknown, malformed or expired.
        Denied: the identity has no role.
    """

    def __init__(
        self, gate: VisitGate, certificate: PeerCertificate | None, credential: str, *, origin: str
    ) -> None:
        self.credential = credential
        self.origin = origin
        self._gate = gate
        self.grantee: Grantee | None = None
        if gate.is_on:
            self.grantee = gate.admit(certificate, credential, origin=origin, is_call=True)

    @property
    def identity(self) -> Identity | None:
        """The proven identity, None where none are looked at."""
        return None if self.grantee is None else self.grantee.identity

    @property
    def is_over(self) -> bool:
        """Whether the credential has ended or was revoked meanwhile."""
        return self.grantee is not None and self.grantee.is_expired and self.grantee.is_enforced

    def may(self, verb: Verb, name: str = "") -> bool:
        """Return whether the client may do something, without a report of it. Also yes where rights are only tried out.

        Args:
            verb: the right.
            name: the lock or node; "" for `Verb.ADMIN`.
        """
        grantee = self.grantee
        return grantee is None or not grantee.is_enforced or grantee.permissions.allows(verb, name)

    def require(self, verb: Verb, name: str = "") -> None:
        """Refuse the request unless the client may do something, and report a right that is missing.

        Raises:
            Denied: it may not.
        """
        grantee = self.grantee
        if grantee is not None and not grantee.permissions.allows(verb, name):
            self._report(grantee, lacks(grantee, verb, name))

    def meet(self, requirement: Requirement, name: str = "") -> None:
        """Refuse the request unless the client meets what a page requires.

        Raises:
            Denied: it does not.
        """
        grantee = self.grantee
        if grantee is not None:
            missing = missing_right(grantee, requirement, name)
            if missing is not None:
                self._report(grantee, missing)

    def _report(self, grantee: Grantee, missing: MissingRight) -> None:
        self._gate.record(denied_entry(grantee, missing, None), origin=self.origin)
        if grantee.is_enforced:
            raise missing.error()


def visit_of(request: HTTPConnection) -> Visit:
    """Return the visit of a request to a page that is not free."""
    visit = request.scope["state"].get("visit")
    assert isinstance(visit, Visit), "only a page that is free has no visit"
    return visit


def bearer_of(request: HTTPConnection) -> str:
    """Return the token or JWT in the header `Authorization`, "" for none.

    Raises:
        Unauthenticated: the header is there twice, or is not one of a bearer.
    """
    found = request.headers.getlist("authorization")
    if not found:
        return ""
    if len(found) > 1 or not found[0].lower().startswith(_BEARER):
        raise Unauthenticated("the request has one header `Authorization: Bearer TOKEN`, or none")
    return found[0][len(_BEARER) :].strip()
