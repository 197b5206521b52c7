"""Frames: whatever way the bytes arrive, the same messages come out, and nothing too large is kept."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.errors import ProtocolError
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import (
    FRAME_BYTES_MAX,
    GetState,
    Keepalive,
    ListedAcquisition,
    Message,
    Release,
    SlotList,
    ToNode,
)

decoder = msgspec.msgpack.Decoder(ToNode)


def reader(limit: int = FRAME_BYTES_MAX) -> FrameReader[Message]:
    return FrameReader(decoder, limit)


def test_a_frame_is_a_big_endian_length_and_a_msgpack_array() -> None:
    frame = encode_frame(GetState(7))
    assert frame[:4] == len(frame[4:]).to_bytes(4, "big")
    assert msgspec.msgpack.decode(frame[4:]) == [19, 7]


@given(
    numbers=st.lists(st.integers(0, 2**40), max_size=20),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40),
)
def test_any_cutting_of_the_stream_gives_the_same_messages(numbers: list[int], sizes: list[int]) -> None:
    messages = [Release(number, "s" * (number % 50), number, "name") for number in numbers]
    stream = b"".join(map(encode_frame, messages))
    frames = reader()
    found: list[Message] = []
    place = 0
    while place < len(stream):
        size = sizes[place % len(sizes)]
        found += frames.feed(stream[place : place + size])
        place += size
    assert found == messages
    assert not frames.rest


def test_many_frames_in_one_read_and_the_rest_of_another_come_out_at_once() -> None:
    frames = reader()
    stream = b"".join(encode_frame(GetState(number)) for number in range(1_000))
    first = frames.feed(stream[:-1])
    assert len(first) == 999
    assert frames.rest
    assert frames.feed(memoryview(stream)[-1:]) == [GetState(999)]


def test_a_large_frame_in_small_pieces_is_gathered_without_looking_at_it_again() -> None:
    listed = [ListedAcquisition(number, "n" * 100) for number in range(50_000)]
    message = Keepalive(1, "s", 1, "o", 1, 1, 1, [], [SlotList(1, listed)])
    stream = encode_frame(message)
    frames = reader()
    for place in range(0, len(stream) - 1_000, 1_000):
        assert frames.feed(stream[place : place + 1_000]) == []
    assert frames.feed(stream[place + 1_000 :]) == [message]
    assert frames.feed(encode_frame(GetState(1))) == [GetState(1)]


def test_returned_messages_do_not_change_when_the_buffer_is_reused() -> None:
    buffer = bytearray(encode_frame(Release(1, "session", 2, "name")))
    [message] = reader().feed(memoryview(buffer))
    buffer[:] = b"\xff" * len(buffer)
    assert message == Release(1, "session", 2, "name")


def test_a_frame_above_the_limit_is_refused_by_its_header_before_anything_is_kept() -> None:
    frames = reader(limit=100)
    with pytest.raises(ProtocolError, match="frame of 101 bytes exceeds the limit of 100"):
        frames.feed((101).to_bytes(4, "big"))
    assert not frames.rest
    assert len(encode_frame(Release(1, "s" * 80, 1, "x"))) - 4 <= 100
    assert len(reader(limit=100).feed(encode_frame(Release(1, "s" * 80, 1, "x")))) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([19, "no number"]),
        msgspec.msgpack.encode([19]),
        b"\x95\x0b\x01\xa2\xff\xfe\x01\xa1x",
        b"\x91" * 5_000,
    ],
)
def test_a_frame_that_is_not_a_message_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not an accepted message"):
        reader().feed(len(body).to_bytes(4, "big") + body)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise_a_protocol_error(data: bytes) -> None:
    frames = reader(limit=1_000)
    try:
        frames.feed(data)
    except ProtocolError:
        return
    assert len(frames.rest) <= len(data)
