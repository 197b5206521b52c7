"""The certificates of a local cluster: two authorities of its own, and what they have issued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lockring.client.arguments import ServerList
from lockring.client.tls import ClientFiles, tls_of
from lockring.client.tls_dial import dial_with
from lockring.net.oneshot import Dial
from lockring.security.certs import CertFiles, CertMaker

CLIENT = "test"
"""The identity of the cluster's own client."""


class ClusterCertificates:
    """Makes certificates in a directory, and names them to servers and clients. Not thread-safe.

    Args:
        directory: where they lie; made if it is missing.

    Attributes:
        directory: the same.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.make(new_authorities=True)

    def make(self, *, new_authorities: bool = False) -> None:
        """Make the client's certificate, and both authorities if that is asked for."""
        maker = CertMaker(self.directory, replace=True)
        if new_authorities:
            maker.authorities()
        maker.client(CLIENT)

    def server_settings(self, name: str, host: str) -> dict[str, Any]:
        """Make the certificates of a server, if it has none yet, and return its settings.

        Args:
            name: of the server.
            host: the name or address under which others reach it.
        """
        maker = CertMaker(self.directory)
        server, node = maker.files(f"server-{name}"), maker.files(f"node-{name}")
        if not server.cert.exists():
            server, node = self.issue(name, host)
        return {
            "tls_cert": str(server.cert),
            "tls_key": str(server.key),
            "tls_ca": str(self.directory / "ca.pem"),
            "peer_tls_cert": str(node.cert),
            "peer_tls_key": str(node.key),
            "peer_tls_ca": str(self.directory / "peer-ca.pem"),
        }

    def issue(self, name: str, host: str) -> tuple[CertFiles, CertFiles]:
        """Make new certificates for a server, in place of those that it may have: for clients, and for servers."""
        maker = CertMaker(self.directory, replace=True)
        return maker.server([host, "localhost"], stem=f"server-{name}"), maker.node(name)

    @property
    def client_files(self) -> dict[str, str]:
        """The arguments by which a client gets in."""
        files = CertMaker(self.directory).files(f"client-{CLIENT}")
        return {"ca": str(self.directory / "ca.pem"), "cert": str(files.cert), "key": str(files.key)}

    @property
    def dial(self) -> Dial:
        """How single questions are asked with the client's certificate."""
        return dial_with(tls_of(ServerList([]), ClientFiles(**self.client_files)))
