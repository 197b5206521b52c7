"""The other side's certificate: the names in it, and what it proves.

A handshake has verified it already. Here it is only read.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lockring.protocol.identities import CLAIM_BYTES_MAX, CLAIMS_MAX, SAN, Claim, Identity
from lockring.security.certificate_times import fingerprint_of

NODE_URN: Final = "urn:lockring:node:"
"""The beginning of an alternative name that names a node id. A certificate that has one makes no other node."""


class PeerCertificate(NamedTuple):
    """The verified certificate of a connection's other side.

    Attributes:
        uris: its alternative names that are URIs.
        hosts: those that are DNS names, then those that are addresses.
        common_name: that of its subject, "" for none.
        serial: its serial number, which names it if nothing else does.
        not_after_s: its end, in seconds since 1970.
        is_server: whether an authority of the servers' own has issued it, so that it makes a node.
        fingerprint: see `certificate_times`; "" if unknown.
    """

    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    common_name: str
    serial: str
    not_after_s: float
    is_server: bool
    fingerprint: str = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node ids that it names; none means that it may be any node's."""
        return tuple(each.removeprefix(NODE_URN) for each in self.uris if each.startswith(NODE_URN))

    def may_be_node(self, node: str) -> bool:
        """Return whether it is a server's, and names this node id or none."""
        return self.is_server and (not self.nodes or node in self.nodes)

    def identity(self) -> Identity:
        """Return the identity that it proves: a node's, or a client's by its first URI, DNS name or common name."""
        given = (*self.uris, *self.hosts) or (self.common_name,)
        names = [each for each in given if each and len(each.encode()) <= CLAIM_BYTES_MAX]
        # Never one name for all that have none: sessions belong to the name.
        unnamed = f"serial {self.serial}"
        if self.is_server:
            return Identity("node", next(iter((*self.nodes, *names)), unnamed))
        claims = tuple(Claim(SAN, each) for each in names[:CLAIMS_MAX])
        return Identity("certificate", names[0] if names else unnamed, claims)


def certificate_of(
    shown: Mapping[str, Any] | None, *, is_server: bool, der: bytes | None = None
) -> PeerCertificate | None:
    """Return a certificate as the standard library shows a verified one, None if there was none.

    Args:
        shown: what `ssl.SSLObject.getpeercert` returns.
        is_server: see `PeerCertificate.is_server`.
        der: the certificate itself, None if it is unknown.
    """
    if not shown:
        return None
    names: list[tuple[str, str]] = [(kind, str(value)) for kind, value in shown.get("subjectAltName", ())]
    common = [value for parts in shown.get("subject", ()) for kind, value in parts if kind == "commonName"]
    return PeerCertificate(
        uris=tuple(value for kind, value in names if kind == "URI"),
        hosts=tuple(value for wanted in ("DNS", "IP Address") for kind, value in names if kind == wanted),
        common_name=common[0] if common else "",
        serial=str(shown.get("serialNumber", "")),
        not_after_s=ssl.cert_time_to_seconds(shown["notAfter"]),
        is_server=is_server,
        fingerprint="" if der is None else fingerprint_of(der),
    )
