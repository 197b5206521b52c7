"""How descriptors are shared out among the ports of a process."""

from __future__ import annotations

import pytest

from lockring.net.descriptors import CLIENTS_MAX, RESERVED_MAX, SHARE_MIN, room_of


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
