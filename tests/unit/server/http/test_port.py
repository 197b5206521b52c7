"""The HTTP port: when it loads, what it refuses, and how long each step of a connection may take."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lockring.addresses import split_address
from lockring.clock import monotonic_ns
from lockring.core.access import HTTP_REQUIREMENTS, Condition, Requirement
from lockring.errors import CannotListen
from lockring.security.tls_policy import TlsPolicy
from lockring.server import http_start
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import AccessSettings
from lockring.server.http import port as port_module
from lockring.server.http.pages import Page
from lockring.server.http.port import HttpPort
from lockring.server.http.protocol import (
    BODY_S_MAX,
    HEAD_BYTES_MAX,
    HEAD_S_MAX,
    UNREAD_S_MAX,
    ConnectionKeeper,
)
from lockring.server.http_start import HttpServer
from lockring.server.pages.dashboard import Dashboard
from lockring.server.settings import PortSettings
from lockring.server.tls import ServerTls
from lockring.units import NS_PER_S
from tests.processes import PATIENCE_S
from tests.unit.net.serving import run, until
from tests.unit.security.conftest import Certs
from tests.unit.server.http.serving import Served, answer_of, part, serving


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HTTP_REQUIREMENTS, "GET /t/free", Requirement(Condition.FREE))
    monkeypatch.setitem(HTTP_REQUIREMENTS, "POST /t/free", Requirement(Condition.FREE))


async def only(served: Served):
    """Wait for the one connection, and return its protocol."""
    await until(lambda: len(served.keeper) == 1)
    return next(iter(served.keeper._open))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection, by a reset or not."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def look_twice(connection, seconds: float) -> None:
    now_ns = monotonic_ns()
    connection.look(now_ns)
    connection.look(now_ns + int((seconds - 0.5) * NS_PER_S))
    assert not connection.transport.is_closing(), "it has its time"
    connection.look(now_ns + int((seconds + 0.5) * NS_PER_S))
    assert connection.transport.is_closing()


def test_a_process_that_listens_has_loaded_no_package_of_http_before_the_first_connection() -> None:
    code = (
        "import asyncio, sys\n"
        "from lockring.server.http.port import HttpPort\n"
        "import lockring.server.node, lockring.server.coordinator\n"
        "async def main():\n"
        "    port = HttpPort(lambda n: None, ending=lambda: None)\n"
        "    await port.start('127.0.0.1:0')\n"
        "    await port.stop(0)\n"
        "asyncio.run(main())\n"
        "print([each for each in ('starlette', 'uvicorn', 'jinja2', 'prometheus_client') if each in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_port_that_has_loaded_ahead_answers_the_first_connection_without_loading_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    threads: list[threading.Thread] = []
    bound = port_module._connections_max

    def noted() -> int:
        threads.append(threading.current_thread())
        return bound()

    monkeypatch.setattr(port_module, "_connections_max", noted)

    async def scenario() -> None:
        async with serving() as served:

            def make(connections_max: int) -> ConnectionKeeper:
                made.append(connections_max)
                return served.keeper

            port = HttpPort(make, ending=lambda: None)
            address = await port.start("127.0.0.1:0")
            await port.load()
            assert len(made) == 1
            await port.load()
            assert (await Served(address, served.site, served.keeper).get("/livez")).status == 200
            await port.stop(1.0)

    run(scenario())
    assert len(made) == 1
    assert threading.main_thread() not in threads, "the event loop has other work"


def test_pages_that_cannot_be_prepared_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_start, "LOAD_AFTER_S", 0.0)

    async def fail(self: Dashboard) -> None:
        raise RuntimeError("a template is broken")

    monkeypatch.setattr(Dashboard, "prepare", fail)

    async def scenario() -> None:
        gate = AccessGate(AccessSettings(), server="n1")
        server = HttpServer(PortSettings(http_listen="127.0.0.1:0"), [part()], gate=gate, tls=None)
        await server.start("127.0.0.1:1")
        try:
            await until(lambda: "a template is broken" in caplog.text)
        finally:
            await server.stop()

    run(scenario())


@pytest.mark.parametrize("after_s", [0.0, 600.0])
def test_a_server_loads_its_pages_a_while_after_the_start(
    monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    monkeypatch.setattr(http_start, "LOAD_AFTER_S", after_s)
    compiled: list[Dashboard] = []

    async def note(self: Dashboard) -> None:
        compiled.append(self)

    monkeypatch.setattr(Dashboard, "prepare", note)

    async def scenario() -> None:
        gate = AccessGate(AccessSettings(), server="n1")
        settings = PortSettings(http_listen="127.0.0.1:0")
        server = HttpServer(settings, [part()], gate=gate, tls=None)
        await server.start("127.0.0.1:1")
        try:
            if after_s:
                for _ in range(5):  # turns of the event loop: it would have begun
                    await asyncio.sleep(0)
                assert server._port._loading is None
            else:
                await until(lambda: bool(compiled))
                assert server._dashboard is compiled[0]
                reader, writer = await asyncio.open_connection(*split_address(server.address))
                writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert answer_of(await reader.read()).status == 200
                writer.close()
        finally:
            await server.stop()

    run(scenario())
    assert len(compiled) == (not after_s)


def test_a_port_that_is_taken_is_named() -> None:
    async def scenario() -> None:
        async with serving() as served:
            with pytest.raises(CannotListen, match=r"for HTTP: the port is already taken"):
                await HttpPort(lambda _: served.keeper, ending=lambda: None).start(served.address)

    run(scenario())


def test_a_connection_that_sends_no_whole_head_ends_in_time_even_if_it_sends_a_byte_now_and_then() -> None:
    async def scenario() -> None:
        async with serving() as served:
            _, writer = await served.connect()
            writer.write(b"GET /livez HT")
            await look_twice(await only(served), HEAD_S_MAX)
            writer.close()

    run(scenario())


def test_a_connection_that_asks_nothing_more_ends_in_time() -> None:
    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"live\n")
            await look_twice(await only(served), HEAD_S_MAX)
            writer.close()

    run(scenario())


def test_a_body_that_does_not_come_ends_the_connection_in_time() -> None:
    async def reads(request: Request) -> Response:
        return Response(await request.body())

    async def scenario() -> None:
        async with serving(Page("/t/free", reads, methods=("POST",))) as served:
            _, writer = await served.connect()
            writer.write(b"POST /t/free HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
            connection = await only(served)
            await until(lambda: connection.cycle is not None)
            await look_twice(connection, BODY_S_MAX)
            writer.close()

    run(scenario())


def test_an_answer_that_is_not_read_ends_the_connection_in_time_and_one_that_is_read_may_last() -> None:
    more = asyncio.Event()

    async def lasting(request: Request) -> Response:
        async def chunks():
            yield b"first"
            await more.wait()
            while True:
                await asyncio.sleep(0)
                yield b"x" * 100_000

        return StreamingResponse(chunks())

    async def scenario() -> None:
        async with serving(Page("/t/free", lasting)) as served:
            reader, writer = await served.connect()
            writer.write(b"GET /t/free HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"first")
            connection = await only(served)
            now_ns = monotonic_ns()
            connection.look(now_ns)
            connection.look(now_ns + 3600 * NS_PER_S)
            assert not connection.transport.is_closing()
            more.set()
            await until(lambda: connection.flow.write_paused)
            await look_twice(connection, UNREAD_S_MAX)
            writer.close()

    run(scenario())


def test_a_head_that_is_too_long_and_bytes_that_are_no_request_are_refused() -> None:
    async def scenario() -> None:
        async with serving() as served:
            assert (await served.get("/livez", "X-Long: " + "x" * HEAD_BYTES_MAX)).status == 431
            endless = "GET /livez HTTP/1.1\r\nX-Long: " + "x" * HEAD_BYTES_MAX
            assert (await served.ask(endless)).status == 400
            assert (await served.ask(b"\x16\x03\x01\x02\x00\r\n\r\n")).status == 400
            assert (await served.ask(b"GET /livez HTTP/1.1\r\n\r\n")).status == 400  # without a host
            assert (await served.get("/livez")).status == 200

    run(scenario())


def test_websockets_are_not_spoken() -> None:
    async def scenario() -> None:
        async with serving() as served:
            upgrade = ("Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
            assert (await served.get("/livez", *upgrade)).status == 200

    run(scenario())


def test_too_many_connections_push_out_the_oldest_that_asks_nothing() -> None:
    async def scenario() -> None:
        async with serving(connections_max=2) as served:
            first_reader, first = await served.connect()
            first.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await first_reader.readuntil(b"live\n")
            second_reader, second = await served.connect()
            await until(lambda: len(served.keeper) == 2)
            assert (await served.get("/livez")).status == 200
            assert await ended(first_reader)
            second.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in await second_reader.read()
            assert served.keeper.refused == 1
            first.close()
            second.close()

    run(scenario())


def test_connections_whose_body_does_not_come_give_way_to_new_ones_and_whole_requests_do_not() -> None:
    go_on = asyncio.Event()

    async def reads(request: Request) -> Response:
        return Response(await request.body())

    async def slow(request: Request) -> Response:
        await go_on.wait()
        return Response("done")

    async def scenario() -> None:
        pages = Page("/t/free", reads, methods=("POST",)), Page("/t/free", slow)
        async with serving(*pages, connections_max=3) as served:
            asking = asyncio.ensure_future(served.get("/t/free"))
            whole = await only(served)
            await until(lambda: not whole.lacks_request())
            clients = []
            for _ in range(5):
                clients.append(await served.connect())
                clients[-1][1].write(
                    b"POST /t/free HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
                )
            await until(lambda: served.keeper.refused == 3)
            await until(lambda: all(each.cycle is not None for each in served.keeper._open))
            for _ in range(3):
                assert (await served.get("/livez")).status == 200
            go_on.set()
            assert (await asking)[::2] == (200, "done")
            for _, writer in clients:
                writer.close()

    run(scenario())


def test_a_connection_that_leaves_its_answer_unread_gives_way_to_a_new_one() -> None:
    async def lasting(request: Request) -> Response:
        async def chunks():
            while True:
                await asyncio.sleep(0)
                yield b"x" * 100_000

        return StreamingResponse(chunks())

    async def scenario() -> None:
        async with serving(Page("/t/free", lasting), connections_max=1) as served:
            _, writer = await served.connect()
            writer.write(b"GET /t/free HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection = await only(served)
            await until(connection.is_unread)
            assert (await served.get("/livez")).status == 200
            writer.close()

    run(scenario())


def test_handshakes_that_are_not_gone_on_with_take_no_more_descriptors_than_are_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = 1_024  # which the process may open
    monkeypatch.setattr("lockring.server.http.port.resource.getrlimit", lambda _: (files, files))
    certs = Certs(tmp_path)
    tls = ServerTls(TlsPolicy(certs.paths(certs.server), None))

    async def scenario() -> None:
        async with serving(secure=tls.securing_pages()) as served:
            (gate,) = tls.gates
            gate._timeout_s = PATIENCE_S
            await until(lambda: not gate.under_way)
            clients = [await served.connect() for _ in range(files // 32 + 1)]
            assert await ended(clients[0][0])
            assert (gate.under_way, gate.crowded_out) == (files // 32, 1)
            for _, writer in clients:
                writer.close()

    run(scenario())


def test_the_end_lets_an_answer_under_way_arrive() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return Response("done")

    async def scenario() -> None:
        async with serving(Page("/t/free", slow)) as served:
            asking = asyncio.ensure_future(served.get("/t/free"))
            await begun.wait()
            ending = asyncio.ensure_future(served.keeper.end(30))
            go_on.set()
            assert (await asking)[::2] == (200, "done")
            await ending

    run(scenario())
