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
        primary: the life that it goes to.
        sequence: of the primary's message.
        version: of the cluster state that was known when that came. An acknowledgement is one that left then, and was
            slow on its way.
        number: of the batch that it waits for.
        positions: in order; a later one of the same slot says more.
        since_ns: since when the oldest of its positions has been waiting.
        has_given_lease: whether it has left for its lease alone.
    """

    __slots__ = ("has_given_lease", "number", "positions", "primary", "sequence", "since_ns", "version")

    def __init__(
        self,
        primary: Replica,
        sequence: SequenceNumber,
        version: Version,
        *,
        number: int,
        positions: list[Position],
        since_ns: int,
    ) -> None:
        self.primary = primary
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
        waiting: those to one primary in the order in which they were given.
        awaits_rewrite: whether some may wait for the end of a rewrite.
    """

    def __init__(self) -> None:
        self.waiting: list[HeldAck] = []
        self.awaits_rewrite = False

    def has(self, primary: Replica) -> bool:
        """Return whether something waits for a primary."""
        return any(held.primary == primary for held in self.waiting)

    def hold(self, held: HeldAck) -> None:
        """Let an acknowledgement wait, behind all others to its primary."""
        self.waiting.append(held)
        if held.number == NEVER:
            self.awaits_rewrite = True

    def take_durable(self, durable: int) -> list[HeldAck]:
        """Take out what waits for no more than this batch, as one acknowledgement for each primary and version."""
        waiting = self.waiting
        if len(waiting) == 1:  # nearly always, where writing is enough
            if waiting[0].number > durable:
                return []
            self.waiting = []
            return waiting
        found: list[HeldAck] = []
        self.waiting = []
        for given in self._by_primary(waiting):
            count = 0
            while count < len(given) and given[count].number <= durable:
                count += 1
            found += _one_per_version(given[:count])
            self.waiting += given[count:]
        return found

    def take_late(self, journal_version: Version, backup_lease_ns: int, now_ns: int) -> list[HeldAck]:
        """Let the newest of what has waited too long say what the others do.

        Args:
            journal_version: of the newest state that the journal has.
            backup_lease_ns: how long a lease lasts.
            now_ns: the time.

        Returns:
            The others, to leave for their leases alone: one for each primary and version. Nothing, where even that has
            gone on for too long.
        """
        found: list[HeldAck] = []
        waiting, self.waiting = self.waiting, []
        for given in self._by_primary(waiting):
            waited_ns = now_ns - given[0].since_ns
            if waited_ns < HELD_NS or len(given) == 1:
                self.waiting += given
                continue
            newest, others = given[-1], _one_per_version(given[:-1])
            for held in reversed(others):
                newest.take_positions(held)
            if waited_ns < backup_lease_ns // 3:
                due = [
                    held for held in others if held.version <= journal_version and not held.has_given_lease
                ]
                found += due
                for held in due:
                    held.has_given_lease = True
            if others[-1].version == newest.version:
                del others[-1]
            self.waiting += [*others, newest]
        return found

    def lost(self) -> None:
        """Let everything wait for the end of a rewrite, since what it waited for is lost."""
        self.awaits_rewrite = True
        for held in self.waiting:
            held.number = NEVER

    def recovered(self, durable: int) -> None:
        """Wait for no rewrite any more: all that was missing is in a batch up to this one."""
        self.awaits_rewrite = False
        for held in self.waiting:
            if held.number == NEVER:
                held.number = durable

    def forget(self, primary: Replica) -> None:
        """Drop what waits for a primary that is gone."""
        self.waiting = [held for held in self.waiting if held.primary != primary]

    @staticmethod
    def _by_primary(waiting: list[HeldAck]) -> list[list[HeldAck]]:
        """Return what waits for each primary, in order."""
        found: dict[Replica, list[HeldAck]] = {}
        for held in waiting:
            found.setdefault(held.primary, []).append(held)
        return list(found.values())


def _one_per_version(waiting: list[HeldAck]) -> list[HeldAck]:
    """Fold acknowledgements, in order, into the last one that was given by each version."""
    kept: list[HeldAck] = []
    for held in waiting:
        if kept and kept[-1].version == held.version:
            held.take_positions(kept.pop())
        kept.append(held)
    return kept
