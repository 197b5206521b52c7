"""A journal on real files: what a new life finds, how a rewrite takes its place, and what a failure ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockring.core.journal import JournalBatch
from lockring.errors import JournalError
from lockring.journal import journal as journal_module
from lockring.journal.codec import HEADER_BYTES
from lockring.journal.files import LOCK_NAME
from lockring.journal.journal import POSITION_NAME
from lockring.journal.reading import segment_name
from tests.unit.journal.batches import CLUSTER, LIFE, batch, names_in
from tests.unit.journal.place import Place, rewrite, sync

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
        "from tests.unit.journal.place import HERE\n"
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
    monkeypatch.setattr("lockring.journal.growth.REWRITE_BYTES_MIN", HEADER_BYTES + 5_000)
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


# ------------------------------------------------------------------------- failures


def test_a_batch_beyond_the_bound_is_refused_and_ends_the_segment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.start()
    journal.append(batch(1))
    monkeypatch.setattr(journal_module, "BATCH_BYTES_MAX", 10)
    with pytest.raises(JournalError, match=r"cannot take a batch of [0-9]+ bytes, which is longer than 10"):
        journal.append(batch(2))
    assert journal.has_failed
    monkeypatch.undo()
    with pytest.raises(JournalError, match="longer than 10"):
        journal.append(batch(2))
    rewrite(journal, 3, 1, 2)
    assert not journal.has_failed
    place.crash()
    assert names_in(place.start().found.entries) == [1, 2]
