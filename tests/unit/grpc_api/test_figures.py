"""The figures of the port for gRPC: open connections, calls by their end, and handshakes that failed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lockring.addresses import split_address
from lockring.grpc_api.server import OTHER_METHODS
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.grpc import add_grpc
from lockring.server.metrics.loop_watch import LoopWatch
from lockring.server.metrics.process import add_process
from lockring.server.tls import ServerTls
from tests.unit.grpc_api.serving import HEALTH, WATCH, RawClient, Served, until, with_server
from tests.unit.security.conftest import Certs

EMPTY = b"\0\0\0\0\0"
NAMED = b"\0\0\0\0\x03\x0a\x01x"
"""A request about the health of a service, without a name and with one that is unknown."""


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures.values.get(name, {}).get(tuple(labels.items()), 0)


def test_open_connections_are_counted_and_calls_by_method_and_status() -> None:
    async def test(served: Served) -> None:
        async with await RawClient.open(served.address) as client:
            client.call(HEALTH, EMPTY, stream=1)
            client.call(HEALTH, EMPTY, stream=3)
            client.call(HEALTH, NAMED, stream=5)
            client.call(b"/invented/Method", EMPTY, stream=7)
            client.call(b"/invented/Other", EMPTY, stream=9)
            client.call(WATCH, EMPTY, stream=11)
            await until(lambda: served.server.ended_calls.total() == 5)
            figures = Figures()
            add_grpc(figures, served.server)
            assert figure(figures, "lockring_connections", port="grpc") == 1
        await until(lambda: served.connections == 0 and served.calls == 0)
        figures = Figures()
        add_grpc(figures, served.server)
        assert figure(figures, "lockring_connections", port="grpc") == 0
        health, watch = HEALTH.decode()[1:], WATCH.decode()[1:]
        assert {
            tuple(dict(labels).values()): count
            for labels, count in figures.values["lockring_grpc_calls_total"].items()
        } == {
            (health, "OK"): 2,
            (health, "NOT_FOUND"): 1,
            (OTHER_METHODS, "UNIMPLEMENTED"): 2,
            (watch, "CANCELLED"): 1,
        }

    assert with_server(test) == []


def test_handshakes_that_fail_at_its_port_are_counted_with_those_of_the_others(tmp_path: Path) -> None:
    tls = ServerTls(Certs(tmp_path).policy("required"))

    async def test(served: Served) -> None:
        _, writer = await asyncio.open_connection(*split_address(served.address))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await until(lambda: any(gate.failed for gate in tls.gates))
        writer.close()
        figures = Figures()
        add_process(figures, LoopWatch(), tls, http_connections=0)
        assert figure(figures, "lockring_auth_failures_total", reason="handshake") == 1

    assert with_server(test, secure=tls.securing_calls(4)) == []
