"""Identities from the JWTs of one issuer, such as those of Kubernetes' service accounts.

Importing this module needs the package `pyjwt`, the extra `lockring[jwt]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import jwt

from lockring.errors import Unauthenticated
from lockring.protocol.identities import CLAIM_BYTES_MAX, CLAIMS_MAX, Claim, Identity
from lockring.security.jwks import IssuerKeys
from lockring.security.tokens import CREDENTIAL_BYTES_MAX

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key. None with a shared secret: its holder could sign for anyone."""

LEEWAY_S: Final = 30.0
_LEFT_OUT: Final = frozenset({"jti", "exp", "iat", "nbf"})
"""Claims that another JWT of the same subject has otherwise."""

_DEPTH_MAX: Final = 4


class JwtProof(NamedTuple):
    """A JWT that was accepted.

    Attributes:
        identity: whom it names.
        expires_s: its end, in seconds since 1970.
    """

    identity: Identity
    expires_s: float


class JwtVerifier:
    """Accepts the JWTs of one issuer for one audience. Safe for use by several threads.

    Args:
        keys: the issuer's keys.
        issuer: the claim `iss` that a JWT must have.
        audience: a claim `aud` that it must have.
        leeway_s: how far the clocks of issuer and server may differ, in seconds.
    """

    def __init__(self, keys: IssuerKeys, *, issuer: str, audience: str, leeway_s: float = LEEWAY_S) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s

    def verify(self, text: str) -> JwtProof:
        """Return the identity that a JWT proves. Waits for nothing.

        Raises:
            Unauthenticated: it is malformed, of another issuer or audience, expired, or signed by an unknown key. The
                text shows nothing that is secret.
        """
        if len(text) > CREDENTIAL_BYTES_MAX:
            raise Unauthenticated(f"the JWT is longer than {CREDENTIAL_BYTES_MAX // 1024} KiB")
        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            raise Unauthenticated("the credential is neither a token of lockring nor a JWT") from None
        if header.get("alg") not in ALGORITHMS:
            raise Unauthenticated(
                f"the JWT is signed by a method that is not accepted; use one of {', '.join(ALGORITHMS)}"
            )
        key = self.keys.find(str(header.get("kid", "")))
        if key is None:
            age_s = self.keys.age_s
            when = "have not been read yet" if age_s is None else f"were read {age_s:.0f} s ago"
            raise Unauthenticated(
                f"the JWT is signed by a key that is not among those of its issuer, which {when}; try again soon"
            )
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the JWT has expired; ask its issuer for a new one") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated(
                f"the JWT is not for this server, whose audience is {self._audience!r}"
            ) from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated(f"the JWT is not of the issuer {self._issuer!r}") from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the JWT is not accepted: {str(error).lower()}") from None
        subject = str(claims["sub"])
        if not subject or len(subject.encode()) > CLAIM_BYTES_MAX:
            raise Unauthenticated(f"the subject of the JWT is empty or longer than {CLAIM_BYTES_MAX} bytes")
        found = tuple(claims_of(claims))
        return JwtProof(Identity("jwt", subject, found), float(claims["exp"]) + self._leeway_s)


def claims_of(claims: Mapping[str, Any]) -> list[Claim]:
    """Return the claims that an ACL may ask for: texts, with nested names joined by a slash, in their order.

    Those that are too long or too many are left out; `sub` comes first and never is.
    """
    found = [Claim("sub", str(claims["sub"]))] if "sub" in claims else []
    found += [each for each in _flat("", claims, 0) if each.name != "sub"]
    return found[:CLAIMS_MAX]


def _flat(prefix: str, claims: Mapping[str, Any], depth: int) -> Iterator[Claim]:
    for name, value in claims.items():
        path = f"{prefix}{name}"
        if depth == 0 and name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            if depth < _DEPTH_MAX:
                yield from _flat(f"{path}/", value, depth + 1)
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and len(path.encode()) + len(each.encode()) <= CLAIM_BYTES_MAX:
                yield Claim(path, each)
