"""The identity of a client or a server, as servers pass it on to each other.

An identity is what was proven, and no proof: it has no secret, and travels only on connections between servers.
"""

from typing import Final, Literal

import msgspec

Method = Literal["certificate", "token", "jwt", "node", "none"]
"""How an identity was proven: by a client's certificate, a token, a JWT of an issuer, a server's certificate, or not at
all."""

SAN: Final = "san"
"""The claim of a certificate that holds one of its alternative names, or its common name if it has none."""

CLAIMS_MAX: Final = 64
"""Most claims of one identity; further ones are left out."""

CLAIM_BYTES_MAX: Final = 512
"""Longest value of a claim; longer ones are left out."""


class Claim(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One thing that is known of an identity, such as an alternative name or the namespace of a service account.

    A claim with several values occurs once for each.
    """

    name: str
    value: str


class Identity(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A client or a server whose credentials were checked.

    `name` is for people and logs: the id of a token, the first alternative name of a certificate, the subject of a JWT,
    the id of a node. `claims` are what bindings of the ACL file look at.
    """

    method: Method
    name: str
    claims: tuple[Claim, ...] = ()

    @property
    def key(self) -> str:
        """The identity in one text: "token web-1". Two identities with the same key are the same."""
        return f"{self.method} {self.name}"

    def __str__(self) -> str:
        return "a client without credentials" if self.method == "none" else self.key


def identity_of_key(key: str) -> Identity | None:
    """Return the identity that a key stands for, without its claims; None for none."""
    method, _, name = key.partition(" ")
    return Identity(method, name) if name else None  # type: ignore[arg-type]  # it was one when the key was made


ANONYMOUS: Final = Identity("none", "anonymous")
"""The identity of a client that has shown nothing."""
