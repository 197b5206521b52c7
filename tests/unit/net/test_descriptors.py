"""How descriptors are shared out among the ports of a process."""

from __future__ import annotations

import pytest

from lockring.net.descriptors import (
    CALL_CONNECTIONS_MAX,
    CALL_HANDSHAKES_MAX,
    CLIENTS_MAX,
    RESERVED_MAX,
    SHARE_MIN,
    room_of,
)


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("files", [512, 600, 1024, 4096, 20_000, 2**20])
def test_all_ports_together_never_take_more_than_there_are(files: int, ports: int) -> None:
    room = room_of(files, ports)
    assert ports * (room.clients + 2 * room.reserved) <= files
    assert room.clients >= SHARE_MIN // 2
    assert room.reserved >= SHARE_MIN // 4


def test_with_enough_of_them_a_port_has_all_that_it_can_use() -> None:
    room = room_of(2 * (CLIENTS_MAX + 2 * RESERVED_MAX), 2)
    assert (room.clients, room.reserved, room.remark) == (CLIENTS_MAX, RESERVED_MAX, "")


def test_with_fewer_it_says_how_to_have_more() -> None:
    assert "room for only 512 clients, because 1024 files may be open" in room_of(1024, 1).remark
    assert "ulimit -n" in room_of(1024, 1).remark


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("share", [SHARE_MIN, 1_000, 4_096, 100_000])
def test_clients_of_grpc_take_a_quarter_of_the_descriptors_at_most(share: int, ports: int) -> None:
    room = room_of(share * ports, ports, has_calls=True)
    assert 0 < room.calls <= CALL_CONNECTIONS_MAX
    assert 0 < room.call_handshakes <= CALL_HANDSHAKES_MAX
    assert room.calls + room.call_handshakes <= share // 4
    kept_for_files = room.reserved
    assert room.clients + room.reserved + room.calls + room.call_handshakes + kept_for_files <= share
    assert room.clients >= SHARE_MIN // 4


def test_clients_of_grpc_take_no_more_than_they_may_have_where_there_is_plenty() -> None:
    room = room_of(100_000, 1, has_calls=True)
    assert (room.calls, room.call_handshakes) == (CALL_CONNECTIONS_MAX, CALL_HANDSHAKES_MAX)
    assert room.clients == CLIENTS_MAX
