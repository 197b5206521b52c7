"""The bytes of a journal: what was written is read, and nothing else is."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.journal import EmptySlot, JournalEntry, ReignEnd
from lockring.journal import codec
from lockring.journal.codec import (
    HEADER_BYTES,
    POSITION_BYTES,
    POSITION_FILE_BYTES,
    POSITION_NAMEPLATE_OFFSET,
    POSITION_OFFSETS,
    RECORD_HEAD_BYTES,
    DurablePosition,
    FileIdentity,
    Flaw,
    OtherFormat,
    Record,
    SegmentHeader,
    decode_entries,
    decode_header,
    decode_nameplate,
    decode_positions,
    encode_entries,
    encode_header,
    encode_nameplate,
    encode_position,
    read_record,
)
from lockring.journal.records import BATCH_BYTES_MAX, Seal
from lockring.protocol.replication import (
    AdvanceGeneration,
    HandOverSlot,
    Put,
    Remove,
    Resume,
    Revoke,
    Snapshot,
)
from tests.unit.journal.batches import CLUSTER, LIFE, entry

HEADER = SegmentHeader(
    number=3,
    first=41,
    follows=39,
    durable=38,
    continues=True,
    salt=(1 << 64) - 1,
    node="n" * 255,
    boot="b",
    machine="m",
    is_synced=True,
    lock=FileIdentity(1, 2, 3),
    itself=FileIdentity(1, 4, 5),
)
SEAL = Seal(77)
ENTRIES: list[JournalEntry] = [
    LIFE,
    CLUSTER,
    Snapshot(1, 5, 0, 2, 9, 8, 0, False, [Put("a", 1, 1, "s", 1, "o", 1000, 8, 1, 5, b"x"), Revoke("s", 2)]),
    entry(12),
    Resume(1, 5, 3, 4, 17),
    EmptySlot(4095, 17),
    ReignEnd(HandOverSlot(1, 5, 3, 9, 11, 8, [Remove("a", "s", 1), AdvanceGeneration("b", 9)])),
]
PAYLOAD = encode_entries(ENTRIES)
RECORD = SEAL.record(PAYLOAD, 41, 40, True)


def test_every_kind_of_entry_comes_back() -> None:
    assert decode_entries(memoryview(PAYLOAD)) == ENTRIES


def test_entries_of_a_later_release_are_not_guessed_at() -> None:
    later = msgspec.msgpack.encode([[99, 1, 2]])
    assert decode_entries(memoryview(later)) is None


def test_a_record_comes_back_from_the_middle_of_others() -> None:
    data = memoryview(b"before" + RECORD + b"behind")
    record = read_record(SEAL, data, len(b"before"))
    assert record == Record(41, 40, True, memoryview(PAYLOAD), len(b"before" + RECORD))


def test_an_empty_batch_has_a_record_too() -> None:
    record = read_record(SEAL, memoryview(SEAL.record(encode_entries([]), 1, 0, False)), 0)
    assert isinstance(record, Record)
    assert not record.ends_rewrite
    assert decode_entries(record.payload) == []


def test_a_record_with_a_flipped_bit_is_never_taken_for_good() -> None:
    for bit in range(8 * len(RECORD)):
        flipped = bytearray(RECORD)
        flipped[bit // 8] ^= 1 << bit % 8
        assert isinstance(read_record(SEAL, memoryview(flipped), 0), Flaw), bit
        assert isinstance(read_record(SEAL, memoryview(flipped + RECORD), 0), Flaw), bit


def test_a_cut_record_says_how_much_is_needed() -> None:
    for length in range(len(RECORD)):
        flaw = read_record(SEAL, memoryview(RECORD[:length]), 0)
        assert flaw == Flaw("cut", RECORD_HEAD_BYTES if length < RECORD_HEAD_BYTES else len(RECORD))


def test_zeros_are_told_from_damage() -> None:
    assert read_record(SEAL, memoryview(bytes(100)), 0) == Flaw("zeros")
    assert read_record(SEAL, memoryview(bytes(99) + RECORD), 0).kind == "zeros"
    assert read_record(SEAL, memoryview(bytes(31) + b"x"), 0) == Flaw("damaged")


def test_a_record_of_another_segment_is_damage() -> None:
    other = Seal(78).record(PAYLOAD, 41, 40, True)
    assert read_record(SEAL, memoryview(other), 0) == Flaw("damaged")
    same_mark = Seal(77 + (1 << 32))
    assert same_mark.mark == SEAL.mark
    assert read_record(same_mark, memoryview(RECORD), 0) == Flaw("damaged")


def test_a_mark_is_never_zeros() -> None:
    assert Seal(0).mark != 0
    assert Seal(5 << 32).mark != 0


def test_a_length_beyond_the_bound_is_damage_and_asks_for_nothing() -> None:
    seal = Seal(77)
    head = bytearray(RECORD[:RECORD_HEAD_BYTES])
    head[8:12] = (BATCH_BYTES_MAX + 1).to_bytes(4, "big")
    assert read_record(seal, memoryview(head), 0) == Flaw("damaged")


def test_a_header_comes_back_from_its_block() -> None:
    block = encode_header(HEADER)
    assert len(block) == HEADER_BYTES
    assert decode_header(block) == HEADER


def test_a_header_with_any_flipped_bit_is_never_taken_for_good() -> None:
    block = encode_header(HEADER)
    used = len(block.rstrip(b"\0"))
    for bit in range(8 * used):
        flipped = bytearray(block)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_header(bytes(flipped)) == Flaw("damaged"), bit


def test_a_cut_header_is_told_from_a_damaged_one() -> None:
    block = encode_header(HEADER)
    for length in range(len(block.rstrip(b"\0"))):
        assert decode_header(block[:length]) == Flaw("cut"), length
    assert decode_header(bytes(HEADER_BYTES)) == Flaw("zeros")


def test_a_header_of_another_format_is_recognised_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "FORMAT_VERSION", 2)
    block = encode_header(HEADER)
    monkeypatch.undo()
    assert decode_header(block) == OtherFormat(2)
    damaged = bytearray(block)
    damaged[40] ^= 1
    assert decode_header(bytes(damaged)) == Flaw("damaged"), "a flipped bit is not another format"


def positions(*stamps: bytes) -> bytes:
    content = bytearray(POSITION_FILE_BYTES)
    for offset, stamp in zip(POSITION_OFFSETS, stamps, strict=False):
        content[offset : offset + len(stamp)] = stamp
    return bytes(content)


def test_the_higher_of_two_positions_counts() -> None:
    assert decode_positions(positions(encode_position(7), encode_position(9))) == (DurablePosition(9), 1)
    assert decode_positions(positions(encode_position(7, 3), encode_position(6))) == (
        DurablePosition(7, 3),
        0,
    )
    assert decode_positions(positions(encode_position(7), encode_position(7, 3))) == (
        DurablePosition(7, 3),
        1,
    )


@given(st.integers(0, POSITION_BYTES), st.binary(max_size=POSITION_BYTES))
def test_a_torn_position_leaves_the_other(cut: int, remains: bytes) -> None:
    torn = encode_position(9)[:cut] + remains[cut:]
    found = decode_positions(positions(encode_position(7), torn))
    assert found == ((DurablePosition(9), 1) if cut == POSITION_BYTES else (DurablePosition(7), 0))


def test_two_damaged_positions_are_none() -> None:
    random = Random(1)
    for _ in range(1000):
        assert decode_positions(random.randbytes(POSITION_FILE_BYTES))[0] is None
    assert decode_positions(b"")[0] is None
    assert decode_positions(bytes(POSITION_FILE_BYTES))[0] is None


def test_a_position_file_says_which_file_it_is_unless_that_is_damaged() -> None:
    itself = FileIdentity((1 << 64) - 1, (1 << 64) - 2, (1 << 32) - 1)
    content = bytearray(POSITION_NAMEPLATE_OFFSET) + encode_nameplate(itself)
    assert len(content) == POSITION_FILE_BYTES
    assert decode_nameplate(bytes(content)) == itself
    for size in range(POSITION_NAMEPLATE_OFFSET + 30):
        assert decode_nameplate(bytes(content[:size])) is None
    for bit in range(8 * 30):
        content[POSITION_NAMEPLATE_OFFSET + bit // 8] ^= 1 << bit % 8
        assert decode_nameplate(bytes(content)) is None
        content[POSITION_NAMEPLATE_OFFSET + bit // 8] ^= 1 << bit % 8
    assert decode_nameplate(bytes(POSITION_FILE_BYTES)) is None
