"""The port for gRPC lets in what the TLS policy lets in, takes new files at once, and bounds handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockring.addresses import split_address
from lockring.errors import ConfigError
from lockring.grpc_api import server as servers
from lockring.security.certs import CertFiles, CertMaker
from lockring.security.tls_errors import TlsError
from lockring.security.tls_policy import TlsPolicy
from lockring.server.tls import ServerTls
from tests.unit.grpc_api.serving import PATIENCE_S, Served, until, with_server
from tests.unit.security.conftest import Certs

UNDER_WAY_MAX = 4


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    return Certs(tmp_path)


def with_tls(test: Callable[[Served], Awaitable[None]], policy: TlsPolicy, **more: Any) -> None:
    secure = ServerTls(policy).securing_calls(UNDER_WAY_MAX)
    assert with_server(test, secure=secure, **more) == []


def channel_to(served: Served, certs: Certs, files: CertFiles | None = None) -> Any:
    """A channel with a connection of its own."""
    key, cert = (None, None) if files is None else (files.key.read_bytes(), files.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials((certs.directory / "ca.pem").read_bytes(), key, cert)
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    _, port = split_address(served.address)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials, options)


async def ask(served: Served, certs: Certs, files: CertFiles | None = None) -> None:
    """Call the server; raises `grpc.RpcError` if that fails."""
    async with channel_to(served, certs, files) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S / 2)


async def is_refused(served: Served, certs: Certs, files: CertFiles | None = None) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(served, certs, files)
    return bool(caught.value.code() is grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("auth", ["none", "optional"])
def test_a_client_needs_no_certificate_where_none_is_required(certs: Certs, auth: str) -> None:
    async def test(served: Served) -> None:
        await ask(served, certs)
        await ask(served, certs, certs.client)

    with_tls(test, certs.policy(auth))


def test_a_client_needs_a_certificate_of_its_authority_where_one_is_required(
    certs: Certs, tmp_path: Path
) -> None:
    foreign = Certs(tmp_path / "foreign")

    async def test(served: Served) -> None:
        await ask(served, certs, certs.client)
        assert await is_refused(served, certs)
        assert await is_refused(served, certs, foreign.client)
        assert await is_refused(served, certs, certs.node)
        assert await is_refused(served, certs, certs.expired("late"))

    with_tls(test, certs.policy("required"))


def test_a_server_cannot_come_in_as_one_by_the_port_for_clients(certs: Certs) -> None:
    async def test(served: Served) -> None:
        with pytest.raises(TlsError):
            await ServerTls(certs.policy()).open(asyncio.Protocol, *split_address(served.address))

    with_tls(test, certs.policy("required"))


def test_new_files_are_in_use_for_the_next_connection(certs: Certs) -> None:
    policy = certs.policy("required")

    async def test(served: Served) -> None:
        await ask(served, certs, certs.client)
        former = certs.client.cert.read_bytes(), certs.client.key.read_bytes()
        maker = CertMaker(certs.directory, replace=True)
        maker.authorities()
        maker.server(["localhost"])
        renewed = maker.client("web-1")
        maker.node("n1")
        assert policy.look()
        await ask(served, certs, renewed)
        certs.client.cert.write_bytes(former[0])
        certs.client.key.write_bytes(former[1])
        assert await is_refused(served, certs, certs.client)

    with_tls(test, policy)


def test_a_policy_without_files_for_clients_is_refused(certs: Certs) -> None:
    tls = ServerTls(TlsPolicy(None, certs.paths(certs.node, "peer-ca")))
    with pytest.raises(ConfigError, match="name one with --tls-cert"):
        tls.securing_calls(UNDER_WAY_MAX)


def test_handshakes_that_never_finish_are_bounded_and_keep_no_client_out(certs: Certs) -> None:
    async def test(served: Served) -> None:
        crowd = [await asyncio.open_connection(*split_address(served.address)) for _ in range(10)]
        for reader, _ in crowd[: 10 - UNDER_WAY_MAX]:
            assert await reader.read(1) == b"", "the oldest are dropped for the newest"
        assert served.connections == 0, "none has taken the place of a client"
        await ask(served, certs)
        for _, writer in crowd:
            writer.close()

    with_tls(test, certs.policy("optional"), connections_max=1)


def test_a_connection_ends_with_the_certificate_of_its_client(
    certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = servers.wall_ns
    ahead_ns = 0
    monkeypatch.setattr(servers, "wall_ns", lambda: now() + ahead_ns)
    monkeypatch.setattr(servers, "_LOOK_S", 0.02)

    async def test(served: Served) -> None:
        nonlocal ahead_ns
        async with channel_to(served, certs, certs.client) as shown, channel_to(served, certs) as unshown:
            watches = []
            for channel in (shown, unshown):
                stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                watches.append(stub.Watch(health_pb2.HealthCheckRequest()))
                await watches[-1].read()
            ahead_ns = 400 * 86_400 * 10**9
            assert await watches[0].code() is grpc.StatusCode.UNAVAILABLE
            await until(lambda: served.connections == 1)
            served.server.note_serving(True)
            assert (await watches[1].read()).status == health_pb2.HealthCheckResponse.SERVING
            watches[1].cancel()

    with_tls(test, certs.policy("optional"))
