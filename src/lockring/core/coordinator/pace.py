"""How long a coordinator waits so that one write, or one read of the store, serves many nodes.

Each write goes to every member, and each read brings the whole state. Both would be for one node at a time if a
thousand nodes come, ask and send heartbeats one by one. So what no client waits for is collected, for longer the more
members there are. In a small cluster nothing waits.
"""

from __future__ import annotations

from lockring.core.timing import FEW_MEMBERS, Timing


class Pace:
    """The pauses of a coordinator. Immutable.

    Args:
        timing: has the pauses for each member.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def newcomers_pause_ns(self, members: int) -> int:
        """Return the pause between two writes for new members alone, in a cluster of so many members."""
        return min(self._timing.stabilization_ns, self._timing.newcomers_pause_ns * _many(members))

    def requests_pause_ns(self, members: int) -> int:
        """Return how long requests are collected that no client waits for; not longer than a pause for newcomers."""
        return min(self._timing.stabilization_ns, self._timing.requests_pause_ns * _many(members))

    def confirming_pause_ns(self, members: int) -> int:
        """Return the pause between two confirming reads: far below the time between two heartbeats of a node."""
        timing = self._timing
        return min(timing.heartbeat_ns // 10, timing.confirming_pause_ns * _many(members))


def _many(members: int) -> int:
    return max(0, members - FEW_MEMBERS)
