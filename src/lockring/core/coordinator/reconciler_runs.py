"""Runs of the reconciler: when the next one is due, and the knowledge it is given.

A run costs milliseconds, so there is one only when something has changed (`reschedule`) or a wait has ended, and at
most one per `reconcile_ns`. The ring's target is computed again only when the settled membership has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.reachability import Reachability
from lockring.core.coordinator.reconciler import Liveness, PlanInput, SlotPlan, plan
from lockring.core.coordinator.transitions import lives_of
from lockring.core.timing import Timing, earliest
from lockring.ids import NodeId, Version
from lockring.ring.hash_ring import HashRing
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS


class ReconcilerRuns:
    """The reconciler's memory between its runs. Not safe for use by several tasks.

    Attributes:
        waiting: slots that no node serves until leases have surely ended, as of the last run.
        learning: slots that have learners, as of the last run.
        reachability: which copies their primaries could not reach.
    """

    def __init__(self, timing: Timing, membership: MemberLeases, *, now_ns: int) -> None:
        self.waiting = 0
        self._waits_until_ns = now_ns
        self.learning = 0
        self._pause_ns = timing.reconcile_ns
        self._membership = membership
        self.reachability = Reachability()
        self._target: HashRing | None = None
        self._known_at_ns: dict[int, int] = {}
        self._changed_at_ns: int | None = None
        self._wake_at_ns: int | None = None
        self._planned_at_ns = now_ns - timing.reconcile_ns

    def reschedule(self, *, now_ns: int) -> None:
        """Make a run due: something has changed that the next step may depend on."""
        if self._changed_at_ns is None:
            self._changed_at_ns = now_ns

    def next_deadline_ns(self) -> int | None:
        """Return when to run, None if nothing has changed and no wait is open."""
        due_ns = earliest(self._changed_at_ns, self._wake_at_ns, self._membership.next_deadline_ns())
        return None if due_ns is None else max(due_ns, self._planned_at_ns + self._pause_ns)

    def waits(self, *, now_ns: int) -> tuple[int, int]:
        """Return how many slots wait for leases to end, and for how many milliseconds longer at most."""
        return self.waiting, max(0, self._waits_until_ns - now_ns) // NS_PER_MS

    def learn(self, state: ClusterState, *, now_ns: int, is_own: bool) -> None:
        """Note a state that is in force from now on; with `is_own`, all its new numbers are its own version."""
        self._known_at_ns[state.version] = now_ns
        if is_own and len(self._known_at_ns) <= 2 * SLOTS:
            return
        # Keep only versions that slots still name. One that is new here counts from now: later than the truth, so safe.
        known_at_ns: dict[int, int] = {}
        for slot in _different(state.slots):
            for version in (slot.since, 0 if slot.learner is None else slot.learner.joined):
                known_at_ns[version] = self._known_at_ns.get(version, now_ns)
        self._known_at_ns = known_at_ns

    def look(self, state: ClusterState, *, now_ns: int) -> bool:
        """Look whether a run is needed that is due, and return that.

        If only a member might have failed, and none has, the next look is planned, and no slot looked at.
        """
        is_needed = self._changed_at_ns is not None or (
            self._wake_at_ns is not None and now_ns >= self._wake_at_ns
        )
        return is_needed or self._membership.look(state.members, now_ns=now_ns)

    def observe(self, state: ClusterState, *, now_ns: int) -> None:
        """Begin a run: learn which members have settled, failed or returned, and aim at the ring of those that count.

        `run` follows. Which members it may release depends on the members that count.
        """
        self._planned_at_ns = now_ns
        self._changed_at_ns = None
        if self._membership.observe(state.members, now_ns=now_ns):
            self._target = _target_of(self._membership.settled, state, self._target)

    def run(
        self,
        state: ClusterState,
        *,
        version: Version,
        lease_wait_ns: int,
        leaving: frozenset[Replica],
        connected: Callable[[Replica], bool],
        heir_of: Callable[[Replica], Replica | None],
        now_ns: int,
    ) -> SlotPlan:
        """Find the next step from this state.

        Args:
            state: the state to go on from.
            version: of the state that the step will make.
            lease_wait_ns: how long a coordinator lease, lengthened, lasts.
            leaving: the members whose slots may be released.
            connected: reports whether a life has a connection.
            heir_of: returns the connected life that vouches for a former one, None if there is none.
            now_ns: the monotonic clock, in nanoseconds.
        """
        membership, reach = self._membership, self.reachability
        reach.expire(now_ns=now_ns)
        reach.forget_all_but(state.members)
        known_at_ns = self._known_at_ns
        step = plan(
            PlanInput(
                state=state,
                version=version,
                now_ns=now_ns,
                target=self._target,
                liveness=lambda replica: _liveness_of(state, membership, connected, replica, now_ns),
                # A version that is only being written now has not been in force yet.
                age_ns=lambda version: now_ns - known_at_ns.get(version, now_ns),
                avoided=lambda primary, copy: reach.is_avoided(primary, copy, now_ns=now_ns),
                lease_wait_ns=lease_wait_ns,
                leaving=leaving,
                heir_of=heir_of,
            )
        )
        for primary, copy in step.timed_out:
            reach.dropped(primary, copy, version=version, now_ns=now_ns)
        self.waiting, self.learning = step.waiting, step.learning
        self._waits_until_ns = step.waits_until_ns
        self._wake_at_ns = earliest(step.wake_at_ns, reach.next_deadline_ns())
        return step


def lives_in(slots: tuple[SlotState, ...]) -> list[Replica]:
    """Return all lives that any slot names, some more than once."""
    return [replica for slot in _different(slots) for replica in lives_of(slot)]


def _different(slots: tuple[SlotState, ...]) -> list[SlotState]:
    """Return one slot per object: most slots are the same object as another."""
    return list({id(slot): slot for slot in slots}.values())


def _liveness_of(
    state: ClusterState,
    membership: MemberLeases,
    connected: Callable[[Replica], bool],
    replica: Replica,
    now_ns: int,
) -> Liveness:
    gone = not state.is_current(replica)
    dead = gone or membership.is_failed(replica, now_ns=now_ns)
    usable = (
        not dead
        and replica in membership.settled
        and membership.was_heard(replica)
        and state.members[replica.node].condition != "draining"
    )
    return Liveness(
        dead=dead,
        usable=usable,
        gone=gone,
        unacknowledged_ns=membership.unacknowledged_ns(replica, now_ns=now_ns),
        connected=connected(replica) and not membership.is_silent(replica, now_ns=now_ns),
    )


def _target_of(
    settled: Mapping[Replica, int], state: ClusterState, previous: HashRing | None
) -> HashRing | None:
    """Return the ring of the settled members, derived from the previous one; without one, from where the slots are.

    Only a ring derived from the previous one moves nothing between two members that are in both.
    """
    if not settled:
        return None
    members: dict[NodeId, int] = {replica.node: weight for replica, weight in settled.items()}
    if previous is not None:
        return HashRing(members, previous=previous)
    return HashRing.resume(
        members,
        [None if slot.primary is None else slot.primary.node for slot in state.slots],
        [None if slot.backup is None else slot.backup.replica.node for slot in state.slots],
    )
