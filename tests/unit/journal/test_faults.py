"""A journal through the life of a disk: cuts, lost syncs, full disks, flipped bits, and older copies.

Each story is drawn from its seed: lives of a node, one after the other, on one disk. The node in them keeps a growing
set of names, writes all of it again when a life begins, and counts a name as answered for once the journal says that it
is durable.
"""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from lockring.core.journal import JournalBatch
from lockring.errors import JournalError
from lockring.journal.codec import HEADER_BYTES
from lockring.journal.files import LOCK_NAME
from lockring.journal.journal import POSITION_NAME, Durability, Journal
from lockring.journal.reading import read_segments, segment_name
from tests.unit.journal.batches import NODE, batch, names_in
from tests.unit.journal.faulty_disk import FaultyDisk, ProcessKilled
from tests.unit.journal.place import sync

ENDS = ("kill", "torn write", "loss of power", "close")


class Node:
    """A node over all of its lives.

    Attributes:
        names: all that it holds.
        answered: the names that must never be lost.
    """

    def __init__(self, seed: int, durability: Durability) -> None:
        self.random = Random(seed)
        self.disk = FaultyDisk(self.random)
        self.durability: Durability = durability
        self.names: set[int] = set()
        self.answered: set[int] = set()
        self.journal = self._open()
        self._waiting: dict[int, set[int]] = {}
        self._number = 0
        self._last = 0

    def _open(self) -> Journal:
        return Journal(self.disk.files(), node=NODE, durability=self.durability, host=self.disk.host)

    # ------------------------------------------------------------------- one life

    def live(self, turns: int) -> None:
        """Add names, sync now and then, and write everything again now and then."""
        for _ in range(turns):
            if self.journal.has_failed or self.random.random() < 0.1:
                self.rewrite()
            else:
                self.add()
            if self.random.random() < 0.4:
                self.sync()

    def add(self) -> None:
        self._last += 1
        self.names.add(self._last)
        self._append([self._last], ends_rewrite=False)

    def rewrite(self) -> None:
        """Write everything again, in two batches with another one in between."""
        try:
            self.journal.begin_rewrite()
        except JournalError:
            return
        all_names = sorted(self.names)
        self._append(all_names[::2], ends_rewrite=False)
        if self.random.random() < 0.5 and not self.journal.has_failed:
            self.add()
        if self.random.random() < 0.8:
            self._append(all_names[1::2], ends_rewrite=True)

    def _append(self, names: list[int], *, ends_rewrite: bool) -> None:
        if self.journal.has_failed:
            return
        self._number += 1
        try:
            self.journal.append(
                batch(self._number, *names, ends_rewrite=ends_rewrite)
                if names
                else JournalBatch(self._number, [], True, ends_rewrite)
            )
        except JournalError:
            self._waiting.clear()  # the core knows all of these as lost
            return
        self._waiting[self._number] = set(names)
        if self.durability == "process":
            self._answer(self._number)

    def sync(self) -> None:
        """Sync; a few batches may be appended before the outcome is known."""
        point = self.journal.sync_point()
        if point is None:
            return
        chance = self.random.random()
        if chance < 0.3:
            self.add()
        if chance < 0.1:
            self.rewrite()
        try:
            self.journal.perform(point)
        except OSError as error:
            self.journal.fail(error)
            self._waiting.clear()
            return
        if self.journal.complete(point):
            self._answer(point.number)

    def _answer(self, number: int) -> None:
        for each in sorted(self._waiting):
            if each <= number:
                self.answered |= self._waiting.pop(each)
        try:
            self.journal.mark()
        except JournalError:
            self._waiting.clear()

    # ------------------------------------------------------------------- between two lives

    def end(self, how: str) -> None:
        if how == "torn write":
            self.disk.torn_after = self.random.randint(0, 90)
            with contextlib.suppress(ProcessKilled):
                self.add()
            self.disk.kill()
        elif how == "kill":
            self.disk.kill()
        elif how == "loss of power":
            self.disk.lose_power()
        else:
            self.journal.close()
            if self.random.random() < 0.5:
                self.disk.lose_power()

    def start(self) -> None:
        """Begin the next life: what is vouched for is taken over, all else is forgotten."""
        self.journal = self._open()
        found = set(names_in(self.journal.found.entries))
        assert found <= self.names, "something was found that was never written"
        if self.journal.found.is_complete:
            assert self.answered <= found, "something that was answered for is missing"
            self.names = found
        else:
            self.names, self.answered = set(), set()
        self._waiting.clear()
        self._number = 0
        if self.random.random() < 0.7:
            for name in sorted(self.names):
                self._append([name], ends_rewrite=False)
            self._append([], ends_rewrite=True)


def survives(end: str, durability: Durability) -> bool:
    """Whether the next life must be able to vouch for what it finds."""
    return end != "loss of power" or durability == "disk"


@pytest.mark.parametrize("block", range(10))
def test_1000_cuts_at_a_random_byte_lose_nothing_that_was_synced(block: int) -> None:
    shortened = 0
    for seed in range(100 * block, 100 * block + 100):
        node = Node(seed, "disk")
        for _ in range(node.random.randint(1, 4)):
            node.live(node.random.randint(0, 25))
            written = set(node.names)
            node.end("loss of power")
            node.start()
            assert node.journal.found.is_complete, (seed, node.journal.reason)
            shortened += node.names < written
    assert shortened > 100, "most cuts took nothing that was written"


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_every_end_is_judged_rightly(durability: Durability) -> None:
    judged = dict.fromkeys(ENDS, 0)
    for seed in range(300):
        node = Node(seed, durability)
        for _ in range(node.random.randint(1, 6)):
            node.live(node.random.randint(0, 20))
            end = node.random.choice(ENDS)
            node.end(end)
            node.start()
            assert node.journal.found.is_complete == survives(end, durability), (
                seed,
                end,
                node.journal.reason,
            )
            judged[end] += 1
    assert min(judged.values()) > 100


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_disk_that_is_full_or_fails_for_a_while_loses_nothing_that_was_answered_for(
    durability: Durability,
) -> None:
    failures = 0
    for seed in range(200):
        node = Node(seed, durability)
        for _ in range(node.random.randint(1, 4)):
            node.live(node.random.randint(0, 10))
            fault = node.random.choice(("full", "writes", "syncs", "none"))
            if fault == "full":
                node.disk.free_bytes = node.random.choice((0, node.random.randint(0, 6000)))
            node.disk.fails_writes = fault == "writes"
            node.disk.fails_syncs = fault == "syncs"
            node.live(node.random.randint(0, 12))
            failures += node.journal.has_failed
            is_mended_first = node.random.random() < 0.5
            if is_mended_first:
                node.disk.free_bytes, node.disk.fails_writes, node.disk.fails_syncs = None, False, False
                node.live(node.random.randint(0, 12))
            end = node.random.choice(("kill", "loss of power"))
            node.end(end)
            node.disk.free_bytes, node.disk.fails_writes, node.disk.fails_syncs = None, False, False
            node.start()
            assert node.journal.found.is_complete == survives(end, durability), (seed, node.journal.reason)
    assert failures > 50


def test_what_a_former_life_failed_to_sync_is_written_once_more_before_a_life_builds_on_it() -> None:
    for seed in range(20):
        disk = FaultyDisk(Random(seed))
        journal = _opened(disk)
        journal.append(batch(1, 1))
        sync(journal)
        journal.append(batch(2, 2))
        point = journal.sync_point()
        assert point is not None
        disk.fails_syncs = True
        with pytest.raises(OSError, match="Input/output error"):
            journal.perform(point)
        disk.kill()
        disk.fails_syncs = False

        found = _opened(disk).found
        assert (found.is_complete, names_in(found.entries)) == (True, [1, 2]), "it can still be read"
        disk.kill()
        disk.lose_power()
        assert _opened(disk).found == found, seed


def _opened(disk: FaultyDisk) -> Journal:
    return Journal(disk.files(), node=NODE, durability="disk", host=disk.host)


def test_segments_do_not_pile_up_while_a_disk_is_full() -> None:
    node = Node(1, "process")
    node.live(20)
    node.disk.free_bytes = HEADER_BYTES + 10
    node.live(3)
    while not node.journal.has_failed:
        node.add()
    node.disk.free_bytes = HEADER_BYTES + 10
    before = len(node.disk.names())
    for _ in range(50):
        node.rewrite()
        assert node.journal.has_failed
    assert len(node.disk.names()) <= before + 1
    node.disk.free_bytes = None
    while node.journal.has_failed or len(node.disk.names()) > 3:
        node.rewrite()
        node.sync()
    node.end("kill")
    node.start()
    assert node.journal.found.is_complete


@pytest.mark.parametrize("end", ["kill", "loss of power"])
def test_a_flipped_bit_is_never_taken_for_good(end: str) -> None:
    noticed = 0
    for seed in range(600):
        node = Node(seed, "disk")
        node.live(node.random.randint(1, 15))
        node.sync()
        node.journal.sync_position()
        node.end(end)
        name = node.random.choice([each for each in node.disk.names() if node.disk.size_of(each)])
        node.disk.flip_bit(name, node.random.randrange(8 * node.disk.size_of(name)))
        node.start()
        noticed += not node.journal.found.is_complete
    assert noticed > 20


def test_each_flipped_bit_of_a_batch_that_was_answered_for_is_damage() -> None:
    for ends in ("kill", "loss of power"):
        size = 0
        for bit in range(2000):
            node = Node(5, "disk")
            node.add()
            node.add()
            node.sync()
            node.journal.sync_position()
            node.end(ends)
            used = read_segments(node.disk.files(), NODE).used
            size = 8 * (sum([each.size for each in used]) - HEADER_BYTES)
            if bit >= size:
                break
            node.disk.flip_bit(segment_name(1), 8 * HEADER_BYTES + bit)
            node.start()
            assert not node.journal.found.is_complete
        assert 0 < size < 2000


@pytest.mark.parametrize("in_place", [False, True])
def test_an_older_copy_is_found_whenever_it_was_made(in_place: bool) -> None:
    for seed in range(300):
        node = Node(seed, node_durability(seed))
        node.live(node.random.randint(0, 15))
        copy = node.disk.copy()
        node.live(node.random.randint(0, 15))
        node.end(node.random.choice(("kill", "loss of power")))
        node.disk.put_back(copy, in_place=in_place)
        node.start()
        assert not node.journal.found.is_complete, seed


def node_durability(seed: int) -> Durability:
    return "disk" if seed % 2 else "process"


def test_a_position_file_without_a_valid_stamp_is_repaired_for_good() -> None:
    for seed in range(20):
        node = Node(seed, "disk")
        node.live(5)
        node.end("kill")
        node.disk.truncate(POSITION_NAME, seed % 4)
        node.start()
        assert not node.journal.found.is_complete
        node.live(5)
        node.end("loss of power")
        node.start()
        assert node.journal.found.is_complete


def test_a_file_that_is_lost_is_never_overlooked() -> None:
    for seed in range(200):
        node = Node(seed, node_durability(seed))
        node.live(node.random.randint(1, 20))
        node.end("kill")
        node.disk.delete(node.random.choice(node.disk.names()))
        node.start()


def test_a_lost_directory_is_new() -> None:
    node = Node(1, "disk")
    node.live(20)
    node.end("kill")
    node.disk.lose_directory()
    node.start()
    assert node.journal.is_new
    assert node.journal.found == ([], False)


def test_a_disk_in_another_machine_is_not_vouched_for() -> None:
    node = Node(1, "disk")
    node.live(20)
    node.sync()
    node.disk.change_machine("x" * 32)
    node.start()
    assert "another machine" in node.journal.reason


def test_what_a_former_life_left_unsynced_is_synced_before_it_is_built_on() -> None:
    node = Node(1, "disk")
    for _ in range(5):
        node.add()
    node.end("kill")
    journal = Journal(node.disk.files(), node=NODE, durability="disk", host=node.disk.host)
    assert names_in(journal.found.entries) == [1, 2, 3, 4, 5]
    node.disk.lose_power()
    journal = Journal(node.disk.files(), node=NODE, durability="disk", host=node.disk.host)
    assert names_in(journal.found.entries) == [1, 2, 3, 4, 5]
    assert journal.found.is_complete


def test_the_lock_and_the_position_are_files_of_their_own() -> None:
    assert Node(1, "disk").disk.names() == [segment_name(1), LOCK_NAME, POSITION_NAME]
