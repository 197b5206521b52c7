"""A coordinator that is started before its store: it waits for a server that is not there, and for nothing else."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.errors import LockringError
from lockring.net.oneshot import ask_status
from lockring.protocol import ServerStatus
from lockring.store.etcd.calls import TXN
from lockring.store.etcd.etcd_pb2 import Operation, PutRequest, TxnRequest
from tests.cluster.running import Running, running
from tests.processes import address, eventually
from tests.stores.servers import PostgresServer
from tests.stores.servers_etcd import EtcdServer

pytestmark = [pytest.mark.timeout(400)]

STOP_S_MAX = 5
"""An end that waited for a store would take longer; a busy machine takes some of it."""
EXIT_CANNOT_CREATE = 73
EXIT_USAGE = 64


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server of the test's own, to be started later."""
    server = PostgresServer()
    server.kill()
    yield server
    server.remove()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """The same of etcd."""
    server = EtcdServer(tmp_path / "etcd")
    server.kill()
    yield server
    server.kill()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


def coordinator(listen: str, store: str) -> tuple[str, ...]:
    return "coordinator", "--listen", listen, "--store", store


def status_of(server: str) -> ServerStatus | None:
    try:
        return ask_status(server, timeout_s=2)
    except LockringError:
        return None


def assert_waits(process: Running, listen: str, words: str) -> None:
    """It answers, says what it waits for, and does so again in its log."""
    eventually(lambda: status_of(listen) is not None, lambda: process.text)
    eventually(lambda: words in str(status_of(listen)), lambda: process.text)
    process.wait_for("this coordinator tries again until the store answers: start the store, or mend --store")
    assert process.popen.poll() is None


def assert_stops_at_once(process: Running) -> None:
    began_s = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process.text
    assert time.monotonic() - began_s < STOP_S_MAX


def test_a_coordinator_waits_for_a_postgresql_that_is_started_later(own: PostgresServer) -> None:
    listen = address()
    with running(*coordinator(listen, own.url())) as process:
        assert_waits(process, listen, "Connection refused")
        own.start()
        process.wait_for("this coordinator leads")
        process.wait_for(f"PostgreSQL (postgresql://lockring@127.0.0.1:{own.port}/postgres) answers now")
        assert_stops_at_once(process)


def test_a_coordinator_waits_for_an_etcd_that_is_started_later(own_etcd: EtcdServer) -> None:
    listen = address()
    with running(*coordinator(listen, own_etcd.url())) as process:
        assert_waits(process, listen, "Connection refused")
        own_etcd.start(0)
        process.wait_for("this coordinator leads")
        assert_stops_at_once(process)


@pytest.mark.parametrize(
    ("scheme", "words"), [("etcd", "has not answered yet"), ("postgresql", "connection timeout expired")]
)
def test_a_coordinator_whose_store_does_not_answer_says_so_and_stops_at_once(
    silent: int, scheme: str, words: str
) -> None:
    listen = address()
    with running(*coordinator(listen, f"{scheme}://127.0.0.1:{silent}/x")) as process:
        assert_waits(process, listen, words)
        assert_stops_at_once(process)


@pytest.mark.parametrize("scheme", ["etcd", "postgresql"])
def test_a_coordinator_waits_for_the_name_of_a_host(scheme: str) -> None:
    listen = address()
    with running(*coordinator(listen, f"{scheme}://no-such-host.invalid:1/x")) as process:
        assert_waits(process, listen, "no-such-host.invalid")
        assert_stops_at_once(process)


def test_a_whole_cluster_waits_for_its_store(own: PostgresServer) -> None:
    with running("up", "--port", "0", "--nodes", "2", "--no-grpc", "--store", own.url()) as process:
        process.wait_for("this coordinator tries again until the store answers")
        own.start()
        process.wait_for("2 nodes ready")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0, process.text


def test_a_wrong_password_database_or_url_ends_the_coordinator_with_the_reason(
    postgresql: PostgresServer,
) -> None:
    for url, reason in (
        (postgresql.url(password="wrong"), "password authentication failed"),
        (postgresql.url().replace("/postgres", "/nosuch"), 'database "nosuch" does not exist'),
        (f"{postgresql.url()}?nosuch=1", "has a parameter that libpq does not know"),
        ("etcd://127.0.0.1/x?nosuch=1", "has a parameter that is unknown"),
    ):
        code = EXIT_USAGE if "nosuch=1" in url else EXIT_CANNOT_CREATE
        with running(*coordinator(address(), url)) as process:
            assert process.wait() == code, process.text
            assert reason in process.text
            assert process.text.count(reason) == 1, process.text


def test_a_prefix_of_another_program_ends_the_coordinator_with_the_reason(
    etcd: EtcdServer, name: str
) -> None:
    operation = Operation(put=PutRequest(key=f"{name}/theirs".encode(), value=b"theirs"))
    etcd.call(TXN, TxnRequest(success=[operation]))
    with running(*coordinator(address(), etcd.url(name))) as process:
        assert process.wait() == EXIT_CANNOT_CREATE, process.text
        assert "is in use for something else" in process.text
