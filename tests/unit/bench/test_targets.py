"""A run reaches an aim, misses it, or says nothing of it."""

from __future__ import annotations

import pytest

from bench.beside import FLOOR, PAIR, TLS_PAIR
from bench.figures import Summary
from bench.targets import DURABILITY_TARGETS, TARGETS, Target
from bench.workloads.doors import own_work_us
from bench.workloads.table import WORKLOADS
from tests.unit.bench.canned import measurement


def target(start: str) -> Target:
    (found,) = (each for each in TARGETS if each.what.startswith(start))
    return found


@pytest.mark.parametrize(("ours", "verdict"), [(49.0, "reached"), (50.0, "reached"), (51.0, "missed")])
def test_a_time_must_be_at_most_a_share_of_the_other_peers_times(ours: float, verdict: str) -> None:
    summary = Summary(
        [
            measurement(peer="lockring+compiled", median_us=ours),
            measurement(peer="lockring", median_us=200.0),
            measurement(peer="redis", median_us=100.0),
        ]
    )
    aim = target("acquire and release, one blocking client, one core: part of redis-py's")
    assert aim.value(summary) == (ours / 100, ours / 100, ours / 100, 1)
    assert aim.verdict(summary) == verdict


def test_overlapping_is_compared_with_the_best_other_peer() -> None:
    rates = {"lockring+compiled": 120.0, "lockring-3+compiled": 50.0, "redis": 4.0, "postgres": 10.0}
    summary = Summary([measurement("overlap", "32", peer, pairs_per_s=rate) for peer, rate in rates.items()])
    found = target("32 overlapping: pairs/s").value(summary)
    assert found is not None and found.median == 12.0
    assert target("32 overlapping: pairs/s").verdict(summary) == "reached"
    found = target("32 overlapping, three nodes").value(summary)
    assert found is not None and found.median == 5.0


def test_durability_is_compared_with_the_same_nodes_without_it_and_with_the_synced_peers() -> None:
    times_us = {
        "lockring+compiled": 100.0, "lockring+compiled+process": 109.0, "lockring+compiled+disk": 300.0,
        "lockring-3+compiled": 200.0, "lockring-3+compiled+process": 230.0, "redis+sync": 300.0, "etcd": 299.0,
        "lockring-3+compiled+disk": 310.0, "redis+wait+sync": 320.0,
    }  # fmt: skip
    summary = Summary([measurement("durability", "32", peer, median_us=us) for peer, us in times_us.items()])
    verdicts = {aim.what: aim.verdict(summary) for aim in DURABILITY_TARGETS}
    assert verdicts["durability, 32 overlapping, `process`: multiple of the time with `none`"] == "reached"
    assert (
        verdicts["durability, 32 overlapping, three nodes, `process`: multiple of the time with `none`"]
        == "missed"
    )
    assert verdicts["durability, 32 overlapping, `disk`: part of synced Redis's time"] == "reached"
    three = "durability, 32 overlapping, three nodes, `disk`: part of"
    assert verdicts[f"{three} synced Redis's time"] == "missed"
    assert verdicts[f"{three} synced Redis with a replica's time"] == "reached"
    assert verdicts["durability, 32 overlapping, `disk`: part of etcd's time"] == "missed"
    assert verdicts["durability, 32 overlapping, `disk`: part of ZooKeeper's time"] == "not measured"


def test_a_peer_that_never_hands_over_is_surpassed() -> None:
    summary = Summary(
        [
            measurement("fight", "2", "lockring+compiled", to_another_per_s=1000.0),
            measurement("fight", "2", "redis", to_another_per_s=0.0),
        ]
    )
    assert (
        target("2 processes on one lock: hand-overs/s, multiple of redis-py's").verdict(summary) == "reached"
    )


def test_a_target_without_a_measurement_is_neither_reached_nor_missed() -> None:
    assert {aim.verdict(Summary([])) for aim in (*TARGETS, *DURABILITY_TARGETS)} == {"not measured"}


def test_the_floor_of_a_pair_is_two_round_trips_and_the_aim_three_of_these() -> None:
    summary = Summary(
        [measurement(peer="lockring+compiled", median_us=60.0), measurement(peer=FLOOR, median_us=10.0)]
    )
    aim = target("acquire and release, one blocking client, one core: round trips of the floor")
    assert aim.verdict(summary) == "reached"


def test_what_tls_itself_takes_is_on_neither_side_of_the_aim() -> None:
    medians = {"lockring": 200.0, "lockring+rights": 232.0, PAIR: 40.0, TLS_PAIR: 60.0}
    summary = Summary([measurement("doors", peer=peer, median_us=median) for peer, median in medians.items()])
    aim = target("acquire and release, one core, interpreted: own work")
    value = aim.value(summary)
    assert value is not None
    assert own_work_us(summary, "lockring") == 160
    assert own_work_us(summary, "lockring+rights") == 172
    assert own_work_us(summary, "lockring+compiled") is None
    assert value.median == (232 - 60) / (200 - 40)
    assert aim.verdict(summary) == "reached"


def test_every_aim_is_about_something_that_is_measured() -> None:
    figures = dict.fromkeys(
        "median_us pairs_per_s to_another_per_s fairness bytes_per_lock locks_per_s sent_per_s received_per_s "
        "seconds seconds_most during_p99_us during_max_us".split(),
        1.0,
    )
    summary = Summary(
        measurement(
            workload,
            variant,
            peer,
            figures=figures | ({"median_us": 0.5} if peer in (PAIR, TLS_PAIR) else {}),
        )
        for workload, kind in WORKLOADS.items()
        for variant, peers in kind.peers.items()
        for peer in (*peers, *kind.beside)
    )
    assert [aim.what for aim in (*TARGETS, *DURABILITY_TARGETS) if aim.value(summary) is None] == []
