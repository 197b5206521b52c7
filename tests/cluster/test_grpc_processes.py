"""Where the processes of a cluster serve the gRPC API, and what they do when they cannot."""

from __future__ import annotations

import socket

import pytest

from lockring.addresses import split_address
from lockring.server.settings import GRPC_PORT_OFFSET
from tests.cluster.grpc_calls import Caller
from tests.cluster.test_processes_life import running
from tests.processes import address, ports_in_a_row

pytestmark = pytest.mark.cluster


def grpc_of(lock_port: str) -> str:
    host, port = split_address(lock_port)
    return f"{host}:{port + GRPC_PORT_OFFSET}"


def test_up_serves_it_at_every_node_and_says_where() -> None:
    first = ports_in_a_row(3, with_calls=True)[0]
    with running("up", "--nodes", "2", "--port", str(first)) as up:
        up.wait_for("Ctrl-C ends everything")
        addresses = [grpc_of(f"127.0.0.1:{first + number}") for number in (1, 2)]
        assert f"the gRPC API is at {','.join(addresses)}" in up.text
        for each in addresses:
            with Caller(each) as caller:
                assert caller.lock(
                    "up", f"at-{each.partition(':')[2]}", wait_ms=60_000, ttl_ms=200
                ).generation


def test_serve_serves_it_unless_an_option_forbids_it() -> None:
    for more in ((), ("--no-grpc",)):
        listen = address()
        with running("serve", "--listen", listen, "--coordinator-listen", "127.0.0.1:0", *more) as serve:
            serve.wait_for("clients reach it with")
            assert ("gRPC API at" in serve.text) == (not more)


def test_a_busy_default_port_keeps_no_node_from_its_work() -> None:
    listen = address()
    host, port = split_address(grpc_of(listen))
    with (
        socket.create_server((host, port), reuse_port=False),
        running("serve", "--listen", listen, "--coordinator-listen", "127.0.0.1:0") as serve,
    ):
        serve.wait_for("clients reach it with")
        assert f"no gRPC API: cannot listen on {host}:{port}" in serve.text


def test_a_port_that_was_asked_for_and_is_taken_ends_the_node() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        running(
            "node",
            "--id",
            "N1",
            "--listen",
            address(),
            "--grpc-listen",
            f"127.0.0.1:{taken.getsockname()[1]}",
        ) as node,
    ):
        assert node.wait() == 69
        assert "already taken" in node.text
        assert "bug" not in node.text


def test_two_nodes_do_not_share_a_grpc_port() -> None:
    shared = address()
    with running(
        "serve", "--listen", address(), "--coordinator-listen", "127.0.0.1:0", "--grpc-listen", shared
    ) as first:
        first.wait_for("gRPC API at")
        with running("node", "--id", "N2", "--listen", address(), "--grpc-listen", shared) as second:
            assert second.wait() == 69
