"""A gRPC server lets in what the TLS policy lets in, and takes new files without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lockring.errors import ConfigError
from lockring.grpc_api.credentials import TLS_OPTIONS, server_credentials
from lockring.security.certs import CertFiles, CertMaker
from lockring.security.tls_policy import TlsPolicy
from tests.unit.security.conftest import Certs


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    return Certs(tmp_path)


@contextmanager
def serving(policy: TlsPolicy) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2), options=TLS_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(policy))
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def ask(port: int, certs: Certs, files: CertFiles | None = None) -> Any:
    """Call the server over a channel of its own; raises `grpc.RpcError` if that fails."""
    key, cert = (None, None) if files is None else (files.key.read_bytes(), files.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials((certs.directory / "ca.pem").read_bytes(), key, cert)
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)


def is_refused(port: int, certs: Certs, files: CertFiles | None = None) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        ask(port, certs, files)
    return bool(caught.value.code() is grpc.StatusCode.UNAVAILABLE)


def test_a_client_needs_no_certificate_where_none_is_required(certs: Certs) -> None:
    for auth in ("none", "optional"):
        with serving(certs.policy(auth)) as port:
            ask(port, certs)
            ask(port, certs, certs.client)


def test_a_client_needs_a_certificate_of_its_authority_where_one_is_required(
    certs: Certs, tmp_path: Path
) -> None:
    foreign = Certs(tmp_path / "foreign")
    with serving(certs.policy("required")) as port:
        ask(port, certs, certs.client)
        assert is_refused(port, certs)
        assert is_refused(port, certs, foreign.client)
        assert is_refused(port, certs, certs.node)
        assert is_refused(port, certs, certs.expired("late"))


def test_new_files_are_in_use_for_the_next_connection(certs: Certs) -> None:
    policy = certs.policy("required")
    with serving(policy) as port:
        ask(port, certs, certs.client)
        former = certs.client.cert.read_bytes(), certs.client.key.read_bytes()
        maker = CertMaker(certs.directory, replace=True)
        maker.authorities()
        maker.server(["localhost"])
        renewed = maker.client("web-1")
        maker.node("n1")
        assert policy.look()
        ask(port, certs, renewed)
        certs.client.cert.write_bytes(former[0])
        certs.client.key.write_bytes(former[1])
        assert is_refused(port, certs, certs.client)


def test_a_policy_without_files_for_clients_is_refused(certs: Certs) -> None:
    with pytest.raises(ConfigError, match="name one with --tls-cert"):
        server_credentials(TlsPolicy(None, certs.paths(certs.node, "peer-ca")))
