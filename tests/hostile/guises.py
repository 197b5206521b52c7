"""The guises of strangers at ports with TLS: the certificates of their handshakes, and the tokens of their messages."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Final, Literal, NamedTuple

from lockring.security.certs import CertFiles, CertMaker
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tokens import new_token
from lockring.testing.certificates import ClusterCertificates

Guise = Literal["", "none", "rights", "few", "unknown", "foreign", "peer"]
"""The certificate that a stranger shows: none, one with rights, with few of them, without a role, of another authority,
or that of a client at the door of servers. With "" it has no TLS of its own."""

OPERATOR: Final = "test"
"""The client certificate of the cluster's own checks, which it makes itself."""

HONEST: Final = "honest"
"""The client certificate of the clients at work."""

_ROLES: Final = """
[[role]]
name = "operator"
rules = ["admin"]

[[role]]
name = "honest"
rules = ["acquire honest/*", "read *", "watch *"]

[[role]]
name = "rights"
rules = ["acquire hostile/*", "acquire group:hostile/*", "read *", "watch hostile/*", "break hostile/*"]

[[role]]
name = "few"
rules = ["acquire hostile/1*", "read hostile/*", "deny read hostile/2*"]
limits = { sessions = 20, locks = 100, waiters = 20, requests_per_s = 50 }
"""


class Guises:
    """The certificates and tokens of strangers, of the clients at work, and the ACL file that knows some of them.

    Args:
        certificates: those of the cluster, made before its start; these are made beside them.

    Attributes:
        certificates: the same.
        acl_file: gives rights to some.
        dial: how single questions are asked, as an operator.
        honest: the arguments of a client at work.
        tokens: with rights, with few of them, of no role, damaged, and other text.
    """

    def __init__(self, certificates: ClusterCertificates) -> None:
        directory = certificates.directory
        self.dial = certificates.dial
        self.certificates = certificates
        maker = CertMaker(directory, replace=True)
        own = {name: maker.client(name) for name in (HONEST, "rights", "few", "unknown")}
        foreign = CertMaker(directory / "foreign", replace=True)
        foreign.authorities()
        self._shown: dict[str, CertFiles | None] = {
            "none": None,
            "rights": own["rights"],
            "few": own["few"],
            "unknown": own["unknown"],
            "foreign": foreign.client("rights"),
            "peer": own["rights"],
        }
        ca, files = str(directory / "ca.pem"), own[HONEST]
        self.honest = {"ca": ca, "cert": str(files.cert), "key": str(files.key)}
        good = {name: new_token(name) for name in ("rights", "few", "unknown")}
        self.tokens = (
            *good.values(),
            good["rights"][:-1],
            good["rights"] + "x" * 3000,
            "lr_rights_",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
            "\x00\u202e lr_\n",
        )
        self.acl_file = acl_file_in(directory)
        self.acl_file.write_text(_ROLES + _assigned(good))
        self._contexts: dict[tuple[str, bool, bool], ssl.SSLContext] = {}

    def context(self, guise: Guise, *, is_old: bool, speaks_http2: bool) -> ssl.SSLContext:
        """Return the context of a stranger, which believes every server.

        Args:
            guise: whom it pretends to be.
            is_old: whether it speaks TLS 1.2 alone.
            speaks_http2: whether it says that it speaks HTTP/2.
        """
        known = (guise, is_old, speaks_http2)
        if known not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if is_old:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            if speaks_http2:
                context.set_alpn_protocols(["h2"])
            files = self._shown[guise]
            if files is not None:
                context.load_cert_chain(files.cert, files.key)
            self._contexts[known] = context
        return self._contexts[known]


class Shown(NamedTuple):
    """A stranger's TLS in one conversation.

    Attributes:
        guise: whom it pretends to be; "" for no TLS of its own.
        is_old: whether it speaks TLS 1.2 alone.
        tamper: if not "", what follows from it are the records that it damages once the handshake is over.
    """

    guise: Guise = ""
    is_old: bool = False
    tamper: str = ""

    @property
    def server_name(self) -> str:
        """The server name that it asks for."""
        return PEER_NAME if self.guise == "peer" else "localhost"


PLAIN: Final = Shown()


def acl_file_in(directory: Path) -> Path:
    """Return where the ACL file lies."""
    return directory / "acl.toml"


def _assigned(tokens: dict[str, str]) -> str:
    """Return the part of the ACL file that gives roles to certificates and tokens; "unknown" has none."""
    roles = {OPERATOR: "operator", HONEST: "honest", "rights": "rights", "few": "few"}
    certificates = [f'[[certificate]]\nsan = "{name}"\nroles = ["{role}"]\n' for name, role in roles.items()]
    entries = [
        f'[[token]]\nid = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\nroles = ["{name}"]\n'
        for name, token in tokens.items()
        if name in roles
    ]
    return "\n".join([*certificates, *entries])
