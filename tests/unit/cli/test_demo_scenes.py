"""The demo's claims are those of the words that its workers say, and it sees a worker that has died."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lockring.cli.demo.ledger import Ledger
from lockring.cli.demo.narrator import Narrator
from lockring.cli.demo.scenes import Stage, conclude, is_growing, turns_of
from lockring.cli.demo.workers import DemoFailed, Word, Workers
from tests.processes import PATIENCE_S


def words(*said: tuple[str, str, int]) -> list[Word]:
    """Words in milliseconds: 1, 2, 3 and so on."""
    return [Word(who, what, token, number * 10**6) for number, (who, what, token) in enumerate(said, 1)]


def test_a_turn_is_from_a_release_to_the_next_grant_while_others_wait() -> None:
    said = words(
        ("a", "asks", 0), ("a", "holds", 1), ("b", "asks", 0), ("c", "asks", 0), ("a", "releases", 1),
        ("a", "asks", 0), ("b", "holds", 2), ("b", "releases", 2), ("a", "holds", 3), ("a", "lost", 0),
        ("c", "holds", 4), ("c", "releases", 4), ("d", "asks", 0), ("d", "holds", 5),
    )  # fmt: skip
    assert turns_of(said) == [(2.0, True), (1.0, False)]
    assert turns_of(list(reversed(said))) == turns_of(said), "they are put in order"


@pytest.mark.parametrize(
    ("tokens", "growing"), [([], True), ([1, 2], True), ([1, 1], False), ([2, 1], False)]
)
def test_tokens_grow_if_each_is_above_the_one_before(tokens: list[int], growing: bool) -> None:
    assert is_growing(tokens) == growing


class Said:
    """Workers that have said these words."""

    def __init__(self, said: list[Word]) -> None:
        self.words = tuple(said)

    def since(self, number: int, what: str) -> list[Word]:
        return [word for word in self.words[number:] if word.what == what]


@pytest.mark.parametrize(
    ("said", "written", "error"),
    [
        ([("a", "holds", 1), ("a", "writes", 1), ("b", "holds", 2), ("b", "writes", 2)], [1, 2], ""),
        ([("a", "holds", 2), ("b", "holds", 1)], [], "not above the one before"),
        ([("a", "holds", 1), ("b", "holds", 1)], [], "not above the one before"),
        ([("a", "writes", 2), ("b", "writes", 1)], [2], "a lower token after one under a higher"),
        ([("a", "writes", 1), ("a", "refused", 1)], [1, 1], "the ledger has"),
        ([("a", "writes", 1)], [], "the ledger has"),
    ],
)
def test_the_outcome_is_that_which_ledger_and_workers_have_seen(
    said: list[tuple[str, str, int]],
    written: list[int],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for token in written:
        ledger.write(token)
    stage = Stage(None, Said(words(*said)), ledger, Narrator(0), [])  # type: ignore[arg-type]
    if error:
        with pytest.raises(DemoFailed, match=error):
            conclude(stage)
        return
    conclude(stage)
    shown = capsys.readouterr().out
    assert "2 grants, 2 writes, 0 late writes refused" in shown
    assert "no lock lost" in shown
    assert "2 holders wrote, one after the other" in shown


@pytest.mark.parametrize(
    ("losers", "frozen", "shown"),
    [
        (["a"], ["a"], "1 lock lost: that of the worker that was frozen"),
        (["b"], ["a"], "1 lock lost: that of b"),
        (["b", "a"], ["a"], "2 locks lost: of b, a"),
    ],
)
def test_a_lock_that_was_lost_is_named_by_its_worker(
    losers: list[str], frozen: list[str], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(words(*((each, "lost", 0) for each in losers)))
    conclude(Stage(None, said, Ledger(tmp_path / "ledger"), Narrator(0), frozen))  # type: ignore[arg-type]
    assert shown in capsys.readouterr().out


def test_a_wait_ends_with_the_death_of_a_worker(tmp_path: Path) -> None:
    with Workers("127.0.0.1:1", ["alice", "bob"], tmp_path / "ledger") as workers:
        os.kill(workers._processes["bob"].pid, signal.SIGKILL)
        began_s = time.monotonic()
        with pytest.raises(
            DemoFailed, match="the worker bob has ended with exit code -9 before this: a grant"
        ):
            workers.wait("a grant", lambda: False, 2 * PATIENCE_S)
        assert time.monotonic() - began_s < PATIENCE_S


def test_workers_have_nothing_of_the_callers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKRING_TOKEN_FILE", str(tmp_path / "gone"))
    with Workers("127.0.0.1:1", ["alice"], tmp_path / "ledger") as workers:
        workers.wait("it starts", lambda: workers.since(0, "starts"), PATIENCE_S)
