"""The cost of locked doors: one blocking client as in `single`, without TLS, with it, and with TLS and rights.

TLS itself costs something on every transport. So the same bytes go through raw sockets beside it, with and without TLS:
what a pair takes beyond them is lockring's own work, which TLS and rights shall hardly add to.
"""

from __future__ import annotations

from typing import Final

from bench.beside import PAIR, TLS_PAIR
from bench.workloads.base import ONE_CORE, InSlices, Workload
from bench.workloads.single import begin

OPEN: Final = ("lockring", "lockring+compiled")
GUARDED: Final = ("lockring+rights", "lockring+compiled+rights")
"""The builds with TLS and rights, in the order of those without."""

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
