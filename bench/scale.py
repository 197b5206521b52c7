"""The length of the measurements: for publication, for a quick look, or for a check that everything works."""

from __future__ import annotations

from typing import Final

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the workloads.

    Attributes:
        rounds: rounds of the short and noisy workloads.
        rounds_long: rounds of the others.
        single_s: duration with one blocking client.
        overlap_s: duration with many overlapping tasks.
        fight_s: duration of processes contending for one lock.
        relays: hand-overs between two processes that take turns.
        many: locks that one client holds at once.
        more: the same for lockring alone; 0 to skip it.
        many_s_max: the time after which a peer's client acquires no more.
        keep_s: the time in which its messages are counted.
        rebalanced: locks held while a node joins.
    """

    rounds: int
    rounds_long: int
    single_s: float
    overlap_s: float
    fight_s: float
    relays: int
    many: int
    more: int
    many_s_max: float
    keep_s: float
    rebalanced: int


SCALES: Final = {
    "full": Scale(
        rounds=4,
        rounds_long=2,
        single_s=1.5,
        overlap_s=1.5,
        fight_s=2.5,
        relays=30,
        many=100_000,
        more=1_000_000,
        many_s_max=20.0,
        keep_s=10.0,
        rebalanced=100_000,
    ),
    "quick": Scale(
        rounds=1,
        rounds_long=1,
        single_s=0.5,
        overlap_s=0.5,
        fight_s=1.0,
        relays=12,
        many=20_000,
        more=0,
        many_s_max=3.0,
        keep_s=4.0,
        rebalanced=20_000,
    ),
    "tiny": Scale(
        rounds=1,
        rounds_long=1,
        single_s=0.3,
        overlap_s=0.3,
        fight_s=0.5,
        relays=4,
        many=500,
        more=2_000,
        many_s_max=2.0,
        keep_s=2.0,
        rebalanced=1_000,
    ),
}
