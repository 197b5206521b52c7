"""A journal on real files: what a new life finds, whether it may vouch for it, and what people read if not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.core.journal import ClusterSeen, JournalBatch
from lockring.errors import JournalError
from lockring.journal import codec
from lockring.journal import journal as journal_module
from lockring.journal.codec import HEADER_BYTES, POSITION_BYTES, POSITION_OFFSETS
from lockring.journal.files import LOCK_NAME, DirectoryFiles
from lockring.journal.host import Host
from lockring.journal.journal import POSITION_NAME, Durability, Journal
from lockring.journal.reading import segment_name
from tests.unit.journal.batches import CLUSTER, LIFE, NODE, batch, names_in

HERE = Host("boot-1", "m" * 32)
REBOOTED = HERE._replace(boot="boot-2")
ELSEWHERE = Host("boot-9", "x" * 32)
IN_A_CONTAINER = Host("boot-3", "")


class Place:
    """A directory, and the lives that have used it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lives: list[Journal] = []

    def start(self, *, durability: Durability = "process", host: Host = HERE, node: str = NODE) -> Journal:
        self.lives.append(
            Journal(DirectoryFiles(self.directory), node=node, durability=durability, host=host)
        )
        return self.lives[-1]

    def crash(self) -> None:
        """The process dies after its answers have left."""
        self.lives[-1].mark()
        self.lives[-1].close(in_order=False)

    def path(self, number: int) -> Path:
        return self.directory / segment_name(number)

    def segments(self) -> list[str]:
        return sorted(path.name for path in self.directory.glob("*.log"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "journal")
    yield made
    for life in made.lives:
        life.close(in_order=False)


def sync(journal: Journal) -> None:
    point = journal.sync_point()
    assert point is not None
    journal.perform(point)
    assert journal.complete(point)


def rewrite(journal: Journal, number: int, *names: int) -> None:
    """Write everything again in one batch."""
    journal.begin_rewrite()
    journal.append(batch(number, *names, ends_rewrite=True))


# ------------------------------------------------------------------------- what is found


def test_a_new_directory_holds_nothing_and_is_called_new(place: Place) -> None:
    journal = place.start()
    assert journal.found == ([], False)
    assert journal.is_new
    assert journal.reason == f"the journal in {place.directory} is new"
    assert sorted(path.name for path in place.directory.iterdir()) == [
        segment_name(1),
        LOCK_NAME,
        POSITION_NAME,
    ]


def test_all_batches_of_a_life_that_crashed_are_found_in_order(place: Place) -> None:
    journal = place.start()
    journal.append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    for number in range(2, 100):
        journal.append(batch(number))
    place.crash()
    again = place.start()
    assert again.found.entries[:2] == [LIFE, CLUSTER]
    assert names_in(again.found.entries) == list(range(2, 100))
    assert again.found.is_complete
    assert again.reason == ""
    assert not again.is_new
    assert (again.found_segments, again.found_bytes) == (1, place.path(1).stat().st_size)


def test_the_batches_of_several_lives_are_found_together(place: Place) -> None:
    for life in range(5):
        journal = place.start()
        assert names_in(journal.found.entries) == list(range(1, life + 1))
        journal.append(batch(1, life + 1))
        place.crash()
    assert place.start().found.is_complete


def test_what_was_found_is_let_go_of_and_still_counts_as_complete(place: Place) -> None:
    place.start().append(batch(1, 1))
    place.crash()
    life = place.start()
    assert life.found.entries
    life.forget_found()
    assert life.found == ([], True)


def test_a_batch_longer_than_what_is_read_at_once_is_found(place: Place) -> None:
    journal = place.start()
    journal.append(batch(1, *range(1, 30_000)))
    journal.append(batch(2, 30_000))
    place.crash()
    assert place.path(1).stat().st_size > 1024 * 1024
    assert names_in(place.start().found.entries) == list(range(1, 30_001))


def test_a_sigkill_loses_nothing_that_was_written(place: Place) -> None:
    program = (
        "import sys\n"
        "from lockring.journal.files import DirectoryFiles\n"
        "from lockring.journal.journal import Journal\n"
        "from tests.unit.journal.batches import NODE, batch\n"
        "from tests.unit.journal.test_journal import HERE\n"
        "journal = Journal(DirectoryFiles(sys.argv[1]), node=NODE, durability='process', host=HERE)\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    journal.append(batch(number))\n"
        "    if number % 100 == 0:\n        print(number, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(place.directory)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as process:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.send_signal(signal.SIGKILL)
        answered = max([answered, *(int(line) for line in process.stdout.read().split())])
    journal = place.start()
    names = names_in(journal.found.entries)
    assert names == list(range(1, len(names) + 1))
    assert len(names) >= answered >= 2000
    assert journal.found.is_complete


# ------------------------------------------------------------------------- rewrites


def test_a_rewrite_stands_for_everything_before_it_and_old_segments_go_once_it_is_synced(
    place: Place,
) -> None:
    journal = place.start()
    for number in range(1, 10):
        journal.append(batch(number))
    journal.begin_rewrite()
    journal.append(batch(10, 100, 101))
    journal.append(batch(11, 102, ends_rewrite=True))
    journal.append(batch(12))
    assert place.segments() == [segment_name(1), segment_name(2)]
    sync(journal)
    assert place.segments() == [segment_name(2)]
    assert journal.sync_point() is None
    place.crash()
    again = place.start()
    assert names_in(again.found.entries) == [100, 101, 102, 12]
    assert again.found.is_complete


def test_a_rewrite_that_ended_counts_even_while_old_segments_are_there(place: Place) -> None:
    journal = place.start()
    journal.append(batch(1))
    rewrite(journal, 2, 100)
    place.crash()
    assert place.segments() == [segment_name(1), segment_name(2)]
    assert names_in(place.start().found.entries) == [100]


def test_a_rewrite_that_was_interrupted_leaves_what_was_before_it(place: Place) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.begin_rewrite()
    journal.append(batch(2))
    place.crash()
    again = place.start()
    assert names_in(again.found.entries) == [1, 2]
    assert again.found.is_complete


def test_the_first_rewrite_of_a_life_deletes_the_segments_of_former_ones(place: Place) -> None:
    for life in range(1, 4):
        place.start().append(batch(1, life))
        place.crash()
    journal = place.start()
    journal.append(batch(1, 1, 2, 3, ends_rewrite=True))
    sync(journal)
    assert place.segments() == [segment_name(4)]


def test_a_log_is_due_for_a_rewrite_once_it_has_outgrown_the_last_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "REWRITE_BYTES_MIN", HEADER_BYTES + 5_000)
    journal = place.start()
    journal.append(batch(1, *range(1, 100)))
    assert not journal.is_due_for_rewrite, "the first rewrite of the life is under way"
    journal.append(batch(2, ends_rewrite=True))
    size = place.path(1).stat().st_size
    number = 2
    while not journal.is_due_for_rewrite:
        number += 1
        journal.append(batch(number))
    assert place.path(1).stat().st_size > 2 * size
    journal.begin_rewrite()
    assert not journal.is_due_for_rewrite


def test_the_cluster_is_remembered_even_if_the_rewrite_has_no_word_of_it(place: Place) -> None:
    journal = place.start()
    journal.append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    rewrite(journal, 2, 100)
    place.crash()
    again = place.start()
    assert again.found.entries[0] == CLUSTER
    assert names_in(again.found.entries) == [100]


# ------------------------------------------------------------------------- machines, boots and ends


@pytest.mark.parametrize(
    ("durability", "host", "reason"),
    [
        ("process", HERE, ""),
        ("disk", HERE, ""),
        ("disk", REBOOTED, ""),
        (
            "process",
            REBOOTED,
            "was last written before this boot of the machine, with the durability process, which does not outlive",
        ),
        ("process", ELSEWHERE, "was last written on another machine"),
        ("disk", ELSEWHERE, "was last written on another machine"),
    ],
)
def test_what_a_lock_proves_depends_on_machine_boot_and_durability(
    place: Place, durability: Durability, host: Host, reason: str
) -> None:
    journal = place.start(durability=durability)
    journal.append(JournalBatch(1, [CLUSTER], True, False))
    sync(journal)
    place.crash()
    again = place.start(durability="disk", host=host)
    assert again.found.is_complete == (not reason)
    assert reason in again.reason
    assert again.found.entries == [CLUSTER], "the cluster is known in any case"


def test_a_container_without_an_id_of_its_machine_is_trusted_within_one_boot_only(place: Place) -> None:
    place.start(durability="disk", host=IN_A_CONTAINER).append(batch(1))
    place.crash()
    assert place.start(durability="disk", host=IN_A_CONTAINER).found.is_complete
    place.crash()
    assert not place.start(durability="disk", host=IN_A_CONTAINER._replace(boot="boot-4")).found.is_complete


def test_an_unknown_boot_proves_nothing(place: Place) -> None:
    place.start(host=Host("", "")).append(batch(1))
    place.crash()
    assert not place.start(host=Host("", "")).found.is_complete


@pytest.mark.parametrize("host", [HERE, REBOOTED, ELSEWHERE, Host("", "")])
def test_a_life_that_ended_in_order_says_so_itself(place: Place, host: Host) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.close()
    journal.close()
    again = place.start(host=host)
    assert again.found.is_complete
    assert names_in(again.found.entries) == [1]


def test_the_word_of_one_life_that_it_is_over_does_not_count_for_the_next(place: Place) -> None:
    place.start().close()
    place.start(host=REBOOTED)
    place.crash()
    assert not place.start(host=HERE).found.is_complete


def test_a_life_that_cannot_vouch_begins_the_journal_afresh(place: Place) -> None:
    """Otherwise the life after it, in the same boot, would vouch for content that may be incomplete."""
    journal = place.start()
    journal.append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    place.crash()
    unsure = place.start(host=REBOOTED)
    assert unsure.found.entries == [LIFE, CLUSTER]
    place.crash()
    again = place.start(host=REBOOTED)
    assert again.found.is_complete
    assert again.found.entries == [CLUSTER]


def test_a_failure_before_the_first_batch_still_begins_the_journal_afresh(place: Place) -> None:
    place.start().append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    place.crash()
    unsure = place.start(host=REBOOTED, durability="disk")
    unsure.begin_rewrite()
    assert place.segments() == [segment_name(1), segment_name(2)], "an empty segment is used again"
    unsure.append(batch(1))
    unsure.fail(OSError(5, "a sync failed"))
    unsure.begin_rewrite()
    place.crash()
    assert place.start(host=REBOOTED).found.entries == [CLUSTER]


# ------------------------------------------------------------------------- other directories


def test_another_node_s_journal_is_refused(place: Place) -> None:
    place.start()
    place.crash()
    with pytest.raises(JournalError) as caught:
        place.start(node="n2")
    assert str(caught.value) == (
        f"the journal in {place.directory} belongs to the node 'n1', not to 'n2'; start that node, or name another directory"
        " with --data-dir"
    )
    assert place.start().found.is_complete, "it was left as it was, and unlocked"


def test_another_format_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "FORMAT_VERSION", 7)
    place.start()
    place.crash()
    monkeypatch.undo()
    with pytest.raises(JournalError) as caught:
        place.start()
    assert str(caught.value) == (
        f"the journal in {place.directory} has format 7, but this release reads 1; start the release that wrote it, or name"
        " another directory with --data-dir"
    )


def test_a_directory_in_use_is_refused(place: Place) -> None:
    first = place.start()
    with pytest.raises(JournalError, match=f"is in use by another node \\(process {os.getpid()}\\)"):
        place.start()
    first.append(batch(1))


def test_a_copy_of_the_directory_is_found(place: Place) -> None:
    place.start().append(batch(1))
    copy = place.directory.with_name("copy")
    shutil.copytree(place.directory, copy)
    place.lives[-1].append(batch(2))
    place.crash()
    shutil.rmtree(place.directory)
    copy.rename(place.directory)
    journal = place.start()
    assert not journal.found.is_complete
    assert journal.reason.startswith(f"the journal in {place.directory} is a copy: its file ")


@pytest.mark.parametrize("name", [LOCK_NAME, POSITION_NAME, segment_name(1)])
def test_a_copy_of_any_one_file_is_found(place: Place, name: str) -> None:
    place.start().append(batch(1))
    place.crash()
    path = place.directory / name
    shutil.copy2(path, path.with_name("copy"))
    path.unlink()
    path.with_name("copy").rename(path)
    assert place.start().reason == (
        f"the journal in {place.directory} is a copy: its file {name} is not the one that the node wrote"
    )


def test_an_older_copy_over_the_files_with_their_times_is_found(place: Place) -> None:
    place.start().append(batch(1))
    copy = place.directory.with_name("copy")
    shutil.copytree(place.directory, copy)
    for path in copy.iterdir():
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 60 * 10**9))
    former = place.lives[-1]
    former.append(batch(2))
    former.mark()
    former.renew_position()
    place.crash()
    shutil.copytree(copy, place.directory, dirs_exist_ok=True)
    journal = place.start()
    assert names_in(journal.found.entries) == [1]
    assert not journal.found.is_complete
    assert journal.reason == (
        f"the journal in {place.directory} is a copy: its file position is not the one that the node wrote"
    )


def test_an_older_copy_over_the_files_with_the_times_of_its_writing_is_found(place: Place) -> None:
    """`cp` sets both times of what it writes, as the node's own writes do."""
    former = place.start()
    former.append(batch(1))
    copy = place.directory.with_name("copy")
    shutil.copytree(place.directory, copy)
    former.append(batch(2))
    former.mark()
    former.renew_position()
    place.crash()
    for path in copy.iterdir():
        (place.directory / path.name).write_bytes(path.read_bytes())
    journal = place.start()
    assert names_in(journal.found.entries) == [1]
    assert not journal.found.is_complete


def test_a_copy_of_a_journal_that_was_closed_in_order_is_found_after_the_next_life(place: Place) -> None:
    former = place.start()
    former.append(batch(1))
    former.close()
    copy = place.directory.with_name("copy")
    shutil.copytree(place.directory, copy)
    next_life = place.start()
    next_life.append(batch(2))
    next_life.close()
    for path in copy.iterdir():
        (place.directory / path.name).write_bytes(path.read_bytes())
    assert not place.start().found.is_complete


@pytest.mark.parametrize("in_order", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_another_owner_mode_or_time_of_the_files_makes_no_copy_of_a_journal(
    place: Place, durability: Durability, in_order: bool
) -> None:
    """Kubernetes changes owner and mode of all files of a volume each time that it is mounted."""
    for life in range(4):
        former = place.start(durability=durability)
        assert former.found.is_complete == (life > 0), former.reason
        former.append(batch(1))
        sync(former)
        former.mark()
        former.renew_position()
        former.append(batch(2))
        sync(former)
        former.mark()
        former.close(in_order=in_order)
        for path in [place.directory, *place.directory.iterdir()]:
            os.chown(path, os.getuid(), os.getgid())
            path.chmod(0o770)
            os.utime(path, ns=(0, life * 10**9))
    assert place.start(durability=durability).found.is_complete


def test_a_position_file_is_renewed_only_after_a_mark(place: Place) -> None:
    journal = place.start()
    numbers = [(place.directory / POSITION_NAME).stat().st_ino]
    for number in (1, 2):
        journal.renew_position()
        assert (place.directory / POSITION_NAME).stat().st_ino == numbers[-1]
        journal.append(batch(number))
        journal.mark()
        journal.renew_position()
        numbers.append((place.directory / POSITION_NAME).stat().st_ino)
    assert numbers[0] != numbers[1] != numbers[2]


def test_what_a_crash_left_of_a_new_position_file_disturbs_nothing(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    (place.directory / "position.new").write_bytes(b"half")
    again = place.start()
    assert again.found.is_complete
    assert not (place.directory / "position.new").exists()


def test_a_new_position_file_vouches_for_nothing_before_the_new_segment_does(place: Place) -> None:
    """A life that was killed at its start leaves the next one the doubts that it had."""
    place.start().append(batch(1))
    place.crash()
    (place.directory / POSITION_NAME).unlink()
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(_WithoutSyncs(place.directory), node=NODE, durability="process", host=HERE)
    place.path(2).unlink()  # as a loss of power may leave it
    assert not place.start().found.is_complete


class _WithoutSyncs(DirectoryFiles):
    """A directory whose names cannot be synced."""

    def sync_names(self) -> None:
        raise OSError(5, "Input/output error")


def test_a_directory_that_was_moved_as_a_whole_is_still_the_one_that_was_written(place: Place) -> None:
    place.start().append(batch(1))
    place.crash()
    place.directory = place.directory.rename(place.directory.with_name("moved"))
    assert place.start().found.is_complete


def made_again(place: Place) -> Journal:
    """Open the directory again for a life that is under way."""
    files = DirectoryFiles(place.directory)
    place.lives.append(Journal(files, node=NODE, durability="process", host=HERE, is_of_new_life=False))
    return place.lives[-1]


def test_a_directory_is_deleted_only_if_its_lock_file_has_no_name_any_more(place: Place) -> None:
    journal = place.start()
    assert not journal.is_deleted
    moved = place.directory.rename(place.directory.with_name("moved"))
    assert not journal.is_deleted, "it may come back"
    shutil.rmtree(moved)
    assert journal.is_deleted


@pytest.mark.parametrize("is_there", [False, True], ids=["empty", "with an older journal"])
def test_a_directory_that_is_made_again_counts_once_everything_is_written_again(
    place: Place, is_there: bool
) -> None:
    former = place.start()
    former.append(batch(1, 1, 2, 3))
    place.crash()
    if not is_there:
        shutil.rmtree(place.directory)
    again = made_again(place)
    again.append(batch(2, 1))
    place.crash()
    half = place.start()
    assert not half.found.is_complete
    half.close(in_order=False)
    again = made_again(place)
    again.append(batch(2, 1))
    again.append(batch(3, 2, ends_rewrite=True))
    place.crash()
    whole = place.start()
    assert whole.reason == ""
    assert names_in(whole.found.entries) == [1, 2]


def test_a_directory_that_another_process_has_made_again_is_left_to_it(place: Place) -> None:
    place.start()
    shutil.rmtree(place.directory)
    place.start()
    with pytest.raises(JournalError, match="is in use by another node"):
        made_again(place)


def test_a_directory_replaced_under_a_running_node_is_noticed_and_never_written_to(place: Place) -> None:
    journal = place.start()
    place.directory.rename(place.directory.with_name("away"))
    other = place.start()
    with pytest.raises(JournalError) as caught:
        journal.check()
    text = (
        f"the journal's directory {place.directory} was deleted or replaced while it was in use; unless it is made again at"
        " once, put it back, or start the node again"
    )
    assert str(caught.value) == text
    assert journal.fail(caught.value) == text
    with pytest.raises(JournalError, match="deleted or replaced"):
        journal.begin_rewrite()
    other.check()
    assert place.segments() == [segment_name(1)]


def test_a_directory_deleted_under_a_running_node_is_noticed(place: Place) -> None:
    journal = place.start()
    shutil.rmtree(place.directory)
    with pytest.raises(JournalError, match="deleted or replaced"):
        journal.check()
    journal.close()


# ------------------------------------------------------------------------- damage


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


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("cut", "a cut batch"),
        ("flip", "damaged bytes"),
        ("zero", "zeros"),
    ],
)
def test_a_batch_that_was_answered_for_and_is_gone_is_damage(place: Place, harm: str, words: str) -> None:
    journal = place.start()
    journal.append(batch(1))
    before = place.path(1).stat().st_size
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
    assert again.reason == (
        f"the journal in {place.directory} is damaged: batches up to 2 were answered for, but it can be read up to 1 only"
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
        ends.append(place.path(1).stat().st_size)
    journal.close(in_order=False)
    content = bytearray(place.path(1).read_bytes())
    content[ends[0] + 20] ^= 1
    place.path(1).write_bytes(content)
    again = place.start()
    assert names_in(again.found.entries) == [1]
    assert "batches up to 2 were answered for, but it can be read up to 1 only" in again.reason


def test_a_bad_batch_is_torn_if_a_later_one_knows_only_earlier_ones_as_durable(place: Place) -> None:
    """Unsynced bytes reach the disk in any order."""
    journal = place.start(durability="disk")
    journal.append(batch(1))
    sync(journal)
    end = place.path(1).stat().st_size
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
    end = place.path(1).stat().st_size
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
    assert "batches up to 3 were answered for, but it can be read up to 1 only" in again.reason


def test_a_segment_that_is_missing_is_damage(place: Place) -> None:
    for life in range(1, 4):
        place.start().append(batch(1, life))
        place.crash()
    place.path(2).unlink()
    journal = place.start()
    assert names_in(journal.found.entries) == [1]
    assert f"({segment_name(3)}, from byte 0 of " in journal.reason
    assert journal.reason.endswith(": batches are missing)")


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
    before = place.path(1).stat().st_size
    monkeypatch.setattr(journal_module, "encode_entries", lambda _: b"\x91\x93\x63\x01\x02")
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
    end = place.path(1).stat().st_size
    for number in range(2, 9):
        journal.append(batch(number))
    place.crash()
    place.path(1).write_bytes(place.path(1).read_bytes()[:end])
    assert "is damaged" in place.start().reason
    place.crash()
    assert place.start().found == ([], True)


# ------------------------------------------------------------------------- failures


def test_a_batch_beyond_the_bound_is_refused_and_ends_the_segment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.start()
    journal.append(batch(1))
    monkeypatch.setattr(journal_module, "BATCH_BYTES_MAX", 10)
    with pytest.raises(JournalError, match=r"a batch of [0-9]+ bytes is longer than 10"):
        journal.append(batch(2))
    assert journal.has_failed
    monkeypatch.undo()
    with pytest.raises(JournalError, match="longer than 10"):
        journal.append(batch(2))
    rewrite(journal, 3, 1, 2)
    assert not journal.has_failed
    place.crash()
    assert names_in(place.start().found.entries) == [1, 2]
