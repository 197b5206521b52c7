"""The TLS of a server's process: the certificates of others that it has seen, and whether a node may be one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from lockring.errors import ConfigError, Denied
from lockring.ids import NodeId
from lockring.net.openers import open_plain
from lockring.security.certs import CertFiles, CertMaker
from lockring.security.peer_certificates import NODE_URN, PeerCertificate
from lockring.security.tls_errors import TlsError
from lockring.server import tls
from lockring.server.settings import CoordinatorSettings
from lockring.server.tls import ServerTls, check_node_certificate, dial_of, make_tls, opener_of, secure_of
from lockring.units import NS_PER_S
from tests.unit.net.serving import EchoHost, run, until

DAY_NS = 86_400 * NS_PER_S


def tls_with(directory: Path, node: CertFiles) -> ServerTls:
    maker = CertMaker(directory, replace=True)
    server = maker.files("server")
    found = make_tls(
        CoordinatorSettings(
            tls_cert=str(server.cert),
            tls_key=str(server.key),
            peer_tls_cert=str(node.cert),
            peer_tls_key=str(node.key),
            peer_tls_ca=str(directory / "peer-ca.pem"),
        )
    )
    assert found is not None
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    maker = CertMaker(tmp_path)
    maker.authorities()
    maker.server(["127.0.0.1"])
    return tmp_path


class Quiet(asyncio.Protocol):
    """A program that keeps its connection open."""

    lost = False
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def with_port(mine: ServerTls, test: Callable[[int, list[Quiet]], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a port, and the programs of the connections to it; end them all."""
    accepted: list[Quiet] = []
    dialed = [Quiet(), Quiet()]

    def make() -> Quiet:
        accepted.append(Quiet())
        return accepted[-1]

    server = await asyncio.get_running_loop().create_server(mine.secure(make), "127.0.0.1", 0)
    try:
        await test(server.sockets[0].getsockname()[1], dialed)
    finally:
        server.close()
        for each in accepted:
            each.transport.abort()
        await until(lambda: all(each.lost for each in [*accepted, *dialed]))


def test_a_certificate_that_a_peer_has_shown_is_reported_before_its_end(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = CertMaker(directory)
    mine, theirs = tls_with(directory, maker.node("N1")), tls_with(directory, maker.node("N2", days=3))
    lasting = tls_with(directory, maker.node("N3"))

    async def main() -> None:
        async def test(port: int, programs: list[Quiet]) -> None:
            await theirs.open(lambda: programs[0], "127.0.0.1", port)
            await lasting.open(lambda: programs[1], "127.0.0.1", port)
            await until(lambda: len(mine._peers) == 2)
            (seen,) = [each for each in mine.certificates() if each.side == "peer"]
            assert seen.name == "N2"
            (own,) = [each for each in theirs.certificates() if each.side == "servers"]
            assert seen.fingerprint == own.fingerprint != "", "it is the same certificate"
            now_ns = 10**15
            with caplog.at_level(logging.WARNING, "lockring.tls"):
                for after_ns in (0, 3600 * NS_PER_S, DAY_NS, DAY_NS + 3600 * NS_PER_S):
                    mine.look(now_ns + after_ns)
            told = [each.getMessage() for each in caplog.records if "N2" in each.getMessage()]
            assert len(told) == 2, "once a day"
            assert told[0].startswith("the certificate that N2 has shown ends in 3.0 days: replace it there")
            # The one that is dialed is seen too, by the side that dials.
            assert [each.name for each in theirs.certificates() if each.side == "peer"] == []
            for transport in list(mine._peers):
                transport.abort()
            await until(lambda: all(each.lost for each in programs))
            assert [each for each in mine.certificates() if each.side == "peer"] == []

        await with_port(mine, test)

    run(main())


def test_the_certificate_that_ends_last_counts_of_those_that_one_server_has_shown(directory: Path) -> None:
    maker = CertMaker(directory, replace=True)
    mine = tls_with(directory, maker.node("N1"))
    ending = tls_with(directory, maker.node("N2", days=3))

    async def main() -> None:
        async def test(port: int, kept: list[Quiet]) -> None:
            await ending.open(lambda: kept[0], "127.0.0.1", port)
            await until(lambda: any(each.side == "peer" for each in mine.certificates()))
            maker.node("N2")
            ending.reload(0)
            await ending.open(lambda: kept[1], "127.0.0.1", port)
            await until(lambda: not any(each.side == "peer" for each in mine.certificates()))
            assert not any(each.lost for each in kept), "the earlier connection goes on"

        await with_port(mine, test)

    run(main())


def test_its_own_certificates_are_reported_with_their_files(directory: Path) -> None:
    now = datetime.now(UTC)
    mine = tls_with(directory, CertMaker(directory, now=now).node("N1", days=10))
    clients, servers = mine.certificates()
    assert (clients.side, clients.name) == ("clients", str(directory / "server.pem"))
    assert (servers.side, servers.name) == ("servers", str(directory / "node-N1.pem"))
    assert abs(servers.not_after_s - (now + timedelta(days=10)).timestamp()) < 2


def test_a_question_is_asked_with_the_servers_certificate(directory: Path) -> None:
    mine = tls_with(directory, CertMaker(directory).node("N1"))

    async def main() -> None:
        host = EchoHost()
        host.address = await host.listener.open("127.0.0.1:0", secure=secure_of(mine))
        await host.listener.begin()
        try:
            stream = await asyncio.to_thread(dial_of(mine), host.address, 30.0)
            await until(lambda: len(list(host.listener.connections)) == 1)
            (accepted,) = host.listener.connections
            assert accepted.certificate.may_be_node("N1")
            stream.close()
            with socket.create_server(("127.0.0.1", 0)) as plain:
                answering = asyncio.create_task(asyncio.to_thread(answer_once, plain))
                with pytest.raises(TlsError, match="it does not speak TLS"):
                    await asyncio.to_thread(dial_of(mine), f"127.0.0.1:{plain.getsockname()[1]}", 30.0)
                await answering
        finally:
            await host.stop()

    run(main())


def answer_once(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.recv(65_536)
        sock.sendall(b"\0\0\0\1\x90")


def test_without_settings_there_is_no_tls() -> None:
    assert make_tls(CoordinatorSettings()) is None
    assert secure_of(None) is None
    assert opener_of(None) is open_plain


def test_files_that_do_not_fit_are_refused(directory: Path) -> None:
    node = CertMaker(directory).node("N1")
    (directory / "server-key.pem").write_bytes(node.key.read_bytes())
    with pytest.raises(ConfigError, match="do not fit together"):
        tls_with(directory, node)


def shown(*uris: str, is_server: bool = True) -> PeerCertificate:
    return PeerCertificate(uris, (), "", "1", 0.0, is_server)


def test_a_node_is_dialed_by_its_own_certificate_alone() -> None:
    check_node_certificate(None, NodeId("N1"), "a:1")  # without TLS
    check_node_certificate(shown(), NodeId("N1"), "a:1")  # one for any node
    check_node_certificate(shown(NODE_URN + "N2", NODE_URN + "N1"), NodeId("N1"), "a:1")
    with pytest.raises(
        Denied, match="a:1 answers as N1, and its certificate is for N2: give each node its own"
    ):
        check_node_certificate(shown(NODE_URN + "N2"), NodeId("N1"), "a:1")
    with pytest.raises(Denied):
        check_node_certificate(shown(is_server=False), NodeId("N1"), "a:1")


def test_a_client_without_tls_gets_an_answer_that_it_can_read() -> None:
    assert len(tls._PLAIN_ANSWER) < 1024
    assert tls._PLAIN_ANSWER[0] == 0
