"""A server that may open few files: it takes what it can get, and says what it needs where that is too little."""

from __future__ import annotations

import contextlib
import socket

import pytest

import lockring
from lockring import exits
from lockring.addresses import split_address
from tests.cluster.running import running
from tests.hostile.http2 import PREFACE, SETTINGS, frame

pytestmark = pytest.mark.cluster

COORDINATOR = ("coordinator", "--listen", "127.0.0.1:0")
NODE = ("node", "--id", "n", "--listen", "127.0.0.1:0", "--coordinator", "127.0.0.1:1", "--no-grpc")
SERVE = ("serve", "--listen", "127.0.0.1:0", "--coordinator-listen", "127.0.0.1:0", "--no-grpc")


def limited(files: int, *, only_soft: bool = False) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit {"-S " if only_soft else ""}-n {files} && exec "$@"', "sh")


@pytest.mark.parametrize(("command", "needed"), [(COORDINATOR, 256), (NODE, 256), (SERVE, 512)])
def test_a_server_that_may_open_too_few_files_does_not_start_and_says_what_it_needs(
    command: tuple[str, ...], needed: int
) -> None:
    with running(*command, within=limited(needed - 1)) as server:
        assert server.wait() == exits.CONFIG
        assert f"may open only {needed - 1} files and sockets, but needs at least {needed}" in server.text
        assert "ulimit -n" in server.text
        assert "LimitNOFILE" in server.text


@pytest.mark.parametrize("command", [COORDINATOR, SERVE])
def test_a_limit_that_may_be_raised_is_raised(command: tuple[str, ...]) -> None:
    with running(*command, within=limited(64, only_soft=True)) as server:
        server.wait_for(" listens ")


def test_a_crowd_at_the_port_for_grpc_keeps_no_client_from_the_lock_port() -> None:
    command = [*SERVE[:-1], "--grpc-listen", "127.0.0.1:0", "--in-memory", "--new-cluster"]
    with running(*command, within=limited(1024)) as server, contextlib.ExitStack() as crowd:
        server.wait_for("clients reach it with")
        calls = server.text.partition("gRPC API at ")[2].split()[0]
        for _ in range(300):
            sock = crowd.enter_context(socket.create_connection(split_address(calls), timeout=60))
            sock.sendall(PREFACE + frame(SETTINGS, 0))
        server.wait_for("clients of gRPC are refused: this port has 128 connections, which is its limit")
        servers = server.text.partition("LOCKRING_SERVER=")[2].partition(";")[0]
        with lockring.Client(servers) as client:
            client.lock("nightly").acquire(timeout=60).release()


def test_a_server_with_room_for_few_clients_says_for_how_many() -> None:
    with running(*COORDINATOR, within=limited(512)) as server:
        server.wait_for("room for only 256 clients, because 512 files may be open")
        server.wait_for(" listens ")
