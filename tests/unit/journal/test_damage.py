"""A journal on real files: torn writes, which are passed over, and damage, which is found and named."""

from __future__ import annotations

import pytest

from lockring.core.journal import ClusterSeen, EmptySlot, JournalBatch
from lockring.journal import journal as journal_module
from lockring.journal.codec import HEADER_BYTES, POSITION_BYTES, POSITION_OFFSETS
from lockring.journal.files import DirectoryFiles
from lockring.journal.journal import POSITION_NAME
from lockring.journal.reading import read_segments, segment_name
from tests.unit.journal.batches import CLUSTER, LIFE, NODE, batch, names_in
from tests.unit.journal.place import REBOOTED, Place, sync


def test_a_torn_write_at_the_end_is_passed_over_by_this_life_and_the_next(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    with place.path(1).open("ab") as file:
        file.write(b"\x01\x02\x03")
    for life in range(2, 5):
        journal = place.start()
        assert journal.found.is_complete
        assert names_in(journal.found.entries) == list(range(1, life))
        journal.append(batch(1, life))
        place.crash()


def test_what_is_dropped_as_a_torn_write_is_named_and_only_by_the_life_that_drops_it(place: Place) -> None:
    assert place.start().cut_off == ""
    place.lives[-1].append(batch(1))
    place.crash()
    end = place.end(1)
    with place.path(1).open("ab") as file:
        file.write(b"\x01\x02\x03")
    assert place.start().cut_off == f"3 bytes behind batch 1 ({segment_name(1)}, from byte {end} on)"
    place.lives[-1].append(batch(1, 2))
    place.crash()
    assert place.start().cut_off == ""


@pytest.mark.parametrize("harm", ["cut", "flip", "zero"])
def test_damage_to_an_unmarked_last_batch_is_named_as_dropped(place: Place, harm: str) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.mark()
    end = place.end(1)
    journal.append(batch(2))
    journal.close(in_order=False)
    content = bytearray(place.path(1).read_bytes())
    size = len(content) - end
    if harm == "cut":
        size -= 5
        del content[-5:]
    elif harm == "flip":
        content[-1] ^= 1
    else:
        content[end:] = bytes(size)
    place.path(1).write_bytes(content)
    again = place.start()
    assert again.reason == ""
    assert again.cut_off == f"{size} bytes behind batch 1 ({segment_name(1)}, from byte {end} on)"


def test_a_last_segment_that_has_batches_and_no_header_is_named_as_dropped(place: Place) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.mark()
    journal.begin_rewrite()
    journal.append(batch(2, 1, 2, ends_rewrite=True))
    journal.close(in_order=False)
    content = bytearray(place.path(2).read_bytes())
    content[20] ^= 1
    place.path(2).write_bytes(content)
    again = place.start()
    assert names_in(again.found.entries) == [1]
    assert again.reason == ""
    assert again.cut_off == f"{len(content)} bytes behind batch 1 ({segment_name(2)}, from byte 0 on)"


def test_a_segment_that_was_about_to_be_made_is_not_named_as_dropped(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    place.path(2).write_bytes(b"\x01\x02\x03")
    again = place.start()
    assert (again.reason, again.cut_off) == ("", "")


def test_room_behind_the_records_is_not_named_as_dropped(place: Place) -> None:
    journal = place.start(durability="disk")
    journal.append(batch(1))
    sync(journal)
    journal.close(in_order=False)
    assert place.path(1).stat().st_size > place.end(1)
    assert place.start(durability="disk").cut_off == ""


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("cut", "a cut record"),
        ("flip", "damaged bytes"),
        ("zero", "zeros"),
    ],
)
def test_a_batch_that_was_answered_for_and_is_gone_is_damage(place: Place, harm: str, words: str) -> None:
    journal = place.start()
    journal.append(batch(1))
    before = place.end(1)
    journal.append(batch(2))
    place.crash()
    content = bytearray(place.path(1).read_bytes())
    size = len(content)
    if harm == "cut":
        size -= 1
        del content[-1]
    elif harm == "flip":
        content[-1] ^= 1
    else:
        content[before:] = bytes(size - before)
    place.path(1).write_bytes(content)
    again = place.start()
    assert names_in(again.found.entries) == [1]
    assert not again.found.is_complete
    assert again.cut_off == ""
    assert again.reason == (
        f"the journal in {place.directory} is damaged: records up to 2 were answered for, but it can be read up to 1 only"
        f" ({segment_name(1)}, from byte {before} of {size} on: {words})"
    )


def test_the_two_stamps_of_the_position_are_written_in_turn_over_the_lower_one(place: Place) -> None:
    for _ in range(2):
        journal = place.start()
        for number in range(1, 4):
            content = (place.directory / POSITION_NAME).read_bytes()
            higher = max(content[offset : offset + POSITION_BYTES] for offset in POSITION_OFFSETS)
            journal.append(batch(number))
            journal.mark()
            assert higher in (place.directory / POSITION_NAME).read_bytes()
        journal.close(in_order=False)


@pytest.mark.parametrize("marked", [False, True])
def test_a_mark_tells_a_damaged_last_batch_from_a_torn_one(place: Place, marked: bool) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.mark()
    journal.append(batch(2))
    if marked:
        journal.mark()
        journal.mark()
    journal.close(in_order=False)
    content = place.path(1).read_bytes()
    place.path(1).write_bytes(content[:-1])
    again = place.start()
    assert names_in(again.found.entries) == [1]
    assert again.found.is_complete == (not marked)


def test_a_bad_batch_is_damage_if_a_later_one_calls_it_durable(place: Place) -> None:
    journal = place.start()
    ends = []
    for number in (1, 2, 3):
        journal.append(batch(number))
        ends.append(place.end(1))
    journal.close(in_order=False)
    content = bytearray(place.path(1).read_bytes())
    content[ends[0] + 20] ^= 1
    place.path(1).write_bytes(content)
    again = place.start()
    assert names_in(again.found.entries) == [1]
    assert "records up to 2 were answered for, but it can be read up to 1 only" in again.reason


def test_a_bad_batch_is_torn_if_a_later_one_knows_only_earlier_ones_as_durable(place: Place) -> None:
    """Unsynced bytes reach the disk in any order."""
    journal = place.start(durability="disk")
    journal.append(batch(1))
    sync(journal)
    end = place.end(1)
    journal.append(batch(2))
    journal.append(batch(3))
    journal.close(in_order=False)
    content = bytearray(place.path(1).read_bytes())
    content[end + 20] ^= 1
    place.path(1).write_bytes(content)
    again = place.start(durability="disk", host=REBOOTED)
    assert names_in(again.found.entries) == [1]
    assert again.found.is_complete


def test_a_batch_that_is_missing_before_a_later_segment_is_damage_even_if_the_position_is_older(
    place: Place,
) -> None:
    journal = place.start(durability="disk")
    position = (place.directory / POSITION_NAME).read_bytes()
    journal.append(batch(1))
    sync(journal)
    end = place.end(1)
    journal.append(batch(2))
    journal.begin_rewrite()
    journal.append(batch(3))
    sync(journal)
    journal.append(batch(4))
    journal.close(in_order=False)
    place.path(1).write_bytes(place.path(1).read_bytes()[:end])
    (place.directory / POSITION_NAME).write_bytes(position)
    again = place.start(durability="disk")
    assert names_in(again.found.entries) == [1]
    assert "records up to 3 were answered for, but it can be read up to 1 only" in again.reason


def test_room_behind_the_records_is_the_end_of_a_segment_and_does_not_count(place: Place) -> None:
    journal = place.start(durability="disk")
    journal.append(batch(1))
    sync(journal)
    end = place.end(1)
    assert place.path(1).stat().st_size > end
    place.crash()
    again = place.start(durability="disk", host=REBOOTED)
    assert (again.reason, names_in(again.found.entries)) == ("", [1])


def test_room_of_less_than_the_head_of_a_record_is_an_end_too(place: Place) -> None:
    for zeros in range(1, 40):
        place.start(durability="process").append(batch(1, zeros))
        place.crash()
        (name, *_) = reversed(place.segments())
        with (place.directory / name).open("ab") as file:
            file.write(bytes(zeros))
    journal = place.start()
    assert (journal.reason, names_in(journal.found.entries)) == ("", list(range(1, 40)))


def test_zeros_in_the_place_of_a_batch_that_was_answered_for_are_damage(place: Place) -> None:
    journal = place.start(durability="disk")
    end = place.end(1)
    journal.append(batch(1))
    sync(journal)
    place.crash()
    content = place.path(1).read_bytes()
    place.path(1).write_bytes(content[:end].ljust(len(content), b"\0"))
    again = place.start(durability="disk")
    assert f"from byte {end} of {len(content)} on: zeros" in again.reason


def test_a_torn_batch_before_the_room_is_found_and_a_good_one_behind_zeros_too(place: Place) -> None:
    journal = place.start(durability="disk")
    ends = [place.end(1)]
    for number in (1, 2, 3):
        journal.append(batch(number))
        sync(journal)
        ends.append(place.end(1))
    journal.close(in_order=False)
    content = place.path(1).read_bytes()
    torn = content[: ends[3] - 5].ljust(len(content), b"\0")
    place.path(1).write_bytes(torn)
    found = read_segments(DirectoryFiles(place.directory), NODE)
    assert (found.reached, found.answered, found.is_damaged) == (2, 1, False)
    assert found.gap is not None and found.gap.kind == "damaged"
    lost = content[: ends[0]] + bytes(ends[1] - ends[0]) + content[ends[1] :]
    place.path(1).write_bytes(lost)
    found = read_segments(DirectoryFiles(place.directory), NODE)
    assert (found.reached, found.answered, found.is_damaged) == (0, 2, True)


def test_a_good_batch_behind_damage_counts_although_it_ends_with_zeros(place: Place) -> None:
    """A zero is not yet the room behind it."""
    journal = place.start(durability="disk")
    journal.append(batch(1))
    sync(journal)
    end = place.end(1)
    journal.append(batch(2))
    sync(journal)
    journal.append(JournalBatch(3, [EmptySlot(0, 0)], True, False))
    journal.close(in_order=False)
    content = bytearray(place.path(1).read_bytes())
    content[end + 20] ^= 1
    place.path(1).write_bytes(content)
    assert "records up to 2 were answered for, but it can be read up to 1 only" in place.start().reason


def test_a_segment_that_is_missing_is_damage(place: Place) -> None:
    for life in range(1, 4):
        place.start().append(batch(1, life))
        place.crash()
    place.path(2).unlink()
    journal = place.start()
    assert names_in(journal.found.entries) == [1]
    assert f"({segment_name(3)}, from byte 0 of " in journal.reason
    assert journal.reason.endswith(": records are missing)")


def test_a_first_segment_that_is_missing_is_damage(place: Place) -> None:
    for life in range(1, 3):
        place.start().append(batch(1, life))
        place.crash()
    place.path(1).unlink()
    journal = place.start()
    assert journal.found.entries == []
    assert "is damaged" in journal.reason


def test_missing_segments_are_damage(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    place.path(1).unlink()
    journal = place.start()
    assert (
        journal.reason == f"the journal in {place.directory} is damaged: it has no segment that can be read"
    )
    assert not journal.is_new


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_journal_without_a_valid_position_is_not_vouched_for(place: Place, harm: str) -> None:
    place.start().append(batch(1))
    place.crash()
    if harm == "missing":
        (place.directory / POSITION_NAME).unlink()
    else:
        (place.directory / POSITION_NAME).write_bytes(b"x" * 600)
    assert place.start().reason == (
        f"the journal in {place.directory} has no valid file named position, so a part of it may be missing"
    )
    place.crash()
    assert place.start().found.is_complete, "the life before began afresh"


def test_a_damaged_header_of_a_segment_with_batches_is_damage(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    place.start().append(batch(1, 2))
    place.crash()
    content = bytearray(place.path(2).read_bytes())
    content[50] ^= 1
    place.path(2).write_bytes(content)
    journal = place.start()
    assert names_in(journal.found.entries) == [1]
    assert "is damaged" in journal.reason
    assert segment_name(2) in journal.reason


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_segment_whose_making_was_interrupted_is_passed_over(place: Place, size: int) -> None:
    place.start().append(batch(1))
    place.crash()
    place.path(2).write_bytes(place.path(1).read_bytes()[:size])
    journal = place.start()
    assert journal.found.is_complete
    assert place.segments()[-1] == segment_name(3)
    journal.append(batch(1, 2))
    place.crash()
    assert names_in(place.start().found.entries) == [1, 2]


def test_entries_of_a_later_release_are_named_as_the_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.start()
    journal.append(batch(1))
    before = place.end(1)
    monkeypatch.setattr(journal_module, "_encode", lambda _: b"\x91\x93\x63\x01\x02")
    journal.append(batch(2))
    place.crash()
    again = place.start()
    assert not again.found.is_complete
    assert again.reason.endswith(
        f" (from byte {before} on, {segment_name(1)} has entries of a later release)"
    )


def test_a_life_after_damage_is_vouched_for_again_with_what_it_wrote_itself(place: Place) -> None:
    journal = place.start()
    journal.append(JournalBatch(1, [CLUSTER], True, False))
    journal.append(batch(2))
    place.crash()
    content = bytearray(place.path(1).read_bytes())
    content[HEADER_BYTES + 40] ^= 1
    place.path(1).write_bytes(content)
    damaged = place.start()
    assert "is damaged" in damaged.reason
    damaged.append(JournalBatch(1, [LIFE, ClusterSeen("d", 1, 1)], True, False))
    place.crash()
    again = place.start()
    assert again.found == ([LIFE, ClusterSeen("d", 1, 1)], True)


def test_a_life_after_a_cut_is_vouched_for_though_the_position_was_beyond_the_cut(place: Place) -> None:
    journal = place.start()
    journal.append(batch(1))
    end = place.end(1)
    for number in range(2, 9):
        journal.append(batch(number))
    place.crash()
    place.path(1).write_bytes(place.path(1).read_bytes()[:end])
    assert "is damaged" in place.start().reason
    place.crash()
    assert place.start().found == ([], True)
