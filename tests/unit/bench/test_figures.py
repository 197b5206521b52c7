"""Samples become the figures that they are said to be."""

from __future__ import annotations

import math

import pytest

from bench.figures import Hold, Summary, history, latencies, neighbour_ratios, quantile, ratio, spread
from bench.results import Values
from tests.unit.bench.canned import measurement


def test_a_quantile_is_a_sample_and_never_one_in_between() -> None:
    ordered = [10, 20, 30, 1000]
    assert [quantile(ordered, share) for share in (0, 0.25, 0.5, 0.99, 1)] == [10, 20, 30, 1000, 1000]


def test_latencies_are_in_microseconds_whatever_their_order() -> None:
    samples_ns = [3_000, 1_000, 2_000]
    assert latencies(samples_ns) == {"median_us": 2.0, "p99_us": 3.0, "max_us": 3.0}
    assert latencies([]) == {}


def test_a_spread_is_the_median_of_the_rounds_with_their_range() -> None:
    assert spread([5.0, 1.0, 2.0]) == (2.0, 1.0, 5.0, 3)


def test_rounds_of_one_peer_are_summed_up_apart_from_those_of_others() -> None:
    summary = Summary(
        [
            measurement(peer="redis", round_=0, median_us=100.0),
            measurement(peer="lockring", round_=0, median_us=40.0),
            measurement(peer="redis", round_=1, median_us=300.0),
        ]
    )
    assert summary.get("single", "one core", "redis", "median_us") == (200.0, 100.0, 300.0, 2)
    assert summary.median("single", "one core", "lockring", "median_us") == 40.0
    assert summary.median("single", "one core", "lockring", "p99_us") is None
    assert summary.peers("single", "one core") == ["redis", "lockring"]
    assert summary.variants("single") == ["one core"]


def at(*slices: tuple[float, float]) -> list[Values]:
    """Return slices with their middle in seconds and their median in microseconds."""
    return [{"at_s": at_s, "median_us": median_us} for at_s, median_us in slices]


def test_a_slice_is_compared_with_those_just_before_and_just_after_it() -> None:
    ours, theirs = at((1.0, 30.0), (3.0, 60.0), (5.0, 90.0)), at((0.0, 10.0), (2.0, 20.0), (4.0, 40.0))
    assert neighbour_ratios(ours, theirs, "median_us") == [30 / 15, 60 / 30, 90 / 40]


def test_a_machine_that_slows_down_evenly_leaves_the_ratio_of_neighbours_as_it_is() -> None:
    def us(at_s: float) -> float:
        return 100 + 100 * at_s

    ours = at(*((at_s, 1.5 * us(at_s)) for at_s in (1.0, 3.0, 5.0)))
    theirs = at(*((at_s, us(at_s)) for at_s in (0.0, 2.0, 4.0, 6.0)))
    assert neighbour_ratios(ours, theirs, "median_us") == pytest.approx([1.5, 1.5, 1.5])


def test_slices_without_the_figure_or_without_a_neighbour_are_passed_over() -> None:
    assert neighbour_ratios(at((1.0, 30.0)), [], "median_us") == []
    assert neighbour_ratios([{"at_s": 1.0}], at((0.0, 10.0)), "median_us") == []
    assert neighbour_ratios(at((1.0, 30.0)), [{"at_s": 2.0}, *at((3.0, 10.0))], "median_us") == [3.0]


def test_peers_that_took_turns_are_compared_by_their_slices_and_rounds_are_summed_up() -> None:
    summary = Summary(
        [
            measurement(peer="redis", slices=at((0.0, 10.0), (1.0, 10.0)), median_us=1.0),
            measurement(peer="lockring", slices=at((0.5, 20.0), (1.5, 40.0)), median_us=1.0),
            measurement(peer="redis", round_=1, slices=at((0.0, 10.0)), median_us=1.0),
            measurement(peer="lockring", round_=1, slices=at((0.5, 50.0)), median_us=1.0),
        ]
    )
    found = summary.times("single", "one core", ("lockring", "redis"), "median_us")
    assert found == (4.0, 3.0, 5.0, 2)


def test_peers_that_were_alone_are_compared_within_each_round() -> None:
    summary = Summary(
        [
            *(
                measurement(peer="redis", round_=n, median_us=us)
                for n, us in enumerate((10.0, 100.0, 1000.0))
            ),
            *(measurement(peer="lockring", round_=n, median_us=us) for n, us in enumerate((20.0, 50.0))),
        ]
    )
    found = summary.times("single", "one core", ("lockring", "redis"), "median_us")
    assert found == ((2.0 + 0.5) / 2, 0.5, 2.0, 2)
    assert summary.times("single", "one core", ("lockring", "etcd"), "median_us") is None
    assert summary.times("single", "unpinned", ("lockring", "redis"), "median_us") is None
    assert summary.times("single", "one core", ("lockring", "redis"), "p99_us") is None


def test_a_note_of_several_rounds_is_printed_once() -> None:
    summary = Summary([measurement(round_=number, note="stopped at 7") for number in range(3)])
    assert summary.notes("single", "one core", "lockring") == ["stopped at 7"]


@pytest.mark.parametrize(
    ("of", "to", "expected"),
    [
        (1.0, 4.0, 0.25),
        (0.0, 4.0, 0.0),
        (3.0, 0.0, math.inf),
        (0.0, 0.0, None),
        (None, 4.0, None),
        (4.0, None, None),
    ],
)
def test_a_ratio_needs_both_figures(of: float | None, to: float | None, expected: float | None) -> None:
    assert ratio(of, to) == expected


def test_a_fight_is_counted_by_hand_overs_to_another_process() -> None:
    holds = [Hold(0, 1_000, 0), Hold(5_000, 6_000, 1), Hold(6_100, 7_000, 1), Hold(9_000, 9_500, 0)]
    values = history([reversed(holds)], seconds=2.0, processes=2)
    assert values["grants_per_s"] == 2.0
    assert (
        values["to_another_per_s"] == 1.0
    )  # 0 to 1 and 1 to 0; a process that follows itself does not count
    assert values["median_us"] == 4.0
    assert values["fairness"] == 1.0
    assert values["overlaps"] == 0


def test_two_holders_at_once_are_noticed() -> None:
    values = history([[Hold(0, 1_000, 0), Hold(999, 2_000, 1)]], seconds=1.0, processes=2)
    assert values["overlaps"] == 1


def test_a_process_that_got_nothing_makes_a_fight_unfair() -> None:
    values = history([[Hold(n * 10, n * 10 + 1, 0) for n in range(7)]], seconds=1.0, processes=2)
    assert values["grants_least"] == 0
    assert values["fairness"] == 7.0


def test_the_pause_between_two_stretches_of_a_fight_is_no_hand_over() -> None:
    stretches = [[Hold(0, 1_000, 0), Hold(3_000, 4_000, 1)], [Hold(900_000, 901_000, 0)]]
    values = history(stretches, seconds=3.0, processes=2)
    assert values["grants_per_s"] == 1.0
    assert values["median_us"] == values["max_us"] == 2.0
    assert values["fairness"] == 2.0
