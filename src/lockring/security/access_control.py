"""From what a client shows to what it may do, at one server, as the ACL file says at the moment.

The file is read again as it changes. Open connections stay, and what they may do changes at their next request: a
token that was removed, replaced or has expired may do nothing from then on. A file that is malformed changes nothing,
and gives one line of the log.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from lockring.clock import monotonic_ns, wall_ns
from lockring.core.access import EVERYTHING, NOTHING, Grantee, Permissions, Quota
from lockring.errors import ConfigError, Denied, Unauthenticated
from lockring.log_events import event
from lockring.protocol.identities import ANONYMOUS, Identity
from lockring.security.acl_file import AclContent, parse_acl, read_acl_bytes
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tokens import TokenProof, is_token
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

if TYPE_CHECKING:
    from lockring.security.jwt_verifier import JwtVerifier

LOOK_NS: Final = NS_PER_S
"""How often the file is looked at, at most."""

log = logging.getLogger("lockring.access")


class IdentityProof(NamedTuple):
    """How an identity was proven: until when that counts, and the token by which it was."""

    identity: Identity
    expires_s: float | None = None
    token: TokenProof | None = None


class AccessControl:
    """The identities and rights of one server. Lives in one thread.

    Args:
        path: of the ACL file.
        jwt: accepts the JWTs of an issuer; None to accept none.
        is_enforced: whether a missing right refuses. If not, rights are only tried out.

    Attributes:
        path: of the ACL file.
        problem: why the file as it is now is not in use, "" if it is.

    Raises:
        ConfigError: the file cannot be read, or is malformed.
    """

    def __init__(self, path: Path, *, jwt: JwtVerifier | None = None, is_enforced: bool = True) -> None:
        self.path = path
        self.problem = ""
        self._jwt = jwt
        self._is_enforced = is_enforced
        self._trouble = RepeatedTrouble()
        self._grantees: WeakSet[Grantee] = WeakSet()
        self._quotas: WeakValueDictionary[tuple[str, tuple[str, ...]], Quota] = WeakValueDictionary()
        self._looked_ns = monotonic_ns()
        self._data = read_acl_bytes(path)
        self._content = parse_acl(self._data, str(path), wall_s=wall_ns() / NS_PER_S)
        self._remark()

    @property
    def content(self) -> AclContent:
        """The file as it is in use."""
        return self._content

    def admit(
        self, certificate: PeerCertificate | None, credential: str, *, wall_s: float | None = None
    ) -> Grantee:
        """Return what a new connection may do by what it has shown.

        A credential counts more than a certificate: a client that shows both is the one that the credential names.

        Args:
            certificate: the verified certificate of the other side, None if it has shown none.
            credential: a token or a JWT, "" if it has sent none.
            wall_s: the time in seconds since 1970, read here if None.

        Raises:
            Unauthenticated: nothing was shown where something is needed, or it is malformed, unknown or expired.
            Denied: the identity has no role.
        """
        self.look_if_due()
        wall_s = wall_ns() / NS_PER_S if wall_s is None else wall_s
        return self._grantee(self._proven(certificate, credential, wall_s))

    def admit_for(self, identity: Identity) -> Grantee:
        """Return what an identity may do that another server has proven, and for which it forwards requests.

        One without a role here may do nothing until the file gives it one.
        """
        self.look_if_due()
        return self._new_grantee(IdentityProof(identity), self._content.policy.permissions_of(identity))

    def stranger(self) -> Grantee:
        """Return what a connection may do that `admit` has refused, where rights are only tried out: everything."""
        quota = self._quota(ANONYMOUS, EVERYTHING)
        return Grantee(ANONYMOUS, EVERYTHING, quota, is_enforced=self._is_enforced)

    def begin_life(self) -> None:
        """Count the use of limits from nothing, as a node's new life does: it has none of the sessions of the last."""
        self._quotas.clear()

    def look_if_due(self) -> None:
        """Look at the file unless that was done a moment ago."""
        if monotonic_ns() - self._looked_ns >= LOOK_NS:
            self.look()

    def look(self, *, now_ns: int | None = None, wall_s: float | None = None) -> bool:
        """Look at the file and at the time now, and give every connection the rights that it has now.

        Args:
            now_ns: the monotonic clock, read here if None.
            wall_s: seconds since 1970, read here if None.

        Returns:
            Whether another content is in use.
        """
        now_ns = monotonic_ns() if now_ns is None else now_ns
        wall_s = wall_ns() / NS_PER_S if wall_s is None else wall_s
        self._looked_ns = now_ns
        is_new = self._read(now_ns, wall_s)
        for each in self._grantees:
            self._update(each, wall_s, is_new=is_new)
        return is_new

    # ----------------------------------------------------------------------- inner

    def _read(self, now_ns: int, wall_s: float) -> bool:
        try:
            data = read_acl_bytes(self.path)
            if data == self._data:
                self._is_in_use(now_ns)
                return False
            content = parse_acl(data, str(self.path), wall_s=wall_s)
        except ConfigError as error:
            self.problem = str(error)
            told = self._trouble.fails(f"the rights stay as they were: {error}", now_ns=now_ns)
            if told:
                log.warning("%s", told, extra=event("rights-unreadable", file=str(self.path)))
            return False
        self._is_in_use(now_ns)
        self._data, self._content = data, content
        log.info(
            "new rights from %s are in force", self.path, extra=event("rights-reloaded", file=str(self.path))
        )
        self._remark()
        return True

    def _is_in_use(self, now_ns: int) -> None:
        self.problem = ""
        self._trouble.ends(now_ns=now_ns)

    def _remark(self) -> None:
        for each in self._content.remarks:
            log.warning("%s: %s", self.path, each, extra=event("rights-remark", file=str(self.path)))

    def _proven(self, certificate: PeerCertificate | None, credential: str, wall_s: float) -> IdentityProof:
        if credential:
            if is_token(credential):
                proof = self._content.tokens.check(credential, wall_s=wall_s)
                return IdentityProof(Identity("token", proof.entry.id), proof.entry.expires_s, proof)
            if self._jwt is None:
                raise Unauthenticated(
                    "the credential is not a token of lockring, and this server accepts no JWTs"
                )
            found = self._jwt.verify(credential)
            return IdentityProof(found.identity, found.expires_s)
        if certificate is not None:
            if wall_s >= certificate.not_after_s:
                raise Unauthenticated("the certificate has expired; ask for a new one")
            # A server's connections last: its certificate is looked at again when it connects again.
            return IdentityProof(
                certificate.identity(), None if certificate.is_server else certificate.not_after_s
            )
        return IdentityProof(ANONYMOUS)

    def _grantee(self, proof: IdentityProof) -> Grantee:
        permissions = self._content.policy.permissions_of(proof.identity)
        if permissions is NOTHING and proof.identity.method != "node":
            if proof.identity == ANONYMOUS:
                raise Unauthenticated(
                    "this server lets in no client without credentials: show a token (--token-file) or a certificate (--cert)"
                )
            raise Denied(f"{proof.identity} has no role here that allows anything; the ACL file gives it one")
        return self._new_grantee(proof, permissions)

    def _new_grantee(self, proof: IdentityProof, permissions: Permissions) -> Grantee:
        quota = self._quota(proof.identity, permissions)
        grantee = Grantee(proof.identity, permissions, quota, is_enforced=self._is_enforced, proof=proof)
        self._grantees.add(grantee)
        return grantee

    def _quota(self, identity: Identity, permissions: Permissions) -> Quota:
        key = identity.key, permissions.roles
        quota = self._quotas.get(key)
        if quota is None:
            quota = self._quotas[key] = Quota(str(identity), permissions.limits)
        return quota

    def _update(self, grantee: Grantee, wall_s: float, *, is_new: bool) -> None:
        proof = grantee.proof
        assert isinstance(proof, IdentityProof)
        if proof.token is not None and is_new:
            entry = self._content.tokens.by_id.get(proof.token.entry.id)
            if entry is None or not self._content.tokens.is_accepted(proof.token):
                grantee.is_expired = True
            else:
                proof = proof._replace(expires_s=entry.expires_s)
                grantee.proof = proof
        if proof.expires_s is not None and wall_s >= proof.expires_s:
            grantee.is_expired = True
        if grantee.is_expired:
            grantee.permissions = NOTHING
        elif is_new:
            grantee.permissions = self._content.policy.permissions_of(proof.identity)
            grantee.quota.limits = grantee.permissions.limits
