"""A journal on real files: other directories in its place, copies, and ones that vanish under a running node."""

from __future__ import annotations

import os
import shutil

import pytest

from lockring.errors import JournalError
from lockring.journal import codec
from lockring.journal.files import LOCK_NAME, DirectoryFiles
from lockring.journal.journal import POSITION_NAME, Durability, Journal
from lockring.journal.reading import segment_name
from tests.unit.journal.batches import NODE, batch, names_in
from tests.unit.journal.place import HERE, Place, sync


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


@pytest.mark.interpreted
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
    assert not journal.is_deleted()
    moved = place.directory.rename(place.directory.with_name("moved"))
    assert not journal.is_deleted(), "it may come back"
    shutil.rmtree(moved)
    assert journal.is_deleted()


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
        f"the journal's directory {place.directory} was deleted or replaced while it was in use; a deleted one is made"
        " again at once, otherwise put it back, or start the node again"
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
