"""A node's port, with a connection whose writes the test sees one by one: over a socket, they would run together."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from lockring.core.histograms import Durations
from lockring.ids import ConnectionId
from lockring.net.accepted import AcceptedConnection
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Acquire,
    ClientHello,
    Message,
    Refusal,
    ToClient,
    ToNode,
    Welcome,
)
from lockring.server.node_port import NodePort
from tests.unit.net.serving import run
from tests.unit.server.test_node_lives import Process


class Wire(asyncio.Transport):
    """Keeps each write apart, decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[Message]] = []
        self._reader = FrameReader[Message](msgspec.msgpack.Decoder(ToClient), FRAME_BYTES_MAX)

    def write(self, data: Any) -> None:
        self.writes.append(self._reader.feed(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False


async def answers(requests: int, *, waits_for_sync: bool) -> list[list[int]]:
    """Return the numbers of the answers in each write, to requests that a client has sent in one."""
    process = Process()
    port = NodePort(
        process.outbox,
        process.lives,
        ports=1,
        has_calls=False,
        waits_for_sync=waits_for_sync,
        batches=Durations([1]),
    )
    wire = Wire()
    connection = AcceptedConnection(port.listener._context, ConnectionId(1), msgspec.msgpack.Decoder(ToNode))
    try:
        process.join()
        connection.connection_made(wire)
        connection.data_received(encode_frame(ClientHello(PROTOCOL, "", "client", 1)))
        await asyncio.sleep(0)
        assert isinstance(wire.writes[0][0], Welcome)
        wire.writes.clear()
        # Each is refused for its acquisition of 0, at once: this node serves no slot.
        asked = [Acquire(number, "s", 1000, "o", 0, "nightly") for number in range(1, requests + 1)]
        connection.data_received(b"".join(encode_frame(each) for each in asked))
        await asyncio.sleep(0)
        assert all(isinstance(message, Refusal) for write in wire.writes for message in write)
        return [[message.request for message in write] for write in wire.writes]  # type: ignore[attr-defined]
    finally:
        connection.connection_lost(None)
        process.lives.end("the test is over")


@pytest.mark.parametrize(
    ("requests", "parts"), [(1, [1]), (8, [8]), (9, [8, 1]), (24, [8, 16]), (41, [8, 16, 16, 1])]
)
def test_the_answers_to_the_first_of_many_requests_leave_before_the_rest_is_handled(
    requests: int, parts: list[int]
) -> None:
    writes = run(answers(requests, waits_for_sync=False))
    assert [len(write) for write in writes] == parts
    assert [number for write in writes for number in write] == list(range(1, requests + 1))


def test_where_answers_wait_for_a_sync_the_first_part_is_as_long_as_the_others() -> None:
    writes = run(answers(33, waits_for_sync=True))
    assert [len(write) for write in writes] == [16, 16, 1]
