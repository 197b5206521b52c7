"""The room that a segment is given ahead of its records: where it is given, where it ends, and where there is none."""

from __future__ import annotations

import resource
import signal
from random import Random

import pytest

from lockring.errors import JournalError
from lockring.journal.codec import HEADER_BYTES
from lockring.journal.files import DirectoryFiles
from lockring.journal.journal import Durability, Journal
from lockring.journal.reading import segment_name
from tests.unit.journal.batches import NODE, batch, names_in
from tests.unit.journal.faulty_disk import RESERVE_BYTES, FaultyDisk
from tests.unit.journal.place import Place, sync


def size(place: Place, number: int = 1) -> int:
    return place.path(number).stat().st_size


def fill(journal: Journal) -> int:
    """Append and sync until that fails, and return the number of the last batch that was synced."""
    for number in range(1, 10_000):
        try:
            journal.append(batch(number))
        except JournalError:
            return number - 1
        sync(journal)
    raise AssertionError("the disk has no end")


def test_a_segment_that_is_synced_has_room_ahead_of_its_records(place: Place) -> None:
    journal = place.start(durability="disk")
    journal.append(batch(1))
    before = size(place)
    for number in range(2, 50):
        journal.append(batch(number))
        sync(journal)
    assert size(place) == before > place.end(1)


def test_a_segment_that_is_only_written_has_none(place: Place) -> None:
    journal = place.start(durability="process")
    assert size(place) == HEADER_BYTES
    journal.append(batch(1))
    assert size(place) == place.end(1)


def test_the_room_is_given_again_before_it_is_used_up() -> None:
    disk = FaultyDisk(Random(1))
    journal = Journal(disk.files(), node=NODE, durability="disk", host=disk.host)
    lengths = set()
    for number in range(1, 30):
        journal.append(batch(number))
        sync(journal)
        lengths.add(disk.size_of(segment_name(1)))
    assert len(lengths) > 3
    assert all(length % RESERVE_BYTES == 0 for length in lengths)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_an_end_in_order_gives_the_room_back(place: Place, durability: Durability) -> None:
    journal = place.start(durability=durability)
    journal.append(batch(1))
    end = place.end(1)
    journal.close()
    assert size(place) == end
    again = place.start(durability=durability)
    assert (again.reason, names_in(again.found.entries)) == ("", [1])


def test_a_disk_without_room_for_more_takes_records_as_long_as_it_can() -> None:
    disk = FaultyDisk(Random(1))
    journal = Journal(disk.files(), node=NODE, durability="disk", host=disk.host)
    disk.free_bytes = RESERVE_BYTES - 1
    written = fill(journal)
    assert written > 1
    assert disk.free_bytes == 0
    disk.lose_power()
    disk.free_bytes = None
    again = Journal(disk.files(), node=NODE, durability="process", host=disk.host)
    assert names_in(again.found.entries) == list(range(1, written + 1))


def test_a_limit_below_the_room_does_no_harm_before_it_is_reached(place: Place) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        journal = place.start(durability="disk")
        number = fill(journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    assert number > 50
    place.crash()
    again = place.start(durability="disk")
    assert (again.reason, names_in(again.found.entries)) == ("", list(range(1, number + 1)))


def test_a_file_can_be_given_room_and_be_cut(place: Place) -> None:
    files = DirectoryFiles(place.directory)
    file = files.create("a")
    file.write(b"text", 0)
    file.reserve(10_000)
    assert file.size() == 10_000
    assert file.read(20_000, 0) == b"text" + bytes(9_996)
    file.reserve(100)
    assert file.size() == 10_000
    file.cut(4)
    assert file.read(100, 0) == b"text"
    file.close()
    files.unlock()
