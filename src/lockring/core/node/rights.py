"""Until when a node may serve, looked up in one place.

Rules:

- A node serves a slot only as its active primary, with the coordinator's lease and that of every copy whose
  acknowledgement its grants need.
- A copy's lease counts for a reign only if the copy gave it knowing of that reign: a copy that does not yet know
  might still serve in the name of an earlier one.
"""

from __future__ import annotations

from lockring.core.node.leases import Lease
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import NO_VERSION, SlotNumber, Version


class Rights:
    """A node's rights at a given moment.

    Args:
        slots: the node's slots by number; the same object that the node changes.

    Attributes:
        coordinator_lease: the lease that the coordinator gives.
    """

    def __init__(self, slots: dict[SlotNumber, NodeSlot]) -> None:
        self.coordinator_lease = Lease()
        self._slots = slots
        self._needed: dict[Lease, Version] | None = None

    def may_serve(self, number: SlotNumber, *, now_ns: int) -> bool:
        """Return whether this node is a slot's active primary and cannot have been replaced by `now_ns`."""
        slot = self._slots.get(number)
        reign = None if slot is None else slot.reign
        if reign is None or self.coordinator_lease.until_ns <= now_ns:
            return False
        for stream in reign.streams.values():
            if stream.required:
                lease = stream.lease
                if lease.until_ns <= now_ns or lease.version < reign.since:
                    return False
        return True

    def may_serve_everything(self, now_ns: int) -> bool:
        """Return a conservative `may_serve` for all active slots at once.

        It may be False although every slot could be served, never the reverse: one look at each copy, rather than at
        each of up to 4096 slots, decides a keepalive.
        """
        return self.coordinator_lease.until_ns > now_ns and self.has_all_copy_leases(now_ns)

    def has_all_copy_leases(self, now_ns: int) -> bool:
        """Return whether every required copy gives its lease for the newest reign that needs it."""
        if self._needed is None:
            self._needed = self._newest_reign_by_lease()
        for lease, since in self._needed.items():
            if lease.until_ns <= now_ns or lease.version < since:
                return False
        return True

    def copy_lease_left_ns(self, now_ns: int) -> int | None:
        """Return the rest of the shortest lease that is needed of a copy, negative once it is over; None for none."""
        needed = self._newest_reign_by_lease() if self._needed is None else self._needed
        return min((lease.until_ns - now_ns for lease in needed), default=None)

    def coordinator_lease_left_ns(self, now_ns: int) -> int:
        """Return what is left of the coordinator's lease; negative once it is over."""
        return self.coordinator_lease.until_ns - now_ns

    def is_coordinator_lease_over(self, now_ns: int) -> bool:
        """Return whether the coordinator's lease has ended.

        It has not where there has been none yet: a new life that inherits slots has it a moment after its first
        heartbeat. Its copies must not ask for its slots before that.
        """
        return DISTANT_PAST_NS < self.coordinator_lease.until_ns <= now_ns

    def copies_changed(self) -> None:
        """Forget which copies are required, since that has changed."""
        self._needed = None

    def _newest_reign_by_lease(self) -> dict[Lease, Version]:
        newest: dict[Lease, Version] = {}
        for slot in self._slots.values():
            if slot.reign is not None:
                for stream in slot.reign.streams.values():
                    if stream.required:
                        newest[stream.lease] = max(newest.get(stream.lease, NO_VERSION), slot.reign.since)
        return newest
