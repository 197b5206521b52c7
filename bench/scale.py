"""The length of the measurements: for publication, for a quick look, or for a check that everything works."""

from __future__ import annotations

from typing import Final

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the workloads.

    Attributes:
        rounds: rounds of the short and noisy workloads.
        rounds_long: rounds of the others.
        passes: slices of each server in a round, for one client and for many overlapping tasks.
        slice_s: the duration of a slice with one client.
        overlap_slice_s: the same with many overlapping tasks: the last ones of a slice overlap with fewer.
        fight_passes: slices of each server in a round, for processes contending for one lock.
        fight_slice_s: their duration: a library that polls needs longer ones.
        relay_passes: slices of each server in a round, for two processes that take turns.
        relays: the hand-overs of such a slice.
        many: locks that one client holds at once.
        more: the same for lockring alone; 0 to skip it.
        many_s_max: the time after which a peer's client acquires no more.
        keep_s: the time in which its messages are counted.
        rebalanced: locks held while a node joins.
    """

    rounds: int
    rounds_long: int
    passes: int
    slice_s: float
    overlap_slice_s: float
    fight_passes: int
    fight_slice_s: float
    relay_passes: int
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
        passes=16,
        slice_s=0.1,
        overlap_slice_s=0.25,
        fight_passes=6,
        fight_slice_s=0.5,
        relay_passes=8,
        relays=4,
        many=100_000,
        more=1_000_000,
        many_s_max=20.0,
        keep_s=10.0,
        rebalanced=100_000,
    ),
    "quick": Scale(
        rounds=1,
        rounds_long=1,
        passes=12,
        slice_s=0.1,
        overlap_slice_s=0.15,
        fight_passes=3,
        fight_slice_s=0.5,
        relay_passes=4,
        relays=3,
        many=20_000,
        more=0,
        many_s_max=3.0,
        keep_s=4.0,
        rebalanced=20_000,
    ),
    "tiny": Scale(
        rounds=1,
        rounds_long=1,
        passes=2,
        slice_s=0.1,
        overlap_slice_s=0.1,
        fight_passes=2,
        fight_slice_s=0.25,
        relay_passes=2,
        relays=2,
        many=500,
        more=2_000,
        many_s_max=2.0,
        keep_s=2.0,
        rebalanced=1_000,
    ),
}
