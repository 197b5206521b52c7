"""A node's rights and promises: until when it may serve, and until when it must not.

Rules (after PacificA, Lin et al., MSR-TR-2008-25, section 2):

- A node serves only while it has the coordinator's lease, counted from the *sending* of the heartbeat that was
  acknowledged, and, where copies must acknowledge, the lease of each of them, counted the same way.
- A copy that acknowledged a message will not serve in that primary's place until `up(T)` after it did.
- An acknowledgement that carries a newer version of the cluster state than the receiver's counts only once the
  receiver has that version: until then the receiver may not know that its reign is over.
- One from a copy that did not know the reign yet gives no lease for it.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import Replica
from lockring.core.timing import DISTANT_PAST_NS, up
from lockring.ids import NO_SEQUENCE, NO_VERSION, SequenceNumber, Version

_SENT_KEPT_MAX: Final = 4096


class SentTimes:
    """When the numbered messages to one receiver were sent, for as long as an answer may come.

    Of very many without an answer, the oldest are forgotten: the lease that they would give is over by then.

    Attributes:
        sequence: number of the last one.
    """

    __slots__ = ("_answered", "_at_ns", "sequence")

    def __init__(self) -> None:
        self.sequence = NO_SEQUENCE
        self._answered = NO_SEQUENCE
        self._at_ns: dict[SequenceNumber, int] = {}

    def add(self, now_ns: int) -> SequenceNumber:
        """Give a number to the message that is sent now, and return it."""
        sequence: SequenceNumber = self.sequence + 1  # type: ignore[assignment]  # born here
        self.sequence = sequence
        at_ns = self._at_ns
        at_ns[sequence] = now_ns
        if len(at_ns) > _SENT_KEPT_MAX:
            del at_ns[next(iter(at_ns))]
        return sequence

    def at_ns(self, sequence: SequenceNumber) -> int | None:
        """Return when a message was sent; None if it is not known."""
        return self._at_ns.get(sequence)

    def pop(self, sequence: SequenceNumber) -> int | None:
        """Forget a message and all before it, and return when it was sent; None if it is not known."""
        at_ns = self._at_ns.get(sequence)
        if at_ns is not None:
            self._answered = sequence
            for each in list(self._at_ns):
                if each > sequence:
                    break
                del self._at_ns[each]
        return at_ns

    def has_forgotten(self, sequence: SequenceNumber) -> bool:
        """Return whether a message is not answered yet, though it is not known any more when it was sent."""
        return self._answered < sequence <= self.sequence and sequence not in self._at_ns


class Lease:
    """One lease that another gives, and the acknowledgements that are set aside until we know as much as they did.

    Attributes:
        until_ns: the lease holds before this time.
        version: newest version that its giver has acknowledged with.
    """

    __slots__ = ("_set_aside", "until_ns", "version")

    def __init__(self) -> None:
        self.until_ns = DISTANT_PAST_NS
        self.version = NO_VERSION
        self._set_aside: list[tuple[int, Version]] = []

    def acknowledged(self, until_ns: int, version: Version, known_version: Version) -> None:
        """Count an acknowledgement that was given at `version`, at a receiver that knows `known_version`."""
        if version > known_version:
            if len(self._set_aside) >= 64:
                del self._set_aside[0]
            self._set_aside.append((until_ns, version))
            return
        if until_ns > self.until_ns:
            self.until_ns = until_ns
        if version > self.version:
            self.version = version

    def learned(self, known_version: Version) -> None:
        """Count what was set aside until this version is known."""
        if self._set_aside:
            waiting, self._set_aside = self._set_aside, []
            for until_ns, version in waiting:
                self.acknowledged(until_ns, version, known_version)


class Promises:
    """A copy's promises to its primaries: it does not serve in their place for a while."""

    __slots__ = ("_acknowledged_at_ns", "heard_at_ns")

    def __init__(self) -> None:
        self._acknowledged_at_ns: dict[Replica, int] = {}
        self.heard_at_ns: dict[Replica, int] = {}

    def acknowledge(self, primary: Replica, now_ns: int) -> None:
        """Remember that an acknowledgement to this primary leaves now."""
        self._acknowledged_at_ns[primary] = now_ns
        self.heard_at_ns[primary] = now_ns

    def bound_until_ns(self, primary: Replica, backup_lease_ns: int) -> int:
        """Return the time before which this node will not serve in that primary's place."""
        at_ns = self._acknowledged_at_ns.get(primary)
        return DISTANT_PAST_NS if at_ns is None else at_ns + up(backup_lease_ns)

    def forget(self, primary: Replica, now_ns: int, backup_lease_ns: int) -> None:
        """Drop what is remembered of a replica that left, once nothing is promised to it any more."""
        if self.bound_until_ns(primary, backup_lease_ns) <= now_ns:
            self._acknowledged_at_ns.pop(primary, None)
            self.heard_at_ns.pop(primary, None)
