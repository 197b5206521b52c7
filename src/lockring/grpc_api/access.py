"""The access control of gRPC calls: each is judged before its method runs, by the table of required rights.

A method that is not in the table is refused. A call shows a token or a JWT as `authorization: Bearer …`, or the
certificate of its connection. Each is verified once for a connection, since that may take longer than the call. The
nodes that the call leads to judge it again, since each has an ACL file of its own.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from lockring.core.access import (
    GRPC_REQUIREMENTS,
    Condition,
    Grantee,
    MissingRight,
    Requirement,
    missing_right,
)
from lockring.core.effects import AuditEntry, denied_entry
from lockring.errors import Unauthenticated
from lockring.grpc_api.askers import ASKER
from lockring.grpc_api.call import GrpcCall
from lockring.security.peer_certificates import PeerCertificate

_SERVER: Final = Requirement(Condition.SERVER)
_OF_A_NAME: Final = frozenset({Condition.NAME, Condition.OWNER_AND_NAME})


class CallGate(Protocol):
    """The access control of the server, as calls see it.

    Attributes:
        is_on: whether identities and rights are looked at.
    """

    is_on: bool

    @property
    def edition(self) -> str:
        """The edition of the rights that are in force."""

    def admit(
        self, certificate: PeerCertificate | None, credential: str, *, origin: str, is_call: bool = False
    ) -> Grantee | None:
        """Return the rights of a client by what it has shown; raise `Denied` if it is not let in."""

    def turn_down(self, error: Unauthenticated, *, origin: str) -> Grantee:
        """Report a client with a malformed credential. Raise the error, or return its rights if none are enforced."""

    def record(self, entry: AuditEntry, *, origin: str, via: str = "") -> None:
        """Report an act."""


class CallJudge:
    """Judges calls. Lives in one event loop.

    Args:
        gate: the access control of the server.
    """

    def __init__(self, gate: CallGate) -> None:
        self._gate = gate

    def judgement_of(self, call: GrpcCall) -> Judgement | None:
        """Find out the client of a call; further requests of the present task are on its behalf.

        Returns:
            The judgement on the call's requests, None if the call needs no right.

        Raises:
            Denied: the client has shown no credential, or none that lets it in.
        """
        # A method without a row in the table needs a server's certificate, which no client of gRPC has.
        requirement = GRPC_REQUIREMENTS.get(call.path, _SERVER)
        if not self._gate.is_on or requirement.condition is Condition.FREE:
            return None
        grantee = self._admitted(call)
        ASKER.set(grantee.identity)
        return Judgement(self._gate, requirement, grantee, call.origin)

    def _admitted(self, call: GrpcCall) -> Grantee:
        gate, known = self._gate, call.stream.known
        try:
            credential = call.credential()
        except Unauthenticated as error:
            return gate.turn_down(error, origin=call.origin)
        found = known.find(credential, gate.edition)
        if found is not None:
            return found
        grantee = gate.admit(call.stream.certificate, credential, origin=call.origin, is_call=True)
        assert grantee is not None, "the gate is on"
        if grantee.proof is not None:
            known.keep(credential, grantee)
        return grantee


class Judgement:
    """The judgement on one call: what its client may do.

    Args:
        gate: the access control of the server.
        requirement: what the method needs.
        grantee: the client.
        origin: HOST:PORT of it.
    """

    def __init__(self, gate: CallGate, requirement: Requirement, grantee: Grantee, origin: str) -> None:
        self._gate = gate
        self._requirement = requirement
        self._grantee = grantee
        self._origin = origin

    def require(self, request: Any) -> None:
        """Check that the client may make this request, None for a stream of them.

        Raises:
            Denied: it lacks a right, and that is enforced.
        """
        missing = missing_right(self._grantee, self._requirement, self._name_in(request))
        if missing is not None:
            self._report(missing)

    def require_still(self) -> None:
        """Check that the credential has not ended since.

        Raises:
            Denied: it has, and that is enforced.
        """
        if self._grantee.is_expired and self._grantee.is_enforced:
            missing = missing_right(self._grantee, self._requirement)
            assert missing is not None
            self._report(missing)

    def _report(self, missing: MissingRight) -> None:
        self._gate.record(denied_entry(self._grantee, missing, None), origin=self._origin)
        if self._grantee.is_enforced:
            raise missing.error()

    def _name_in(self, request: Any) -> str:
        """Return the lock or node that a request names."""
        condition = self._requirement.condition
        if condition is Condition.NODE:
            return str(request.node)
        return str(request.name) if condition in _OF_A_NAME and request is not None else ""
