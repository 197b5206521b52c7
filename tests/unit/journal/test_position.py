"""The position file after it was damaged: the next lives can rely on it again."""

from __future__ import annotations

from random import Random

from lockring.journal.journal import POSITION_NAME, Journal
from tests.unit.journal.batches import NODE, batch
from tests.unit.journal.faulty_disk import FaultyDisk


def life(disk: FaultyDisk) -> Journal:
    """Begin a life on the journal of the disk."""
    return Journal(disk.files(), node=NODE, durability="disk", host=disk.host)


def write(journal: Journal, number: int) -> None:
    """Write a batch, and sync everything but the position file, as always."""
    journal.append(batch(number, ends_rewrite=number == 1))
    point = journal.sync_point()
    assert point is not None
    for file, size in point.parts:
        file.sync(size)
    journal.complete(point)


def test_a_damaged_position_file_is_mended_for_good_by_the_next_life() -> None:
    for seed in range(10):
        disk = FaultyDisk(Random(seed))
        write(life(disk), 1)
        disk.kill()
        disk.truncate(POSITION_NAME, 3)
        doubting = life(disk)
        assert "position" in doubting.reason
        write(doubting, 1)
        disk.lose_power()
        assert life(disk).reason == "", f"seed {seed}: what it has is whole, and can be vouched for"
