"""TLS in an event loop: which certificates get in, and what a program sees."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from lockring.clock import wall_ns
from lockring.security import tls_layer
from lockring.security.certs import CertMaker
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_layer import TlsError, TlsLayer
from lockring.security.tls_policy import ClientTls, TlsPolicy
from lockring.security.tls_protocol import TlsTransport
from lockring.units import NS_PER_S
from tests.unit.security.conftest import Certs
from tests.unit.security.tls_programs import MEGABYTE, Port, Program, Run, client, port_of, refused, until

# ----------------------------------------------------------------------- who gets in


def test_a_client_with_a_certificate_is_known_by_it(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            mine = await port.dial(client(certs, certs.client))
            assert bytes(mine.data) == b"hello"
            certificate = port.programs[0].certificate
            assert certificate is not None
            assert (certificate.hosts, certificate.is_server) == (("web-1",), False)
            assert str(certificate.identity()) == "certificate web-1"
            assert mine.certificate is not None
            assert "localhost" in mine.certificate.hosts
            mine.transport.close()
            assert await mine.lost is None

    run(main())


def test_a_client_without_a_certificate_comes_in_where_none_is_required(run: Run, certs: Certs) -> None:
    async def main() -> None:
        for auth in ("none", "optional"):
            async with port_of(certs.policy(auth)) as port:
                mine = await port.dial(client(certs))
                assert bytes(mine.data) == b"hello"
                assert port.programs[0].certificate is None
                mine.transport.abort()

    run(main())


def test_a_client_without_a_certificate_is_refused_where_one_is_required(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            await refused(port, client(certs), "it has shown no certificate")

    run(main())


def test_a_certificate_of_another_authority_is_refused(run: Run, certs: Certs, foreign: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("optional")) as port:
            context = ClientTls(
                TlsPaths(str(foreign.client.cert), str(foreign.client.key), str(certs.directory / "ca.pem"))
            )
            await refused(
                port, context.context, "its certificate is refused: unable to get local issuer certificate"
            )

    run(main())


def test_an_expired_certificate_is_refused(run: Run, fresh: Certs) -> None:
    async def main() -> None:
        expired = fresh.expired("late")
        async with port_of(fresh.policy("optional")) as port:
            await refused(port, client(fresh, expired), "its certificate is refused: certificate has expired")

    run(main())


def test_a_server_is_known_by_the_servers_authority(run: Run, certs: Certs) -> None:
    async def main() -> None:
        policy = certs.policy("required")
        async with port_of(policy) as port:
            assert policy.dial_context is not None
            mine = await port.dial(policy.dial_context, PEER_NAME)
            assert bytes(mine.data) == b"hello"
            certificate = port.programs[0].certificate
            assert certificate is not None
            assert certificate.is_server
            assert certificate.may_be_node("n1")
            assert not certificate.may_be_node("n2")
            assert str(certificate.identity()) == "node n1"
            assert mine.certificate is not None
            assert mine.certificate.uris == ("urn:lockring:node:n1",), (
                "the port shows its own node's certificate"
            )
            mine.transport.abort()

    run(main())


def as_server(certs: Certs, files: Any) -> ssl.SSLContext:
    """A context that trusts the servers' authority, and shows any certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certs.directory / "peer-ca.pem")
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def test_a_clients_certificate_makes_no_server(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("optional")) as port:
            reason = "its certificate is refused: unable to get local issuer certificate"
            await refused(port, as_server(certs, certs.client), reason, PEER_NAME)
        async with port_of(certs.policy("optional")) as port:
            await refused(port, as_server(certs, None), "it has shown no certificate", PEER_NAME)

    run(main())


def test_a_servers_certificate_makes_no_client(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("optional")) as port:
            context = ClientTls(
                TlsPaths(str(certs.node.cert), str(certs.node.key), str(certs.directory / "ca.pem"))
            )
            await refused(
                port, context.context, "its certificate is refused: unable to get local issuer certificate"
            )

    run(main())


def test_a_server_is_not_deceived_by_a_port_with_a_clients_or_a_plain_servers_certificate(
    run: Run, certs: Certs
) -> None:
    async def main() -> None:
        policy = TlsPolicy(certs.paths(certs.server), None)
        async with port_of(policy) as port:
            dialing = certs.policy().dial_context
            assert dialing is not None
            with pytest.raises(TlsError, match="its certificate is refused"):
                await port.dial(dialing, PEER_NAME)

    run(main())


def test_a_port_for_servers_alone_has_nothing_for_clients(run: Run, certs: Certs) -> None:
    async def main() -> None:
        policy = TlsPolicy(None, certs.paths(certs.node, "peer-ca"))
        async with port_of(policy) as port:
            with pytest.raises(TlsError):
                await port.dial(client(certs, certs.client))
            assert policy.dial_context is not None
            mine = await port.dial(policy.dial_context, PEER_NAME)
            assert bytes(mine.data) == b"hello"
            mine.transport.abort()

    run(main())


def connect_twice(port: Port, context: ssl.SSLContext, between: Callable[[], object]) -> list[bool | None]:
    """Connect, and again with the session of the first connection; return which of them has resumed one."""
    session, reused = None, []
    for _ in range(2):
        with (
            socket.create_connection(port.address) as sock,
            context.wrap_socket(sock, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            session = tls.session
            reused.append(tls.session_reused)
        between()
    return reused


def test_no_session_is_resumed_with_a_ticket(certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            context = client(certs, certs.client)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            assert await asyncio.to_thread(connect_twice, port, context, lambda: None) == [False, False]

    asyncio.run(main())


def old_client(certs: Certs) -> ssl.SSLContext:
    """The library remembers sessions of this version, which cannot be switched off."""
    context = client(certs, certs.client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def test_a_session_is_resumed_only_while_its_certificate_is_valid(
    certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            assert await asyncio.to_thread(connect_twice, port, old_client(certs), lambda: None) == [
                False,
                True,
            ]
            next_year_ns = wall_ns() + 366 * 86_400 * NS_PER_S
            age = functools.partial(monkeypatch.setattr, tls_layer, "wall_ns", lambda: next_year_ns)
            with pytest.raises((AssertionError, OSError)):
                await asyncio.to_thread(connect_twice, port, old_client(certs), age)
            assert port.failures == ["its certificate is refused: certificate has expired"]

    asyncio.run(main())


def test_a_session_that_began_with_other_files_is_not_resumed(fresh: Certs) -> None:
    async def main() -> None:
        policy = fresh.policy("required")

        def replace() -> None:
            CertMaker(fresh.directory, replace=True).server(["localhost"])
            assert policy.look()

        async with port_of(policy) as port:
            assert await asyncio.to_thread(connect_twice, port, old_client(fresh), replace) == [False, False]

    asyncio.run(main())


def test_an_older_version_of_tls_is_refused(certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            context = client(certs)
            context.set_ciphers("DEFAULT@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it is an old one on purpose
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises(TlsError):
                await port.dial(context)
            await until(lambda: bool(port.failures))
            assert port.failures == ["it speaks an older version of TLS than 1.2"]

    asyncio.run(main())


# ----------------------------------------------------------------------- what a program sees


def test_everything_arrives_in_order_however_it_is_cut(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            sent = b"hello"
            for number in range(200):
                part = bytes([number]) * (number * 37 + 1)
                mine.transport.write(part)
                sent += part
            big = bytes(range(256)) * 8192
            mine.transport.writelines([big[: MEGABYTE // 2], big[MEGABYTE // 2 :]])
            sent += big
            assert await mine.received(len(sent)) == sent
            mine.transport.close()
            await mine.lost

    run(main())


def test_bytes_that_come_one_by_one_make_a_handshake(certs: Certs) -> None:
    policy = certs.policy("required")
    assert policy.dial_context is not None
    dialing = TlsLayer.dial(policy.dial_context, PEER_NAME)
    accepting_layer = TlsLayer.accept(policy.port_contexts)
    for _ in range(10):
        for byte in dialing.take_output():
            assert accepting_layer.receive(bytes([byte])) == b""
        for byte in accepting_layer.take_output():
            assert dialing.receive(bytes([byte])) == b""
    assert dialing.is_ready
    assert accepting_layer.is_ready
    found = b"".join(accepting_layer.receive(bytes([byte])) for byte in dialing.seal(b"plain"))
    assert found == b"plain"
    assert accepting_layer.is_server


def test_data_may_come_with_the_last_bytes_of_the_handshake(certs: Certs) -> None:
    layer = TlsLayer.accept(certs.policy("required").port_contexts)
    dialing = TlsLayer.dial(client(certs, certs.client), "localhost")
    assert layer.receive(dialing.take_output()) == b""
    assert dialing.receive(layer.take_output()) == b""
    plain = bytes(range(256)) * 800
    assert layer.receive(dialing.seal(plain)) == plain


def test_the_end_that_one_side_says_reaches_the_other(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            mine.transport.write(b" and farewell")
            assert mine.transport.can_write_eof()
            mine.transport.write_eof()
            theirs = port.programs[0]
            await theirs.lost
            assert bytes(theirs.data) == b"hello and farewell"
            assert theirs.events == ["made", "eof", "lost"]
            await mine.lost
            assert bytes(mine.data) == b"hello and farewell"

    run(main())


def test_a_connection_that_is_cut_is_lost_once(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            mine.transport.abort()
            await port.programs[0].lost
            assert port.programs[0].events.count("lost") == 1
            await mine.lost
            mine.transport.write(b"dropped")
            assert mine.transport.is_closing()

    run(main())


def test_a_program_that_reads_no_more_gets_no_more_until_it_reads_on(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            theirs = port.programs[0]
            assert isinstance(theirs.transport, TlsTransport)
            theirs.transport.pause_reading()
            assert not theirs.transport.is_reading()
            mine.transport.write(b"!" * 1000)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            before = len(theirs.data)
            assert before == 5
            theirs.transport.resume_reading()
            assert len(await theirs.received(1005)) == 1005
            mine.transport.abort()

    run(main())


def test_another_protocol_may_take_over(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            other = Program()
            other.connection_made(mine.transport)
            mine.transport.set_protocol(other)
            assert mine.transport.get_protocol() is other
            other.transport.write(b"more")
            assert await other.received(4) == b"more"
            other.transport.close()
            await other.lost

    run(main())


def test_garbage_after_the_handshake_ends_the_connection(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            mine = await port.dial(client(certs))
            raw = mine.transport.get_extra_info("socket")
            assert raw is not None
            layer_output = b"\x17\x03\x03\x00\x04junk"
            mine.transport._raw.write(layer_output)
            await port.programs[0].lost
            assert bytes(port.programs[0].data) == b"hello"

    run(main())
