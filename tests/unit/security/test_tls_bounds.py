"""TLS in an event loop: how handshakes and refusals are bounded, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.security import tls_layer
from lockring.security.handshakes import HandshakeGate
from lockring.security.tls_contexts import PEER_NAME
from lockring.security.tls_layer import TlsError, TlsLayer
from lockring.security.tls_policy import PortContexts
from lockring.security.tls_protocol import accepting, open_tls
from tests.unit.security.conftest import Certs
from tests.unit.security.tls_programs import Port, Program, Run, client, port_of, refused, until


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
