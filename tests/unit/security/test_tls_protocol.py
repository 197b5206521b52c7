"""TLS in an event loop: who gets in, what a program sees, and how handshakes are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import socket
import ssl
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.clock import wall_ns
from lockring.security import tls_layer
from lockring.security.certs import CertMaker
from lockring.security.handshakes import HandshakeGate
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_layer import TlsError, TlsLayer
from lockring.security.tls_policy import ClientTls, PortContexts, TlsPolicy
from lockring.security.tls_protocol import PEER_CERTIFICATE, TlsTransport, accepting, open_tls
from lockring.units import NS_PER_S
from tests.unit.security.conftest import Certs

Run = Callable[[Coroutine[Any, Any, None]], None]
MEGABYTE = 1024 * 1024


class Program(asyncio.Protocol):
    """A program's protocol that keeps what it sees; a server's sends everything back."""

    made: list[Program]

    def __init__(self, *, echoes: bool = False) -> None:
        self.echoes = echoes
        self.transport: asyncio.Transport
        self.certificate: PeerCertificate | None = None
        self.data = bytearray()
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.grew = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = cast(asyncio.Transport, transport)
        self.certificate = transport.get_extra_info(PEER_CERTIFICATE)

    def data_received(self, data: bytes) -> None:
        assert self.events == ["made"]
        self.data += data
        self.grew.set()
        if self.echoes:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)

    async def received(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            while len(self.data) < count:
                self.grew.clear()
                await self.grew.wait()
        return bytes(self.data)


class Port:
    """A port that echoes, with what it has accepted."""

    def __init__(self, address: tuple[str, int], gate: HandshakeGate) -> None:
        self.address = address
        self.gate = gate
        self.programs: list[Program] = []
        self.failures: list[str] = []

    async def dial(self, context: ssl.SSLContext, name: str = "localhost") -> Program:
        """Connect, and have something echoed: only then it is known that the server has accepted too."""
        _, program = await open_tls(Program, *self.address, lambda: TlsLayer.dial(context, name))
        program.transport.write(b"hello")
        while not program.data and not program.lost.done():
            program.grew.clear()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(program.grew.wait()), program.lost]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            waits[0].cancel()
        return program


@asynccontextmanager
async def open_port(contexts: Callable[[], PortContexts], **options: Any) -> AsyncIterator[Port]:
    loop = asyncio.get_running_loop()
    gate = HandshakeGate(**options, on_failure=lambda _, reason: port.failures.append(reason))

    def make() -> Program:
        program = Program(echoes=True)
        port.programs.append(program)
        return program

    server = await loop.create_server(accepting(make, contexts, gate), "127.0.0.1", 0)
    port = Port(server.sockets[0].getsockname()[:2], gate)
    try:
        yield port
    finally:
        server.close()
        for program in port.programs:
            program.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


def port_of(policy: TlsPolicy, **options: Any) -> Any:
    return open_port(lambda: policy.port_contexts, **options)


def client(certs: Certs, files: Any = None, ca: str = "ca") -> ssl.SSLContext:
    return ClientTls(certs.paths(files, ca)).context


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.01)


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


async def refused(port: Port, context: ssl.SSLContext, reason: str, name: str = "localhost") -> None:
    """Dial, and find that the port refuses; with TLS 1.3 the dialing side may learn so after its own handshake."""
    try:
        program = await port.dial(context, name)
    except TlsError:
        pass
    else:
        assert not program.data
    await until(lambda: bool(port.failures))
    assert port.failures == [reason]
    assert port.programs == []
    assert port.gate.under_way == 0


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


# ----------------------------------------------------------------------- bounds


def test_a_handshake_that_goes_on_for_too_long_is_cut(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none"), timeout_s=0.05) as port:
            reader, writer = await asyncio.open_connection(*port.address)
            writer.write(b"\x16\x03\x01\x02\x00")
            assert await reader.read() == b""
            writer.close()
            assert port.failures == ["it took longer than 0.05 s"]
            assert (port.gate.timed_out, port.gate.under_way) == (1, 0)

    run(main())


def test_the_oldest_handshake_goes_for_the_newest_and_others_are_served(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none"), under_way_max=8) as port:
            crowd = [await asyncio.open_connection(*port.address) for _ in range(30)]
            await until(lambda: port.gate.crowded_out == 22)
            assert port.gate.under_way == 8
            mine = await port.dial(client(certs))
            assert bytes(mine.data) == b"hello"
            assert port.gate.completed == 1
            assert [await reader.read() for reader, _ in crowd[:22]] == [b""] * 22
            mine.transport.abort()
            for _, writer in crowd:
                writer.close()
            await until(lambda: port.gate.under_way == 0)

    run(main())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it speaks HTTP, not TLS"),
        (b"\x00\x00\x00\x2a" + b"\x93" * 42, "it does not speak TLS"),
        (b"", "the other side ended the connection"),
    ],
)
def test_bytes_that_are_not_tls_are_refused(run: Run, certs: Certs, sent: bytes, reason: str) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            reader, writer = await asyncio.open_connection(*port.address)
            writer.write(sent)
            writer.write_eof()
            await reader.read()
            writer.close()
            await until(lambda: bool(port.failures))
            assert port.failures == [reason]
            assert port.gate.failed == 1

    run(main())


def test_a_refused_connection_leaves_nothing_to_collect(
    run: Run, certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its TLS has a tenth of a megabyte that no collector counts, so collections come too late for a crowd of them."""
    layers: list[weakref.ref[TlsLayer]] = []
    accept = TlsLayer.accept

    def noted(contexts: PortContexts) -> TlsLayer:
        layer = accept(contexts)
        layers.append(weakref.ref(layer))
        return layer

    monkeypatch.setattr(tls_layer.TlsLayer, "accept", noted)

    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            await refused(port, client(certs), "it has shown no certificate")
            for sent in (b"\x16\x03\x01\x00\x05hello", b"\x00\x00\x00\x01\xc1", b"garbage"):
                await answer_to(port, sent)
            await until(lambda: port.gate.parting == 0)
            await until(lambda: all(layer() is None for layer in layers))
            assert len(layers) == 4

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_a_crowd_of_failures_is_a_few_lines_of_the_log(
    certs: Certs, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with port_of(certs.policy("none")) as port:
            for _ in range(30):
                _, writer = await asyncio.open_connection(*port.address)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                writer.close()
            await until(lambda: port.gate.failed == 30)

    with caplog.at_level(logging.INFO, "lockring.tls"):
        asyncio.run(main())
    lines = [each.getMessage() for each in caplog.records if each.name == "lockring.tls"]
    assert len(lines) == 1
    assert lines[0].startswith("a TLS handshake failed: it speaks HTTP, not TLS, at 127.0.0.1:")


def test_a_server_that_answers_nothing_is_not_waited_for(run: Run, certs: Certs) -> None:
    async def main() -> None:
        context = client(certs)
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            with pytest.raises(TlsError, match=r"it took longer than 0\.05 s"):
                await open_tls(
                    Program, host, port, lambda: TlsLayer.dial(context, "localhost"), timeout_s=0.05
                )

    run(main())


def test_a_first_message_without_end_takes_a_bounded_amount_of_memory(certs: Certs) -> None:
    layer = TlsLayer.accept(certs.policy("none").port_contexts)
    fragment = b"\x16\x03\x01\x00\x01\x01"  # a record with one byte of a message

    def flood() -> None:
        for _ in range(20_000):
            layer.receive(fragment)

    with pytest.raises(TlsError):
        flood()
    assert not layer.is_ready


@given(st.lists(st.binary(max_size=80), max_size=8), st.booleans())
def test_bytes_of_a_stranger_fail_as_a_tls_error_and_nothing_else(
    certs: Certs, parts: list[bytes], looks_like_tls: bool
) -> None:
    layer = TlsLayer.accept(certs.policy_once.port_contexts)
    header = b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c" if looks_like_tls else b""
    with contextlib.suppress(TlsError):
        for part in (header, *parts):
            assert layer.receive(part) == b""
    assert not layer.is_ready


@given(st.integers(0, 2000), st.integers(0, 255), st.booleans())
def test_a_handshake_with_one_wrong_byte_ends_well_or_as_a_tls_error(
    certs: Certs, at: int, byte: int, is_server: bool
) -> None:
    policy = certs.policy_once
    context = policy.dial_context if is_server else certs.client_once.context
    assert context is not None
    dialing = TlsLayer.dial(context, PEER_NAME if is_server else "localhost")
    layer = TlsLayer.accept(policy.port_contexts)
    sent, has_failed = 0, True
    with contextlib.suppress(TlsError):
        for _ in range(4):
            out = bytearray(dialing.take_output())
            if sent <= at < sent + len(out):
                out[at - sent] = byte
            sent += len(out)
            assert layer.receive(bytes(out)) == b""
            dialing.receive(layer.take_output())
        has_failed = False
    # A wrong length may let the layer wait for the rest.
    assert not layer.is_ready or (not has_failed and layer.is_server == is_server)


# ----------------------------------------------------------------------- last words


async def answer_to(port: Port, sent: bytes) -> bytes:
    """All that comes back, even after more was sent to a side that has ended the connection."""
    reader, writer = await asyncio.open_connection(*port.address)
    writer.write(sent)
    await until(lambda: bool(port.failures))
    writer.write(b"more, which must not destroy the answer")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def test_a_side_that_begins_with_a_frame_gets_the_ports_plain_answer(run: Run, certs: Certs) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        failures: list[str] = []
        gate = HandshakeGate(on_failure=lambda _, reason: failures.append(reason))
        make = accepting(Program, lambda: certs.policy_once.port_contexts, gate, plain_answer=b"plain")
        server = await loop.create_server(make, "127.0.0.1", 0)
        port = Port(server.sockets[0].getsockname()[:2], gate)
        port.failures = failures
        assert await answer_to(port, b"\0\0\0\1\x91") == b"plain"
        assert failures == ["it does not speak TLS"]
        failures.clear()
        assert await answer_to(port, b"GET / HTTP/1.0\r\n\r\n") != b"plain", "that is for lockring's own"
        server.close()

    run(main())


def test_a_refusal_arrives_although_the_other_side_goes_on(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            answer = await answer_to(port, b"\x16\x03\x01\x00\x05hello")
            assert answer[0] == 21, "an alert"

    run(main())


def test_few_refused_connections_are_kept_for_their_last_words(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required"), under_way_max=3) as port:
            streams = []
            for number in range(6):
                streams.append(await asyncio.open_connection(*port.address))
                streams[-1][1].write(b"\x16\x03\x01\x00\x05hello")
                await until(lambda number=number: len(port.failures) == number + 1)  # type: ignore[misc]
            assert port.gate.parting == 3
            for _, writer in streams:
                writer.close()
            await until(lambda: port.gate.parting == 0)

    run(main())


def test_a_program_hears_why_the_other_side_refuses_after_its_own_part(run: Run, certs: Certs) -> None:
    async def main() -> None:
        async with port_of(certs.policy("required")) as port:
            context = client(certs)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            program = await port.dial(context)
            error = await program.lost
            assert isinstance(error, TlsError)
            assert error.fault == "refused"
            assert str(error) == "it asks for a certificate, and this side has shown none"

    run(main())
