"""How long a coordinator waits so that one write, or one read of the store, serves many nodes.

Each write goes to every member, and each read is a way to the store and back. Both would be for one node at a time if a
thousand nodes come, ask and send heartbeats one by one. So what no client waits for is collected, for longer the more
members there are. In a small cluster nothing waits.
"""

from __future__ import annotations

from typing import Final

from lockring.core.timing import Timing
from lockring.units import NS_PER_MS

FEW_MEMBERS: Final = 4
"""Number of members up to which a coordinator batches nothing by waiting: a write reaches so few at once."""

NEWCOMERS_NS: Final = 50 * NS_PER_MS
"""Pause between two writes for new members alone, for each member beyond those."""

REQUESTS_NS: Final = NS_PER_MS // 4
"""How long requests of nodes are collected that no client waits for, for each such member."""

CONFIRMING_NS: Final = NS_PER_MS // 50
"""Pause between two confirming reads of the store, for each such member."""


class Pace:
    """The pauses of a coordinator. Immutable.

    Args:
        timing: bounds the pauses.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def newcomers_pause_ns(self, members: int) -> int:
        """Return the pause between two writes for new members alone, in a cluster of so many members."""
        return min(self._timing.stabilization_ns, NEWCOMERS_NS * _many(members))

    def requests_pause_ns(self, members: int) -> int:
        """Return how long requests are collected that no client waits for; not longer than a pause for newcomers."""
        return min(self._timing.stabilization_ns, REQUESTS_NS * _many(members))

    def confirming_pause_ns(self, members: int) -> int:
        """Return the pause between two confirming reads: far below the time between two heartbeats of a node."""
        return min(self._timing.heartbeat_ns // 10, CONFIRMING_NS * _many(members))


def _many(members: int) -> int:
    return max(0, members - FEW_MEMBERS)
