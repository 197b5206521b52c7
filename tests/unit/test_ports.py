"""Reserved ports: no other process gets them by chance, and the process that they are for can listen there."""

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


def test_ports_beside_reserved_ones_are_reserved_too(ports: ReservedPorts) -> None:
    found = ports.take(2, beside=100)
    assert found == [found[0], found[0] + 1]
    for port in (found[0] + 100, found[1] + 100):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_reserved_ports_cannot_be_reserved_again_until_they_are_released(ports: ReservedPorts) -> None:
    (port,) = ports.take()
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        ports.close()
        other.bind(("127.0.0.1", port))


def test_a_search_for_free_ports_passes_over_reserved_ones(
    ports: ReservedPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ports.take(10)
    monkeypatch.setattr(children, "PORTS", range(row[0] - 20, row[-1] + 20))
    assert not set(children.free_ports("127.0.0.1", 5)) & set(row)
    monkeypatch.setattr(children, "PORTS", row)
    with pytest.raises(OSError, match="free ports"):
        children.free_ports("127.0.0.1", 1)


def test_a_reserved_port_refuses_connections_and_its_user_can_listen_repeatedly(
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
