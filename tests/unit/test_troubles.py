"""Reports about an operation that fails again and again."""

from __future__ import annotations

from lockring.troubles import REASONS_MAX, RepeatedTrouble
from lockring.units import NS_PER_S

S = NS_PER_S


def test_trouble_is_reported_when_it_begins_once_a_minute_and_when_it_ends() -> None:
    trouble = RepeatedTrouble()
    told = [(second, trouble.fails("refused", now_ns=second * S)) for second in range(130)]
    assert [each for each in told if each[1]] == [
        (0, "refused"),
        (60, "refused (61 failures in 60 s)"),
        (120, "refused (121 failures in 120 s)"),
    ]
    assert trouble.is_on
    assert trouble.ends(now_ns=130 * S) == "130 failures in 130 s"
    assert not trouble.is_on
    assert trouble.ends(now_ns=131 * S) == ""
    assert trouble.fails("refused", now_ns=132 * S) == "refused"


def test_reasons_that_alternate_are_reported_once_each() -> None:
    trouble = RepeatedTrouble()
    told = [trouble.fails(f"reason {number % 2}", now_ns=number) for number in range(100)]
    assert [each for each in told if each] == ["reason 0", "reason 1"]


def test_reasons_that_are_always_new_are_reported_up_to_a_bound() -> None:
    trouble = RepeatedTrouble()
    told = [trouble.fails(f"reason {number}", now_ns=number) for number in range(100)]
    assert len([each for each in told if each]) == REASONS_MAX


def test_trouble_with_short_recoveries_is_one_trouble() -> None:
    trouble = RepeatedTrouble(calm_ns=10 * S)
    begun, ended = [], []
    for second in range(50):
        begun.append(trouble.fails("lost", now_ns=second * S))
        ended.append(trouble.ends(now_ns=second * S + S // 2))
    assert [each for each in begun if each] == ["lost"]
    assert [each for each in ended if each] == ["1 failure in 0 s"]
    assert trouble.fails("lost", now_ns=100 * S) == "lost"
