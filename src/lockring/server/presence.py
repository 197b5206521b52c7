"""The nodes that a coordinator sees come and go, for the log.

- *A node that comes and goes again and again* is one trouble: it is logged when it begins, once a minute, and when the
  node has stayed. A life that was not seen before always has a line.
- *Absence in a time of the coordinator's own trouble* says nothing of the nodes. A coordinator whose store fails renews
  no leases, so nodes leave it to look for another one; and one that stood still finds that they have left. So no node
  is called absent then, nor for a member lease afterwards, in which those that live come back.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Replica
from lockring.core.coordinator import CoordinatorStatus
from lockring.ids import Incarnation, NodeId
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_MS, NS_PER_S

CALM_NS: Final = 10 * NS_PER_S
"""How long a node must have stayed for its next departure to count as new trouble."""

STALL_NS: Final = 500 * NS_PER_MS
"""How much later than planned a coordinator looks at its nodes if it stood still meanwhile."""

_LIVES_MAX: Final = 10_000
"""Nodes that are remembered; the longest known one is forgotten then, and has a line the next time."""


class Presence:
    """See the module. Not safe for use by several tasks.

    Args:
        look_ns: how often `absent` is called at least.
        member_lease_ns: how long a node may be silent that lives.
        now_ns: the monotonic clock, in nanoseconds.
    """

    def __init__(self, *, look_ns: int, member_lease_ns: int, now_ns: int) -> None:
        self._look_ns = look_ns
        self._member_lease_ns = member_lease_ns
        self._looked_at_ns = now_ns
        self._excused_until_ns = now_ns
        self._lives: dict[NodeId, tuple[Incarnation, RepeatedTrouble]] = {}

    def connected(self, life: Replica, *, now_ns: int) -> str:
        """Note that a node was welcomed; return the line for the log, "" for none."""
        known = self._lives.get(life.node)
        line = f"node {life.node}#{life.incarnation} is connected"
        if known is None or known[0] != life.incarnation:
            if len(self._lives) >= _LIVES_MAX and life.node not in self._lives:
                del self._lives[next(iter(self._lives))]
            self._lives[life.node] = life.incarnation, RepeatedTrouble(calm_ns=CALM_NS)
            return line
        so_far = known[1].ends(now_ns=now_ns)
        return f"{line} again ({so_far})" if so_far else ""

    def disconnected(self, life: Replica, reason: str, *, now_ns: int) -> str:
        """Note that a node's connection has ended; return the line for the log, "" for none."""
        known = self._lives.get(life.node)
        line = f"node {life.node} is disconnected: {reason}"
        if known is None or known[0] != life.incarnation:
            return line
        return known[1].fails(line, now_ns=now_ns)

    def absent(self, status: CoordinatorStatus, *, now_ns: int) -> tuple[NodeId, ...]:
        """Return the ids of the members that have failed, or whose connection has ended, and that are not excused.

        Args:
            status: of the coordinator, as of now.
            now_ns: the monotonic clock, in nanoseconds.
        """
        has_stood_still = now_ns - self._looked_at_ns >= self._look_ns + STALL_NS
        self._looked_at_ns = now_ns
        if has_stood_still or status.is_store_failing:
            self._excused_until_ns = now_ns + self._member_lease_ns
        return () if now_ns < self._excused_until_ns else status.absent
