"""The cost of locked doors: one blocking client as in `single`, without TLS, with it, and with TLS and rights.

TLS itself costs something on every transport. So the same bytes go through raw sockets beside it, with and without TLS:
what a pair takes beyond them is lockring's own work, which TLS and rights shall hardly add to.
"""

from __future__ import annotations

from typing import Final

from bench.beside import PAIR, TLS_PAIR
from bench.figures import Summary
from bench.workloads.base import ONE_CORE, InSlices, Workload
from bench.workloads.single import begin

OPEN: Final = ("lockring", "lockring+compiled")
GUARDED: Final = ("lockring+rights", "lockring+compiled+rights")
"""The builds with TLS and rights, in the order of those without."""

_RAW: Final = dict.fromkeys(OPEN, PAIR) | dict.fromkeys(GUARDED, TLS_PAIR)
"""The raw sockets that carry the same bytes as a build, with TLS or without."""


def own_work_us(summary: Summary, peer: str) -> float | None:
    """Return what a pair takes a build beyond its bytes over a raw socket, None if that was not measured.

    Args:
        summary: the measurements.
        peer: one of `OPEN` or `GUARDED`.
    """
    whole_us = summary.median("doors", ONE_CORE, peer, "median_us")
    raw_us = summary.median("doors", ONE_CORE, _RAW[peer], "median_us")
    return None if whole_us is None or raw_us is None else whole_us - raw_us


WORKLOAD = Workload(
    name="doors",
    title="The cost of TLS and rights",
    peers={
        ONE_CORE: (
            *("lockring", "lockring+tls", "lockring+rights"),
            *("lockring+compiled", "lockring+compiled+tls", "lockring+compiled+rights"),
        )
    },
    how=InSlices(begin, lambda scale: scale.passes),
    rounds=lambda scale: scale.rounds,
    beside=(PAIR, TLS_PAIR),
)
