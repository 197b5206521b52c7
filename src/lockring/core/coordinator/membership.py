"""Which members are there: membership leases, and the window that batches their changes.

Two clocks run for every life of a node, and they must not be mixed up:

- *heard*: when its last message arrived. A member lease of silence makes it *failed*: copies are promoted or
  dropped. That is a guess, and a wrong one costs a fail-over, never a lock: promoted copies wait their promise out.
- *acknowledged*: when its last heartbeat was acknowledged. Only this says when the node can no longer have the right
  to serve, so only this counts where a slot is given away without the word of one of its copies.

Silence counts from the coordinator's own start, and from the end of a time in which nobody at all was heard: then
the coordinator was cut off or asleep, rather than everyone else dead.

Whoever is there and not draining is a *candidate*; candidates that have not changed for the stabilization window
are *settled*, and the ring is made of these. A drop and a return within the window are no change at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lockring.cluster_state import Member, Replica
from lockring.core.timing import Timing
from lockring.units import NS_PER_S

LATELY_NS: Final = 3 * NS_PER_S
"""A life that is connected and was heard this recently is running: three heartbeats, less than a member lease."""


class MemberLeases:
    """Who is heard, who is acknowledged, and who has settled. Not safe for use by several tasks.

    Attributes:
        settled: the lives that the ring is made of, with their weights, in the order of their ids.
        updates: how often `settled` has changed.
    """

    def __init__(self, timing: Timing, *, now_ns: int) -> None:
        self.settled: dict[Replica, int] = {}
        self.updates = 0
        self._timing = timing
        self._heard_at_ns: dict[Replica, int] = {}
        self._acknowledged_at_ns: dict[Replica, int] = {}
        self._started_at_ns = now_ns
        self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._candidates: dict[Replica, int] = {}
        self._candidates_since_ns = now_ns
        self._look_at_ns: int | None = None

    def start(self, *, now_ns: int) -> None:
        """A term begins: nobody's silence counts from before it, and the window starts."""
        self._started_at_ns = now_ns
        self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._candidates_since_ns = now_ns

    # ----------------------------------------------------------------------- what arrives

    def hear(self, replica: Replica, *, now_ns: int) -> bool:
        """A message of this life arrived. Returns whether that changes what may be done: it is new, or was failed."""
        news = replica not in self._heard_at_ns or self.is_failed(replica, now_ns=now_ns)
        if now_ns - self._anyone_heard_at_ns > self._timing.member_lease_ns // 2:
            self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._heard_at_ns[replica] = now_ns
        return news

    def acknowledge(self, replica: Replica, *, now_ns: int) -> None:
        """A heartbeat of this life is being acknowledged: it may serve for a coordinator lease from before now."""
        self._acknowledged_at_ns[replica] = now_ns

    def excuse(self, gap_ns: int, *, now_ns: int) -> None:
        """The coordinator itself stood still for `gap_ns`: that much of everyone's silence does not count."""
        for replica, heard_at_ns in self._heard_at_ns.items():
            self._heard_at_ns[replica] = min(now_ns, heard_at_ns + gap_ns)
        self._silence_from_ns = min(now_ns, self._silence_from_ns + gap_ns)

    # ----------------------------------------------------------------------- what is known

    def is_failed(self, replica: Replica, *, now_ns: int) -> bool:
        """Whether this life has been silent for a member lease."""
        return now_ns - self._silent_from_ns(replica) >= self._timing.member_lease_ns

    def is_expected(self, replica: Replica, *, now_ns: int) -> bool:
        """Whether this life is there, or has failed so lately that the ring still has it."""
        return replica in self.settled or not self.is_failed(replica, now_ns=now_ns)

    def was_heard(self, replica: Replica) -> bool:
        """Whether this life was heard at all since the start; only then is it given anything."""
        return replica in self._heard_at_ns

    def heard_ago_ns(self, replica: Replica, *, now_ns: int) -> int | None:
        """How long ago the last message of this life arrived, None if none has."""
        heard_at_ns = self._heard_at_ns.get(replica)
        return None if heard_at_ns is None else now_ns - heard_at_ns

    def heard_lately(self, replica: Replica, *, now_ns: int) -> bool:
        """Whether a message of this life arrived within the last `LATELY_NS`."""
        heard_at_ns = self._heard_at_ns.get(replica)
        return heard_at_ns is not None and now_ns - heard_at_ns < LATELY_NS

    def unacknowledged_ns(self, replica: Replica, *, now_ns: int) -> int:
        """For how long this life cannot have got a coordinator lease: since its last acknowledgement, or the start."""
        return now_ns - max(self._acknowledged_at_ns.get(replica, self._started_at_ns), self._started_at_ns)

    def _silent_from_ns(self, replica: Replica) -> int:
        return max(self._heard_at_ns.get(replica, self._silence_from_ns), self._silence_from_ns)

    # ----------------------------------------------------------------------- the window

    def observe(self, members: Mapping[str, Member], *, now_ns: int) -> bool:
        """Look at the members as the state has them. Returns whether `settled` has changed by it.

        Call it after every change of the members, after `hear` returned True, and when `next_deadline_ns` has come.
        """
        candidates: dict[Replica, int] = {}
        failures_ns: list[int] = []
        for node in sorted(members):
            member = members[node]
            if self.is_failed(member.replica, now_ns=now_ns):
                continue
            failures_ns.append(self._silent_from_ns(member.replica) + self._timing.member_lease_ns)
            if member.condition != "draining":
                candidates[member.replica] = member.weight
        if candidates != self._candidates:
            self._candidates = candidates
            self._candidates_since_ns = now_ns
        self._look_at_ns = min(failures_ns, default=None)
        if candidates == self.settled:
            return False
        settles_at_ns = self._candidates_since_ns + self._timing.stabilization_ns
        if now_ns < settles_at_ns:
            self._look_at_ns = min([settles_at_ns, *failures_ns])
            return False
        self.settled = candidates
        self.updates += 1
        return True

    def next_deadline_ns(self) -> int | None:
        """When somebody may have failed, or the window ends, None if there is nothing to wait for."""
        return self._look_at_ns

    def forget(self, named: Iterable[Replica]) -> None:
        """Keep only what is known of these lives."""
        keep = frozenset(named)
        for known in (self._heard_at_ns, self._acknowledged_at_ns):
            for replica in [each for each in known if each not in keep]:
                del known[replica]
