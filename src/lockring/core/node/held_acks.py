"""A copy's acknowledgements that wait for its journal.

A primary answers a grant once its copies have acknowledged it, so a copy that keeps a journal acknowledges a position
only once the journal has it. The lease that comes with each acknowledgement must not wait for long:

- Acknowledgements to one primary leave in order, since a later one makes its primary forget the earlier ones.
- Those given by one state leave as one; those given by different states do not. From the last one that was given by an
  older state, the primary learns what it has to send again, since the copy did not know yet that it is one.
- If the oldest has waited for longer than a tick, all but the newest leave for their leases alone. They do not mean
  that the copy lacks what they do not mention. So the last one of each state goes on waiting, and leaves once more.
- Those given by a state that the journal lacks do not leave for that either. By an older state they would promise a
  primary the slots that this copy has taken over from it since.
- The newest says what all of them do, for a primary of an earlier release, to which the others have left for good.
- That ends after a third of the backup lease: then the primary hears nothing, and does without this copy after the
  time that it would take to miss a dead one. A copy whose disk fails must not hold up grants for longer.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Replica
from lockring.core.node.journal import NEVER
from lockring.ids import SequenceNumber, Version
from lockring.protocol import Position
from lockring.units import NS_PER_MS

HELD_NS: Final = 100 * NS_PER_MS
"""How long a lease may wait for the positions that go with it."""


class HeldAck:
    """An acknowledgement that waits.

    Attributes:
        sequence: of the primary's message.
        version: of the cluster state that was known when that came. An acknowledgement is one that left then, and was
            slow on its way.
        number: of the batch that it waits for.
        positions: in order; a later one of the same slot says more.
        since_ns: since when the oldest of its positions has been waiting.
        has_given_lease: whether it has left for its lease alone.
    """

    __slots__ = ("has_given_lease", "number", "positions", "sequence", "since_ns", "version")

    def __init__(
        self,
        sequence: SequenceNumber,
        version: Version,
        *,
        number: int,
        positions: list[Position],
        since_ns: int,
    ) -> None:
        self.sequence = sequence
        self.version = version
        self.number = number
        self.positions = positions
        self.since_ns = since_ns
        self.has_given_lease = False

    def take_positions(self, earlier: HeldAck) -> None:
        """Say what an earlier acknowledgement has said too, and wait for what that has waited for."""
        self.number = max(self.number, earlier.number)
        by_slot = {position.slot: position for position in (*earlier.positions, *self.positions)}
        self.positions = list(by_slot.values())
        self.since_ns = earlier.since_ns


class HeldAcks:
    """All acknowledgements of a node that wait.

    Attributes:
        by_primary: in order; none of the lists is empty.
        awaits_rewrite: whether some may wait for the end of a rewrite.
    """

    def __init__(self) -> None:
        self.by_primary: dict[Replica, list[HeldAck]] = {}
        self.awaits_rewrite = False

    def hold(self, primary: Replica, held: HeldAck) -> None:
        """Let an acknowledgement wait, behind all others to its primary."""
        waiting = self.by_primary.get(primary)
        if waiting is None:
            self.by_primary[primary] = [held]
        else:
            waiting.append(held)
        if held.number == NEVER:
            self.awaits_rewrite = True

    def take_durable(self, durable: int) -> list[tuple[Replica, HeldAck]]:
        """Take out what waits for no more than this batch, as one acknowledgement for each primary and version."""
        found: list[tuple[Replica, HeldAck]] = []
        for primary, waiting in list(self.by_primary.items()):
            if len(waiting) == 1 and waiting[0].number <= durable:  # nearly always, where writing is enough
                found.append((primary, waiting[0]))
                del self.by_primary[primary]
                continue
            count = 0
            while count < len(waiting) and waiting[count].number <= durable:
                count += 1
            if count:
                found += [(primary, held) for held in _one_per_version(waiting[:count])]
                del waiting[:count]
                if not waiting:
                    del self.by_primary[primary]
        return found

    def take_late(
        self, journal_version: Version, backup_lease_ns: int, now_ns: int
    ) -> list[tuple[Replica, HeldAck]]:
        """Let the newest of what has waited too long say what the others do.

        Args:
            journal_version: of the newest state that the journal has.
            backup_lease_ns: how long a lease lasts.
            now_ns: the time.

        Returns:
            The others, to leave for their leases alone: one for each primary and version. Nothing, where even that has
            gone on for too long.
        """
        found: list[tuple[Replica, HeldAck]] = []
        for primary, waiting in self.by_primary.items():
            waited_ns = now_ns - waiting[0].since_ns
            if waited_ns < HELD_NS or len(waiting) == 1:
                continue
            newest, others = waiting[-1], _one_per_version(waiting[:-1])
            for held in reversed(others):
                newest.take_positions(held)
            if waited_ns < backup_lease_ns // 3:
                due = [
                    held for held in others if held.version <= journal_version and not held.has_given_lease
                ]
                found += [(primary, held) for held in due]
                for held in due:
                    held.has_given_lease = True
            if others[-1].version == newest.version:
                del others[-1]
            waiting[:] = [*others, newest]
        return found

    def lost(self) -> None:
        """Let everything wait for the end of a rewrite, since what it waited for is lost."""
        self.awaits_rewrite = True
        for waiting in self.by_primary.values():
            for held in waiting:
                held.number = NEVER

    def recovered(self, durable: int) -> None:
        """Wait for no rewrite any more: all that was missing is in a batch up to this one."""
        self.awaits_rewrite = False
        for waiting in self.by_primary.values():
            for held in waiting:
                if held.number == NEVER:
                    held.number = durable

    def forget(self, primary: Replica) -> None:
        """Drop what waits for a primary that is gone."""
        self.by_primary.pop(primary, None)


def _one_per_version(waiting: list[HeldAck]) -> list[HeldAck]:
    """Fold acknowledgements, in order, into the last one that was given by each version."""
    kept: list[HeldAck] = []
    for held in waiting:
        if kept and kept[-1].version == held.version:
            held.take_positions(kept.pop())
        kept.append(held)
    return kept
