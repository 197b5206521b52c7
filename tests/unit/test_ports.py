"""Reserved ports: nobody gets them by chance, and who is told of them can listen there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lockring.server.local import children
from lockring.testing.ports import ReservedPorts


@pytest.fixture
def ports() -> Iterator[ReservedPorts]:
    made = ReservedPorts()
    yield made
    made.close()


def test_reserved_ports_are_in_a_row_and_never_given_twice(ports: ReservedPorts) -> None:
    rows = [ports.take(3) for _ in range(50)]
    assert all(row == list(range(row[0], row[0] + 3)) for row in rows)
    assert len({port for row in rows for port in row}) == 150


def test_nobody_else_can_reserve_them_until_they_are_given_up(ports: ReservedPorts) -> None:
    (port,) = ports.take()
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        ports.close()
        other.bind(("127.0.0.1", port))


def test_who_looks_for_free_ports_passes_over_them(
    ports: ReservedPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ports.take(10)
    monkeypatch.setattr(children, "PORTS", range(row[0] - 20, row[-1] + 20))
    assert not set(children.free_ports("127.0.0.1", 5)) & set(row)
    monkeypatch.setattr(children, "PORTS", row)
    with pytest.raises(OSError, match="free ports"):
        children.free_ports("127.0.0.1", 1)


def test_to_connect_to_one_is_refused_and_who_is_told_of_it_can_listen_again_and_again(
    ports: ReservedPorts,
) -> None:
    (port,) = ports.take()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        with (
            socket.create_server(("127.0.0.1", port)) as server,
            socket.create_connection(("127.0.0.1", port), timeout=10),
        ):
            server.accept()[0].close()
