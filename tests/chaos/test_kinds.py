"""The kinds of faults: which of them a run can do, and that those of directories harm what they say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.chaos import journal_faults
from tests.chaos.faults import FaultFailed, was_without_decisions
from tests.chaos.kinds import ALWAYS, KINDS, SECOND, WITH_JOURNALS, WITH_STORE, possible, rounds
from tests.chaos.test_chaos import SEED


def test_a_run_does_the_faults_of_what_it_has() -> None:
    every = tuple(KINDS)
    assert possible(every, has_store=False, has_journals=False) == list(ALWAYS)
    assert possible(every, has_store=True, has_journals=False) == [*ALWAYS, *WITH_STORE]
    assert possible(every, has_store=False, has_journals=True) == [*ALWAYS, *WITH_JOURNALS]
    assert possible(every, has_store=True, has_journals=True) == list(KINDS)
    assert possible(("join", "kill the store"), has_store=False, has_journals=True) == ["join"]


def test_what_comes_on_top_of_another_fault_is_possible_in_every_run() -> None:
    assert set(SECOND) <= set(ALWAYS)


def test_the_minute_of_chaos_among_the_tests_begins_with_faults_of_every_sort() -> None:
    kinds = list(itertools.islice(rounds(tuple(KINDS), SEED), 12))
    for sort in (WITH_STORE, WITH_JOURNALS, ALWAYS):
        assert set(kinds[:6]) & set(sort), kinds
    assert not {"freeze the coordinator", "kill all nodes for long"} & set(kinds), kinds


def test_a_round_has_every_kind_once_in_an_order_of_its_own() -> None:
    some = ("join", "leave", "kill a node", "isolate a node")
    first, second = (list(itertools.islice(rounds(some, 1), at, at + 4)) for at in (0, 4))
    assert sorted(first) == sorted(second) == sorted(some)
    assert first != second


def test_only_a_node_without_decisions_may_stay_with_what_it_has() -> None:
    away = "stopping without a move, since the coordinator has been away for 10 s; this node serves 3 slots"
    assert was_without_decisions(f"joined\ndraining: for up to 60 s\n{away}\nnode N1 has stopped\n")
    assert not was_without_decisions(
        "draining: for up to 60 s\nnot drained in time; this node serves 3 slots\n"
    )
    assert not was_without_decisions(
        f"draining: for up to 60 s\n{away}\njoined\ndraining: for up to 60 s\ndrained\n"
    )
    assert not was_without_decisions("node N1 has stopped\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A node's directory with a journal of two segments, and files that are no segments."""
    journal = tmp_path / "N1.data" / "journal"
    journal.mkdir(parents=True)
    (journal / "00000001.log").write_bytes(bytes(range(200)))
    (journal / "00000002.log").write_bytes(bytes(range(100)))
    (journal / "lock").write_bytes(b"lock")
    return journal.parent


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77, 0.999])
def test_a_flipped_bit_is_one_bit_of_one_segment(directory: Path, share: float) -> None:
    before = contents(directory)
    journal_faults._flip(directory, share)
    after = contents(directory)
    (name,) = (name for name in before if before[name] != after[name])
    assert name.endswith(".log")
    differences = [
        (was ^ now).bit_count() for was, now in zip(before[name], after[name], strict=True) if was != now
    ]
    assert differences == [1]


def test_a_torn_journal_lacks_the_end_of_its_last_segment(directory: Path) -> None:
    before = contents(directory)
    journal_faults._tear(directory, 0.3)
    after = contents(directory)
    assert after.pop("journal/00000002.log") == before.pop("journal/00000002.log")[:30]
    assert after == before


def test_a_directory_without_a_journal_is_not_harmed_silently(tmp_path: Path) -> None:
    with pytest.raises(FaultFailed, match="there is no journal"):
        journal_faults._tear(tmp_path, 0.5)


def test_an_older_directory_has_what_was_there_when_it_was_copied(directory: Path) -> None:
    copy = directory.with_suffix(".copy")
    before = contents(directory)
    journal_faults._copy(directory, copy)
    (directory / "journal" / "00000003.log").write_bytes(b"more")
    assert contents(copy) == before
    journal_faults._copy(directory, copy)
    assert contents(copy) == contents(directory)
