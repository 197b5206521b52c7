"""Messages on TCP connections are counted by the kernel, as long as the connections stay."""

from __future__ import annotations

import socket
import sys

import pytest

from bench.workloads.tcp import Segments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counts are those of Linux")


def pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname())
    return client, listener.accept()[0]


def test_messages_are_counted_on_both_sides_of_connections_that_stay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, server = pair(listener)
        with client, server:
            before = Segments.counted()
            for _ in range(3):
                client.sendall(b"ping")
                assert server.recv(4) == b"ping"
            between = Segments.between(before, Segments.counted())
            assert between == (3, 3), "this process has both sides"
            other_client, other_server = pair(listener)
            with other_client, other_server:
                other_client.sendall(b"ping")
                assert other_server.recv(4) == b"ping"
                assert Segments.between(before, Segments.counted()) == (4, 4)


def test_a_count_that_a_connection_took_with_it_is_unknown_rather_than_negative() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, server = pair(listener)
        with server:
            client.sendall(b"ping")
            before = Segments.counted()
            client.close()
            assert Segments.between(before, Segments.counted()) is None
