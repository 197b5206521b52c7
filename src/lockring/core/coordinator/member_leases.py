"""Failure detection: the members' leases, and the window that batches changes of membership.

Two times are kept for every life of a node. They must not be confused:

- *heard*: when its last message arrived. A member lease of silence makes it *failed*: copies are promoted or
  dropped. That is a guess, and a wrong one costs a failover, never a lock: promoted copies wait their promise out.
- *acknowledged*: when its last heartbeat was acknowledged. Only this says when the node can no longer have the right
  to serve, so only this counts where a slot is given away without the consent of one of its copies.

Silence counts from the coordinator's own start, and from the end of a time in which no node at all was heard: then
the coordinator was cut off or asleep, rather than all nodes dead.

A member that neither has failed nor drains is a *candidate*. Candidates that have not changed for the stabilization
window are *settled*, and make up the ring. A drop and a return within the window are no change at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from lockring.cluster_state import Member, Replica
from lockring.core.timing import Timing, earliest
from lockring.ids import NodeId
from lockring.units import NS_PER_MS, NS_PER_S

LATELY_NS: Final = 3 * NS_PER_S
"""How recently a connected life was heard if it counts as running: three heartbeats, less than a member lease."""


class _Candidates(NamedTuple):
    """The candidates, with their weights, and since when they are these."""

    members: dict[Replica, int]
    since_ns: int


class MemberLeases:
    """When each life was heard and acknowledged, and the members that have settled. Not safe for use by several tasks.

    Attributes:
        settled: the lives that make up the ring, with their weights, in the order of their ids.
        updates: how often `settled` has changed.
    """

    def __init__(self, timing: Timing, *, now_ns: int) -> None:
        self.settled: dict[Replica, int] = {}
        self.updates = 0
        self._timing = timing
        # Longer than the pause between heartbeats that all nodes happen to send together, and shorter than the lease.
        # With half of a lease of 1.5 heartbeats, say, the survivors' heartbeats kept a dead node from ever failing.
        heartbeat_ns = timing.heartbeat_for_ns(timing.coordinator_lease_ns // NS_PER_MS)
        self._gap_ns = (heartbeat_ns + timing.member_lease_ns) // 2
        self._heard_at_ns: dict[Replica, int] = {}
        self._acknowledged_at_ns: dict[Replica, int] = {}
        self._started_at_ns = now_ns
        self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._candidates = _Candidates({}, now_ns)
        self._alive: dict[Replica, int] = {}
        self._look_at_ns: int | None = None

    def start(self, *, now_ns: int) -> None:
        """Begin a term: no silence counts from before it, and the window starts."""
        self._started_at_ns = now_ns
        self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._candidates = self._candidates._replace(since_ns=now_ns)

    # ----------------------------------------------------------------------- inputs

    def hear(self, replica: Replica, *, now_ns: int) -> bool:
        """Note a message of this life, and return whether it matters to planning: the life is new, or was silent."""
        news = replica not in self._heard_at_ns or self.is_silent(replica, now_ns=now_ns)
        # A gap in which no node was heard is the coordinator's own: else it would fail all members at once on waking.
        if now_ns - self._anyone_heard_at_ns > self._gap_ns:
            self._silence_from_ns = now_ns
        self._anyone_heard_at_ns = now_ns
        self._heard_at_ns[replica] = now_ns
        return news

    def acknowledge(self, replica: Replica, *, now_ns: int) -> None:
        """Note an acknowledgement to this life, which gives it a coordinator lease that began before now."""
        self._acknowledged_at_ns[replica] = now_ns

    def excuse(self, gap_ns: int, *, now_ns: int) -> None:
        """Discount `gap_ns`, for which the coordinator itself was suspended, from the silence of every life."""
        for replica, heard_at_ns in self._heard_at_ns.items():
            self._heard_at_ns[replica] = min(now_ns, heard_at_ns + gap_ns)
        self._silence_from_ns = min(now_ns, self._silence_from_ns + gap_ns)

    # ----------------------------------------------------------------------- queries

    def is_failed(self, replica: Replica, *, now_ns: int) -> bool:
        """Return whether this life has been silent for a member lease."""
        return now_ns - self._silent_from_ns(replica) >= self._timing.member_lease_ns

    def is_silent(self, replica: Replica, *, now_ns: int) -> bool:
        """Return whether this life has missed heartbeats: it may be over, though it has not failed yet.

        Lives that ended at one instant fail one after the other, by up to a heartbeat. The last of them is silent when
        the first one fails.
        """
        return now_ns - self._silent_from_ns(replica) >= self._gap_ns

    def is_expected(self, replica: Replica, *, now_ns: int) -> bool:
        """Return whether this life is alive, or has failed so recently that the ring still has it."""
        return replica in self.settled or not self.is_failed(replica, now_ns=now_ns)

    def was_heard(self, replica: Replica) -> bool:
        """Return whether this life was heard at all since the start; only then is it assigned anything."""
        return replica in self._heard_at_ns

    def heard_ago_ns(self, replica: Replica, *, now_ns: int) -> int | None:
        """Return how long ago the last message of this life arrived, None if none has."""
        heard_at_ns = self._heard_at_ns.get(replica)
        return None if heard_at_ns is None else now_ns - heard_at_ns

    def heard_lately(self, replica: Replica, *, now_ns: int) -> bool:
        """Return whether a message of this life arrived within the last `LATELY_NS`."""
        heard_at_ns = self._heard_at_ns.get(replica)
        return heard_at_ns is not None and now_ns - heard_at_ns < LATELY_NS

    def unacknowledged_ns(self, replica: Replica, *, now_ns: int) -> int:
        """Return how long this life cannot have got a coordinator lease: since its last acknowledgement, or the start.

        A predecessor may have acknowledged it until this term began, which is why the start counts as one.
        """
        return now_ns - max(self._acknowledged_at_ns.get(replica, self._started_at_ns), self._started_at_ns)

    def _silent_from_ns(self, replica: Replica) -> int:
        return max(self._heard_at_ns.get(replica, self._silence_from_ns), self._silence_from_ns)

    # ----------------------------------------------------------------------- the window

    def look(self, members: Mapping[NodeId, Member], *, now_ns: int) -> bool:
        """Look whether `observe` may find something new: return True, or plan the next look.

        Most looks find that every member has been heard since the last one.
        """
        alive = self._alive_of(members, now_ns)
        if alive.keys() != self._alive.keys():
            return True
        is_settled = self.settled == self._candidates.members
        settles_at_ns = self._candidates.since_ns + self._timing.stabilization_ns
        if not is_settled and now_ns >= settles_at_ns:
            return True
        failure_ns = min(alive.values(), default=None)
        self._look_at_ns = failure_ns if is_settled else earliest(failure_ns, settles_at_ns)
        return False

    def _alive_of(self, members: Mapping[NodeId, Member], now_ns: int) -> dict[Replica, int]:
        """Return the members that have not failed, each with the time at which it will have if nothing is heard."""
        lease_ns = self._timing.member_lease_ns
        failures = [
            (each.replica, self._silent_from_ns(each.replica) + lease_ns) for each in members.values()
        ]
        return {replica: failed_ns for replica, failed_ns in failures if failed_ns > now_ns}

    def observe(self, members: Mapping[NodeId, Member], *, now_ns: int) -> bool:
        """Update the candidates from the members of the state, and return whether `settled` has changed.

        Call it after every change of the members, after `hear` returned True, and when `next_deadline_ns` has come.
        """
        self._alive = alive = self._alive_of(members, now_ns)
        candidates: dict[Replica, int] = {}
        for node in sorted(members):
            member = members[node]
            if member.replica in alive and member.condition != "draining":
                candidates[member.replica] = member.weight
        if candidates != self._candidates.members:
            self._candidates = _Candidates(candidates, now_ns)
        self._look_at_ns = min(alive.values(), default=None)
        if candidates == self.settled:
            return False
        settles_at_ns = self._candidates.since_ns + self._timing.stabilization_ns
        if now_ns < settles_at_ns:
            self._look_at_ns = min([settles_at_ns, *alive.values()])
            return False
        self.settled = candidates
        self.updates += 1
        return True

    def next_deadline_ns(self) -> int | None:
        """Return when the next member may have failed, or the window ends; None if neither is ahead."""
        return self._look_at_ns

    def forget(self, named: Iterable[Replica]) -> None:
        """Forget all lives but these."""
        keep = frozenset(named)
        for known in (self._heard_at_ns, self._acknowledged_at_ns):
            for replica in [each for each in known if each not in keep]:
                del known[replica]
