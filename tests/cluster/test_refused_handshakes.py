"""Refused handshakes as an operator sees them, at each port of a real cluster."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from lockring.addresses import split_address
from lockring.client.tls import ClientFiles
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.guarded import Guarded
from tests.cluster.test_http import ask
from tests.processes import PATIENCE_S


def refused(where: str, files: ClientFiles) -> str:
    """Shake hands at HOST:PORT, and return HOST:PORT of this side once the connection has ended."""
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    host, port = split_address(where)
    with socket.create_connection((host, port), timeout=PATIENCE_S) as raw:
        mine = raw.getsockname()
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(raw, server_hostname=host) as sock,
        ):
            assert sock.recv(1) == b""
    return f"{mine[0]}:{mine[1]}"


def test_a_certificate_of_another_authority_is_audited_and_counted_at_each_port(tmp_path: Path) -> None:
    access = AccessSettings(
        auth="enforcing", acl_file=str(tmp_path / "acl.toml"), audit_log=str(tmp_path / "audit.log")
    )
    cluster = LocalCluster(nodes=1, tls=True, grpc=True, http=True, access=access, **CALM)
    guarded = Guarded(cluster, tmp_path)
    with cluster:
        ports = {
            "lock port": cluster.address_of("N1"),
            "gRPC port": cluster.grpc_address_of("N1"),
            "HTTP port": cluster.http_address_of("N1"),
            "coordinator's port": cluster.address_of(COORDINATOR),
        }
        mine = {port: refused(where, guarded.foreign()) for port, where in ports.items()}
        lines = guarded.audited(*(("from", each) for each in mine.values()))
        found = {each["from"]: each for each in lines if each["act"] == "denied"}
        for port, origin in mine.items():
            line = found[origin]
            assert line["server"] == ("coordinator" if port.startswith("coordinator") else "N1")
            assert line["outcome"] == "refused"
            assert line["reason"].startswith(
                f"a TLS handshake at the {port} failed: its certificate is refused: "
            )
        page = ask(
            cluster.http_address_of("N1"),
            "/metrics",
            files=guarded.files("web-1"),
            token=guarded.tokens["web-1"],
        )
        figures = dict(line.rsplit(" ", 1) for line in page.body.splitlines() if not line.startswith("#"))
        assert float(figures['lockring_auth_failures_total{reason="handshake"}']) >= 3
        assert float(figures['lockring_connections{port="grpc"}']) == 0
