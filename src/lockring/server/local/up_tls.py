"""The TLS of `lockring up`: certificates for development that it makes itself, or those that it is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lockring.security.cert_making import cert_maker
from lockring.security.tls_files import TlsPaths
from lockring.server.tls_settings import ClientAuthChoice

if TYPE_CHECKING:
    from lockring.security.certs import CertMaker

CLIENT: Final = "dev"
"""The identity of the client whose certificate is made beside those of the servers."""


class DevelopmentCertificates(NamedTuple):
    """Certificates in a directory. The servers ask clients for theirs.

    They demand it where other machines can reach them, unless rights are enforced: then a token will do.

    The authorities stay for the next start. They issue new certificates then: the earlier ones may have ended, or be
    for another host.

    Attributes:
        directory: where they are.
        host: the address that all servers listen on.
        client_auth: whether clients need certificates.
    """

    directory: Path
    host: str
    client_auth: ClientAuthChoice = "optional"

    def settings_of(self, name: str) -> dict[str, Any]:
        """Make the certificates of a server, and return its settings by field.

        Args:
            name: of the server: a node's id, or any name for a coordinator.

        Raises:
            ExtraMissing: a package is not installed.
            InvalidRequest: the directory cannot be written, or has something else.
        """
        maker = self._maker()
        server = maker.server(list(dict.fromkeys([self.host, "localhost"])), stem=f"server-{name}")
        node = maker.node(name)
        return {
            "tls_cert": str(server.cert),
            "tls_key": str(server.key),
            "tls_ca": str(self.directory / "ca.pem"),
            "tls_client_auth": self.client_auth,
            "peer_tls_cert": str(node.cert),
            "peer_tls_key": str(node.key),
            "peer_tls_ca": str(self.directory / "peer-ca.pem"),
        }

    def client_files(self) -> TlsPaths:
        """Make the certificate of a client, and return the files with which it gets in.

        Raises:
            ExtraMissing, InvalidRequest: see `settings_of`.
        """
        files = self._maker().client(CLIENT)
        return TlsPaths(str(files.cert), str(files.key), str(self.directory / "ca.pem"))

    def _maker(self) -> CertMaker:
        maker = cert_maker(self.directory, replace=True, asked_by="--tls")
        maker.missing_authorities()
        return maker
