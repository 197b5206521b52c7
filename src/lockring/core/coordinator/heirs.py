"""Heirs: present lives of nodes that go on with what former lives of the same node held.

A node that starts on its journal testifies, in its `Join`, that former lives of it are over and that it has everything
for which they have answered. The coordinator then gives it their slots at once, as if it were they. The rules:

- *A testimony is about the sender's own node*, and about lives before the sender's. A later heir takes an earlier one's
  place.
- *It counts while the connection stands on which it came.* No slot is left to a life that may have ended, and each
  connection brings the testimony again, to each coordinator.
- *It concerns what the state says, not the past.* A former life that the state no longer names in a slot leaves
  nothing there: another copy was better. One that was only catching up (a learner) has answered for nothing.
- *It is believed*, even if the former life's connection stands: it ends. A life that asks to join after its heir has is
  refused as any old life is, and operators are warned: two processes seem to work on copies of one journal.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockring.cluster_state import Replica
from lockring.ids import Incarnation


class Heirs:
    """The heirs that are connected, by the former lives for which they vouch. Not safe for use by several tasks."""

    def __init__(self) -> None:
        self._heirs: dict[Replica, Replica] = {}
        self._doubted: dict[Replica, None] = {}

    def add(self, heir: Replica, former: Iterable[Incarnation]) -> None:
        """Believe a life that vouches for former lives of its node, which `malformed` has checked."""
        for incarnation in former:
            self._heirs[Replica(heir.node, incarnation)] = heir

    def drop(self, heir: Replica) -> None:
        """Forget the testimony of a life whose connection has ended."""
        self._heirs = {former: each for former, each in self._heirs.items() if each != heir}
        self._doubted = {former: None for former in self._doubted if former in self._heirs}

    def contradict(self, former: Replica) -> bool:
        """Note that a life is not over, and return whether that contradicts a testimony for the first time."""
        if former not in self._heirs or former in self._doubted:
            return False
        self._doubted[former] = None
        return True

    def heir_of(self, former: Replica) -> Replica | None:
        """Return the connected life that vouches for a former one, None if there is none."""
        return self._heirs.get(former)

    def lives(self) -> list[Replica]:
        """Return the heirs, some more than once."""
        return list(self._heirs.values())
