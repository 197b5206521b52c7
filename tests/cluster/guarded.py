"""A cluster that checks identities: TLS on all ports, an ACL file, tokens, and certificates that are not enough."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

import lockring
from lockring.client.arguments import ServerList
from lockring.client.tls import ClientFiles, tls_of
from lockring.client.tls_dial import dial_with
from lockring.net.oneshot import Dial
from lockring.security.certs import CertFiles, CertMaker
from lockring.security.tokens import hash_of, new_token
from lockring.server.access_settings import AccessSettings
from lockring.server.tls_settings import ClientAuthChoice
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.grpc_calls import Caller
from tests.cluster.wire import Wire
from tests.processes import PATIENCE_S, eventually

LOCK, LEADER, GRPC = "lock", "coordinator", "grpc"
PORTS = (LOCK, LEADER, GRPC)

RULES: dict[str, Sequence[str]] = {
    "test": ["admin"],
    "web-1": [f"{verb} jobs/*" for verb in ("acquire", "read", "watch", "break")] + ["drain N9"],
    "web-2": ["acquire jobs/*", "read jobs/*"],
    "idle": ["acquire nothing-at-all"],
    "late": ["admin"],
}
"""The rights of each identity; "test" is the cluster's own certificate, and "late" a token that has expired."""


class Guarded:
    """The cluster, and the credentials of its identities.

    Args:
        cluster: runs.
        directory: has the ACL file.

    Attributes:
        front: the node at whose ports a test looks.
    """

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.cluster = cluster
        self.front = "N1"
        self._made: dict[str, CertFiles] = {}
        self.acl = directory / "acl.toml"
        self.audit = directory / "audit.log"
        self.directory = directory
        self.rules = dict(RULES)
        self.tokens = {name: new_token(name) for name in RULES}
        self.write()

    def write(self) -> None:
        """Write the ACL file from the rules."""
        parts = []
        for name, rules in self.rules.items():
            expires = "2020-01-01T00:00:00Z" if name == "late" else "2120-01-01T00:00:00Z"
            parts.append(
                f'[[role]]\nname = "{name}"\nrules = {json.dumps(list(rules))}\n'
                f'[[token]]\nid = "{name}"\nsha256 = "{hash_of(self.tokens[name]).hex()}"\nroles = ["{name}"]\n'
                f"expires = {expires}\n"
                f'[[certificate]]\nsan = "{name}"\nroles = ["{name}"]\n'
            )
        self.acl.write_text("".join(parts))

    def give(self, who: str, *rules: str, keep_token: bool = False) -> None:
        """Give an identity these rights and a new token. They are in force in a moment."""
        self.rules[who] = rules
        if not keep_token:
            self.tokens[who] = new_token(who)
        self.write()

    def token_file(self, who: str) -> Path:
        """A file with the token of an identity."""
        file = self.directory / f"{who}.token"
        file.write_text(self.tokens[who])
        return file

    @property
    def certs(self) -> Path:
        """The directory of the certificates."""
        assert self.cluster.certificates is not None
        return self.cluster.certificates.directory

    @property
    def bare(self) -> ClientFiles:
        """No certificate, and trust in the servers'."""
        return ClientFiles(str(self.certs / "ca.pem"))

    def files(self, name: str) -> ClientFiles:
        """A certificate of the clients' authority, made on first use."""
        if name not in self._made:
            self._made[name] = CertMaker(self.certs, replace=True).client(name)
        made = self._made[name]
        return ClientFiles(str(self.certs / "ca.pem"), str(made.cert), str(made.key))

    def expired(self) -> ClientFiles:
        """A certificate of an identity with rights, which has ended."""
        there = self.directory / "expired"
        there.mkdir(exist_ok=True)
        for name in ("ca.pem", "ca-key.pem"):
            (there / name).write_bytes((self.certs / name).read_bytes())
        past = CertMaker(there, replace=True, now=datetime.now(UTC) - timedelta(days=100))
        made = past.client("web-1", days=30)
        return ClientFiles(str(self.certs / "ca.pem"), str(made.cert), str(made.key))

    def foreign(self) -> ClientFiles:
        """A certificate in the name of an identity with rights, of another authority."""
        maker = CertMaker(self.directory / "foreign", replace=True)
        maker.authorities()
        made = maker.client("web-1")
        return ClientFiles(str(self.certs / "ca.pem"), str(made.cert), str(made.key))

    def address(self, port: str, node: str = "") -> str:
        """HOST:PORT of a port, by default at the node in front."""
        node = node or self.front
        if port == GRPC:
            return self.cluster.grpc_address_of(node)
        return self.cluster.address_of(node if port == LOCK else COORDINATOR)

    def wire_at(self, node: str, files: ClientFiles, **more: Any) -> Wire:
        """A connection to the lock port of a node, with TLS."""
        return Wire(self.address(LOCK, node), dial=dial_by(files), **more)

    def wire(self, port: str, files: ClientFiles | None = None, **more: Any) -> Wire:
        """A connection to a port that speaks lockring's protocol, with TLS."""
        return Wire(self.address(port), dial=dial_by(self.bare if files is None else files), **more)

    def caller(self, who: str = "", *, files: ClientFiles | None = None, node: str = "") -> Caller:
        """A gRPC client that shows the token of an identity, "" for none."""
        shown = self.bare if files is None else files
        return Caller(
            self.address(GRPC, node),
            credentials=grpc_credentials(shown),
            token=self.tokens.get(who, who),
        )

    def client(self, who: str, **more: Any) -> lockring.Client:
        """A client that shows the token of an identity."""
        return lockring.Client(
            self.cluster.servers,
            token_file=self.token_file(who),
            connect_timeout=PATIENCE_S,
            **self.bare._asdict(),
            **more,
        )

    def audited(self, *wanted: tuple[str, str]) -> list[dict[str, Any]]:
        """The lines of the audit log, once these pairs of a key and a value have each come in some line."""

        def lines() -> list[dict[str, Any]]:
            found = [json.loads(line) for line in self.audit.read_text().splitlines()]
            return (
                found if all(any(each.get(key) == value for each in found) for key, value in wanted) else []
            )

        return eventually(lines, lambda: f"{wanted} in {self.audit}")


def dial_by(files: ClientFiles) -> Dial:
    """Return how a connection is opened with these files."""
    return dial_with(tls_of(ServerList([]), files))


def grpc_credentials(files: ClientFiles) -> grpc.ChannelCredentials:
    """Return the same for gRPC."""

    def content(path: str) -> bytes | None:
        return Path(path).read_bytes() if path else None

    return grpc.ssl_channel_credentials(content(files.ca), content(files.key), content(files.cert))


@contextmanager
def guarded(
    directory: Path, *, nodes: int, client_auth: ClientAuthChoice, http: bool = False
) -> Iterator[Guarded]:
    """Run a cluster that checks identities."""
    access = AccessSettings(
        auth="enforcing", acl_file=str(directory / "acl.toml"), audit_log=str(directory / "audit.log")
    )
    cluster = LocalCluster(
        nodes=nodes, tls=True, grpc=True, http=http, access=access, client_auth=client_auth, **CALM
    )
    made = Guarded(cluster, directory)
    with cluster:
        yield made
