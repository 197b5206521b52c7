"""Random runs of the whole cluster: the protocol as it is runs clean, a seed replays exactly, and broken rules are
noticed.

`make sim SEEDS=100000` runs more, `make sim SEED=7` tells the story of one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sim.framework.world import Violation
from tests.sim.rules import DRILLS, HALVES, MODEL_SWITCHES, MUTANTS, applied, half_applied
from tests.sim.seeds.many import run_many
from tests.sim.seeds.run import run_seed

SEEDS = int(os.environ.get("LOCKRING_SIM_SEEDS", "300"))

QUICKLY_MISSED = (
    "no_backup_lease",
    "no_wait",
    "learner_late",
    "snap_any",
    "no_drift",
    "ack_early",
    "incarnation_blind",
)
"""Rules whose absence a few seeds notice; `make mutants` tries them all."""


@pytest.mark.timeout(600)  # two minutes on two quiet cores
def test_no_seed_finds_a_violation() -> None:
    seeds = 0
    for result in run_many(range(SEEDS)):
        assert result.violation is None, f"make sim SEED={result.seed}: {result.violation}"
        seeds += 1
    assert seeds == SEEDS


def test_a_seed_replays_exactly() -> None:
    first, second, other = run_seed(3, story=True), run_seed(3, story=True), run_seed(4, story=True)
    assert first.digest() == second.digest()
    assert first.digest() != other.digest()
    assert len(first.story) > 100


def test_interesting_things_happen() -> None:
    stats = run_seed(0).stats
    for seed in range(1, 100):  # a journal fails in one of 20
        stats += run_seed(seed).stats
    for what in (
        "grants",
        "promotion",
        "swap",
        "moves_checked",
        "in_sync",
        "assigned_empty",
        "backup_dropped",
        "operator_DrainReply",
        "operator_UndrainReply",
        "operator_Refusal",
        "lost_local-deadline",
        "inherited",
        "backup_inherited",
        "journal_vouched",
        "journal_checked",
        "journal_failed",
        "killed_writing",
    ):
        assert stats[what] > 0, f"{what} never happens"


@pytest.mark.parametrize("name", QUICKLY_MISSED)
def test_a_rule_that_is_switched_off_is_missed(name: str) -> None:
    assert name in MUTANTS
    with applied(name):
        results = map(run_seed, range(100))
        first = next((each for each in results if each.violation), None)
        assert first is not None, f"no run misses {name}"
        assert first.what != "CRASH", first.violation


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_holds_with_its_rule_and_not_without(name: str) -> None:
    DRILLS[name]()
    with applied(name), pytest.raises(Violation):
        DRILLS[name]()


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("name", HALVES)
def test_either_of_two_rules_that_stand_behind_each_other_is_enough(name: str, half: int) -> None:
    with half_applied(name, half):
        DRILLS[name]()


def test_every_switch_of_the_model_has_its_mutant() -> None:
    assert set(MODEL_SWITCHES.values()) <= set(MUTANTS)
    assert len(set(MODEL_SWITCHES.values())) == len(MODEL_SWITCHES) == 34


def test_every_rule_has_its_drill() -> None:
    assert set(DRILLS) == set(MUTANTS)
    assert set(HALVES) <= set(MUTANTS)


def test_every_rule_is_in_the_documentation() -> None:
    told = (Path(__file__).parents[3] / "docs" / "correctness.md").read_text()
    assert [name for name in MUTANTS if f"`{name}`" not in told] == []
