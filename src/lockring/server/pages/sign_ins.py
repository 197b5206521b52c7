"""Credentials that were pasted into the sign-in page, by the cookie of a browser.

The cookie is a random number that means something to this process alone, and only for a time. The credential stays
here.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NamedTuple

from lockring.clock import monotonic_ns
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_S

SIGN_INS_MAX: Final = 1_000
"""Sign-ins at one server; the oldest gives way."""
SIGN_INS_OF_IDENTITY_MAX: Final = 16
"""Sign-ins of one identity at one server; the oldest of them gives way, and none of another identity."""
IDLE_NS: Final = 8 * 3_600 * NS_PER_S
"""How long a sign-in lasts without a request."""
AGE_NS_MAX: Final = 24 * 3_600 * NS_PER_S
"""How long it lasts at most."""


class _SignIn(NamedTuple):
    credential: str
    identity: Identity | None
    began_ns: int
    used_ns: int


class SignIns:
    """The sign-ins of one process. Not safe for use by several threads."""

    def __init__(self) -> None:
        # By the digest of the cookie, so that a look into this memory gives no cookie; the last used one is last.
        self._open: dict[str, _SignIn] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, credential: str, identity: Identity | None) -> str:
        """Keep a credential, and return the value of the cookie for it.

        Args:
            credential: a token or a JWT that was let in.
            identity: the one that it proves, None where none are looked at.
        """
        cookie = secrets.token_urlsafe(32)
        same = [key for key, each in self._open.items() if each.identity == identity]
        for key in same[: max(0, len(same) + 1 - SIGN_INS_OF_IDENTITY_MAX)]:
            del self._open[key]
        while len(self._open) >= SIGN_INS_MAX:
            del self._open[next(iter(self._open))]
        now_ns = monotonic_ns()
        self._open[_key(cookie)] = _SignIn(credential, identity, now_ns, now_ns)
        return cookie

    def credential_of(self, cookie: str) -> str:
        """Return the credential for a cookie, "" for one that is unknown or over."""
        key = _key(cookie)
        found = self._open.pop(key, None)
        now_ns = monotonic_ns()
        if found is None or now_ns - found.used_ns > IDLE_NS or now_ns - found.began_ns > AGE_NS_MAX:
            return ""
        self._open[key] = found._replace(used_ns=now_ns)
        return found.credential

    def end(self, cookie: str) -> None:
        """Forget the credential for a cookie."""
        self._open.pop(_key(cookie), None)


def _key(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
