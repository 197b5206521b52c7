"""The order of a run: all peers in each round, each time with another one first."""

from __future__ import annotations

import pytest

from bench.processes import busy_share
from bench.run import BUSY_REFUSE, Busy, check_quiet, line, plan, rotated, with_rounds
from bench.scale import SCALES
from bench.workloads.table import WORKLOADS
from tests.unit.bench.canned import measurement

FULL = SCALES["full"]


def test_each_round_begins_with_another_peer() -> None:
    assert [rotated("abc", by) for by in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 1) == []


def test_all_peers_have_their_turn_in_a_round_before_the_next_one_begins() -> None:
    steps = list(plan([WORKLOADS["killed"]], ("lockring", "redis", "etcd+tmpfs"), with_rounds(FULL, 2)))
    assert [(step.round, step.peers) for step in steps] == [
        *((0, (peer,)) for peer in ("lockring", "redis")),
        *((1, (peer,)) for peer in ("redis", "lockring")),
    ]


def test_peers_that_take_turns_have_their_servers_up_at_once() -> None:
    steps = list(plan([WORKLOADS["relay"]], ("lockring", "redis", "etcd+tmpfs"), with_rounds(FULL, 2)))
    assert [(step.round, step.peers, step.measurements()) for step in steps] == [
        (0, ("lockring", "redis"), 3),
        (1, ("lockring", "redis"), 3),
    ]


def test_single_variants_can_be_chosen() -> None:
    steps = list(plan([WORKLOADS["single"]], ("redis",), with_rounds(FULL, 1), variants=("one core",)))
    assert [step.variants for step in steps] == [("one core",)]
    assert list(plan([WORKLOADS["single"]], ("redis",), FULL, variants=("no such",))) == []


def test_a_workload_is_measured_for_each_of_its_peers_as_often_as_it_says() -> None:
    steps = list(plan(list(WORKLOADS.values()), tuple(dict.fromkeys(_all_peers())), FULL))
    found = [
        (step.round, step.workload.name, variant, peer)
        for step in steps
        for variant in step.variants
        for peer in step.peers
        if peer in step.workload.peers[variant]
    ]
    wanted = [
        (round_, name, variant, peer)
        for name, kind in WORKLOADS.items()
        for round_ in range(kind.rounds(FULL))
        for variant, peers in kind.peers.items()
        for peer in peers
    ]
    assert sorted(found) == sorted(wanted)


def test_a_million_locks_are_not_acquired_on_a_server_that_has_had_others() -> None:
    steps = list(plan([WORKLOADS["many"]], ("lockring",), FULL))
    assert [step.variants for step in steps] == [("100,000",), ("1,000,000",)]


def test_a_busy_machine_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("bench.run.busy_share", lambda: BUSY_REFUSE + 0.1)
    with pytest.raises(Busy, match="--anyway"):
        check_quiet(anyway=False, say=said.append)
    assert check_quiet(anyway=True, say=said.append) == BUSY_REFUSE + 0.1
    assert "with care" in said[0]


def test_a_quiet_machine_is_not_remarked_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("bench.run.busy_share", lambda: 0.01)
    assert check_quiet(anyway=False, say=said.append) == 0.01
    assert said == []


def test_how_busy_the_machine_is_is_a_share() -> None:
    assert 0 <= busy_share(0.05) <= 1


def test_a_line_names_round_workload_variant_and_peer() -> None:
    text = line(measurement(peer="redis", round_=1, median_us=123.0))
    assert "round 2" in text and "single" in text and "one core" in text and "redis" in text
    assert "median_us 123" in text


def _all_peers() -> list[str]:
    return [peer for kind in WORKLOADS.values() for peers in kind.peers.values() for peer in peers]
