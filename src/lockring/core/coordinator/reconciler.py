"""The way from where the slots are to where the ring wants them, one safe step at a time.

`plan` is a pure function. It looks at every slot and takes at most one step with it; all steps make one new state.
The rules, first match wins:

1. A slot whose primary or backup is a former life with an heir (`heirs`) goes to the heir, in the same place: the
   node is back with what it had. An heir of the primary begins a new reign; the backup stays if it is alive.
   An heir of the backup is in sync, for no grant was answered without the former life.
2. Primary gone or failed, backup alive: the backup is promoted once it is connected. It waits its promise out by
   itself.
3. Primary and backup gone or failed, or no node assigned: the slot is assigned empty to the ring's primary, but only
   when neither can have a right left: a coordinator lease, lengthened, has passed since the last acknowledgement
   of either, since the reign began, and since this coordinator's start. A slot that was never assigned does not wait.
   One that was given up in order, with its nodes' word on their promises, waits for the last of these (`farewells`).
4. The cluster is being stopped and no node is left to take over: slots of members that leave go to a backup that
   stays, or are released. Members that keep theirs in a journal stay in this sense.
5. A dead backup or learner is dropped, and so is a learner that does not come into sync. A backup is dropped only while
   the primary is connected: if the two ended together, the next that is back goes on.
6. The ring's primary is the backup: they swap. The former primary stays as backup.
7. The ring's primary is neither: it becomes learner; in sync, it replaces the backup, then rule 6.
8. The backup is not the ring's, or there is none: the ring's backup becomes learner; in sync, it replaces the other.

A life that has come back *settles* until the ring counts with it. It keeps what it has until then: a primary and its
backup stay where they are, and for rule 8 a backup stays unless its successor is learning already. A settling primary
without a backup has its data copied to one of the two nodes that the ring wants to have it.

Rule 1 waits for nothing: the former life's rights ended with it, and the reign of its heir begins behind them.
So every move makes before it breaks. Redundancy comes before placement: learners for slots without a backup are
started first, and the number of slots that have learners at one time is bounded, which paces a rebalance.

`gone` means that the cluster knows another life of the node, or none; `failed` that it has been silent for a member
lease; both are `dead` here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.core.coordinator.transitions import (
    assigned_empty,
    inherited,
    promoted,
    released,
    swapped,
    with_copies,
)
from lockring.ids import NodeId, SlotNumber, Version
from lockring.ring.hash_ring import HashRing
from lockring.slots import SLOTS
from lockring.units import NS_PER_S

LEARNERS_PER_NODE_MAX: Final = 256
"""Slots that one node learns at a time: a sixteenth of all, so that its snapshots come in bursts that it can take,
and a round (write, sync, ask, write) stays near a tenth of a second."""

LEARNERS_MAX: Final = 1024
"""Slots that have a learner at a time, anywhere: copies in flight when a coordinator or a primary dies are repeated."""

LEARNER_PATIENCE_NS: Final = 15 * NS_PER_S
"""How long a learner may take. A slot's snapshot takes well under a second; longer means that the two do not reach
each other, or that the primary may not serve."""

_NO_PLACES: Final[tuple[NodeId | None, ...]] = (None,) * SLOTS


class Liveness(NamedTuple):
    """The liveness of one life of a node.

    Attributes:
        dead: gone or failed.
        usable: may be given slots: alive, settled and not draining.
        gone: the cluster knows another life of the node, or none.
        unacknowledged_ns: for how long it cannot have got a coordinator lease.
        connected: has a connection to the coordinator, and has missed no heartbeats. Any other life may have ended,
            long before its silence shows it: nothing is left to it alone meanwhile.
    """

    dead: bool
    usable: bool
    gone: bool
    unacknowledged_ns: int
    connected: bool = True


class PlanInput(NamedTuple):
    """The input of `plan`.

    Attributes:
        state: the state to go on from.
        version: of the state that the steps will make.
        now_ns: the clock, for deadlines.
        target: the ring of the settled members, None while no member has settled.
        liveness: returns the liveness of a life; the same answer throughout.
        age_ns: returns for how long a version of the state has been known to be in force.
        avoided: reports whether a primary is known not to reach a copy.
        lease_wait_ns: how long a coordinator lease, lengthened, lasts.
        leaving: members whose slots may be released, since the cluster is being stopped.
        heir_of: returns the connected life that vouches for a former one, None if there is none.
    """

    state: ClusterState
    version: Version
    now_ns: int
    target: HashRing | None
    liveness: Callable[[Replica], Liveness]
    age_ns: Callable[[int], int]
    avoided: Callable[[Replica, Replica], bool]
    lease_wait_ns: int
    leaving: frozenset[Replica] = frozenset()
    heir_of: Callable[[Replica], Replica | None] = lambda former: None


class SlotPlan(NamedTuple):
    """The next step.

    Attributes:
        slots: all of them; the same tuple as the state's if there is nothing to do.
        members: the state's, with those active that now have a copy in sync.
        deposed: lives that lose slots: they get no acknowledgement while this is being written.
        timed_out: primaries with the copies that did not come into sync in time.
        waiting: number of slots that no node serves until leases have surely ended.
        learning: number of slots that have learners.
        wake_at_ns: when a wait ends, None if there is none.
        waits_until_ns: when the last of the waits for leases ends, `now_ns` if there is none.
    """

    slots: tuple[SlotState, ...]
    members: dict[NodeId, Member]
    deposed: frozenset[Replica]
    timed_out: list[tuple[Replica, Copy]]
    waiting: int
    learning: int
    wake_at_ns: int | None
    waits_until_ns: int


def plan(plan_input: PlanInput) -> SlotPlan:
    """Find the next safe step of every slot. Costs a few milliseconds, less when there is little to do."""
    return _PlanRun(plan_input).run()


class _LearnerRequest(NamedTuple):
    """A slot that needs a learner."""

    number: SlotNumber
    learner: Replica


class _Waits:
    """The waits that a run has found.

    Attributes:
        slots: how many slots wait for leases to end.
        leases_ns: the longest of these waits.
        next_ns: the time until the first wait of any kind is over, None if there is none.
    """

    def __init__(self) -> None:
        self.slots = 0
        self.leases_ns = 0
        self.next_ns: int | None = None

    def add(self, duration_ns: int) -> None:
        """Make another run due after this time."""
        if self.next_ns is None or duration_ns < self.next_ns:
            self.next_ns = duration_ns

    def add_slot(self, duration_ns: int) -> None:
        """Let a slot wait for leases to end."""
        self.slots += 1
        self.leases_ns = max(self.leases_ns, duration_ns)
        self.add(duration_ns)


class _PlanRun:
    """One run of `plan`, with its findings so far."""

    def __init__(self, plan_input: PlanInput) -> None:
        self._input = plan_input
        self._livenesses: dict[Replica, Liveness] = {}
        self._usable: dict[NodeId, Replica] = {
            node: member.replica
            for node, member in plan_input.state.members.items()
            if plan_input.liveness(member.replica).usable
        }
        self._deposed: dict[Replica, None] = {}
        self._timed_out: list[tuple[Replica, Copy]] = []
        self._urgent: list[_LearnerRequest] = []
        self._moves: list[_LearnerRequest] = []
        self._learners: dict[Replica, int] = {}
        self._learning = 0
        self._waits = _Waits()
        self._equal: dict[SlotState, SlotState] = {}

    def run(self) -> SlotPlan:
        """Plan the next step of all slots."""
        plan_input = self._input
        before = plan_input.state.slots
        after = list(before)
        target = plan_input.target
        primaries = _NO_PLACES if target is None else target.primaries
        backups = _NO_PLACES if target is None else target.backups
        # Slots with the same history are the same object, and most slots are as they should be.
        settled: dict[int, tuple[NodeId | None, NodeId | None]] = {}
        for number, slot in enumerate(before):
            place = settled.get(id(slot))
            if place is None:
                settled[id(slot)] = place = self._place_of(slot)
            if place[0] is not None and place[0] == primaries[number] and place[1] == backups[number]:
                continue
            step = self._step(SlotNumber(number), slot)
            if step is not slot:
                after[number] = self._equal.setdefault(step, step)
        self._start_learners(after)
        changed = any(a is not b for a, b in zip(after, before, strict=True))
        wake_at_ns = None if self._waits.next_ns is None else plan_input.now_ns + self._waits.next_ns
        return SlotPlan(
            slots=tuple(after) if changed else before,
            members=self._with_active_members(after),
            deposed=frozenset(self._deposed),
            timed_out=self._timed_out,
            waiting=self._waits.slots,
            learning=self._learning,
            wake_at_ns=wake_at_ns,
            waits_until_ns=plan_input.now_ns + self._waits.leases_ns,
        )

    @property
    def _lagging(self) -> bool:
        """Whether copies may lack mutations that clients already know of."""
        return self._input.state.replication == "async"

    def _place_of(self, slot: SlotState) -> tuple[NodeId | None, NodeId | None]:
        """Return primary and backup of a slot that needs nothing but perhaps another place; None, None otherwise."""
        if slot.primary is None or slot.learner is not None or self._is_dead(slot.primary):
            return None, None
        if self._input.leaving:
            return None, None
        if slot.backup is None:
            return slot.primary.node, None
        if self._is_dead(slot.backup.replica):
            return None, None
        return slot.primary.node, slot.backup.replica.node

    # ----------------------------------------------------------------------- one slot

    def _step(self, number: SlotNumber, slot: SlotState) -> SlotState:
        plan_input, version = self._input, self._input.version
        primary, backup, learner = slot.primary, slot.backup, slot.learner
        bequeathed = self._bequeathed(slot)
        if bequeathed is not slot:
            return bequeathed
        if primary is None or self._is_dead(primary):
            return self._without_primary(number, slot)
        if primary in plan_input.leaving:
            # Without a successor a hand-over is impossible; a slot released in order can be assigned sooner than one
            # whose primary just vanishes.
            if backup is None or self._is_unwanted(backup):
                return released(slot, version)
            return self._swapped(slot, backup)
        if backup is not None and self._are_both_away(primary, backup):
            return slot
        if backup is not None and self._is_unwanted(backup):
            backup = None
        if learner is not None and (self._is_unwanted(learner) or self._time_out_if_due(primary, learner)):
            learner = None
        desired = self._desired_copy(number, primary, backup, learner)
        if desired is None and backup is not None and self._has_no_other_place(number, primary, backup):
            backup = None
        if desired is not None and backup is not None and desired == backup.replica:
            if self._desired_primary(number, primary) == desired:
                return self._swapped(slot, backup)
            learner = None
        elif learner is not None and plan_input.target is not None and backup is not None:
            # Without a backup any learner is worth finishing; with one, only the learner that will replace it.
            if learner.replica != desired:
                learner = None
        if learner is not None:
            self._learners[learner.replica] = self._learners.get(learner.replica, 0) + 1
            self._learning += 1
        elif desired is not None and (backup is None or backup.replica != desired):
            (self._urgent if backup is None else self._moves).append(_LearnerRequest(number, desired))
        if backup is slot.backup and learner is slot.learner:
            return slot
        return with_copies(slot, version, backup, learner)

    def _bequeathed(self, slot: SlotState) -> SlotState:
        """Put heirs in the places of former lives, and return the slot as it is then."""
        primary, backup = slot.primary, slot.backup
        if primary is None:
            return slot
        heir = self._heir_of(primary)
        if backup is not None:
            # The tenure stays: what named the former life's place in the primary's stream names the heir's.
            successor = self._heir_of(backup.replica)
            backup = backup if successor is None else Copy(successor, backup.joined)
        if heir is None:
            if backup is slot.backup:
                return slot
            return with_copies(slot, self._input.version, backup, slot.learner)
        # Gone or not: no heartbeat of it may be acknowledged once this is being written.
        self._deposed[primary] = None
        stays = backup is not None and not self._is_dead(backup.replica)
        copy = backup.replica if backup is not None and stays else None
        return inherited(slot, self._input.version, heir, copy, lagging=self._lagging)

    def _heir_of(self, former: Replica) -> Replica | None:
        heir = self._input.heir_of(former)
        if heir is None or self._is_dead(heir) or not self._liveness(heir).connected:
            return None
        return heir

    def _without_primary(self, number: SlotNumber, slot: SlotState) -> SlotState:
        plan_input, version = self._input, self._input.version
        primary, backup = slot.primary, slot.backup
        if primary is not None and backup is not None and not self._is_dead(backup.replica):
            if not self._liveness(backup.replica).connected:
                # Neither does anything now. The next that is back has the slot: the backup, or the primary's heir.
                return slot
            self._depose(primary)
            # The former primary may still hold its leases: the promoted copy itself waits its promise out.
            return promoted(slot, version, lagging=self._lagging)
        farewell = plan_input.state.farewell
        if primary is None and farewell is not None and slot.since <= farewell.version:
            if plan_input.now_ns < farewell.until_ns:
                self._waits.add_slot(farewell.until_ns - plan_input.now_ns)
                return slot
        elif slot.base > 0:
            # No copy can vouch for what was held, so every lease that could still cover it must end first.
            passed_ns = plan_input.age_ns(slot.since)
            for replica in (primary, None if backup is None else backup.replica):
                if replica is not None:
                    passed_ns = min(passed_ns, self._liveness(replica).unacknowledged_ns)
            if passed_ns < plan_input.lease_wait_ns:
                left_ns = plan_input.lease_wait_ns - passed_ns
                self._waits.add_slot(left_ns)
                return slot
        node = None if plan_input.target is None else plan_input.target.primary(number)
        successor = None if node is None else self._usable.get(node)
        if successor is None:
            return slot
        for replica in (primary, None if backup is None else backup.replica):
            if replica is not None:
                self._depose(replica)
        return assigned_empty(slot, version, successor)

    def _are_both_away(self, primary: Replica, backup: Copy) -> bool:
        """Return whether both copies may have ended, perhaps together: then neither is given up, nor anything begun."""
        return self._is_dead(backup.replica) and not self._liveness(primary).connected

    def _is_unwanted(self, copy: Copy) -> bool:
        return self._is_dead(copy.replica) or copy.replica in self._input.leaving

    def _swapped(self, slot: SlotState, backup: Copy) -> SlotState:
        """Return the slot with primary and backup in each other's place, once the backup is connected and can begin."""
        if not self._liveness(backup.replica).connected:
            return slot
        return swapped(slot, self._input.version, lagging=self._lagging)

    def _has_no_other_place(self, number: SlotNumber, primary: Replica, backup: Copy) -> bool:
        """Return whether a copy is on a draining member while the ring has no other member for it."""
        plan_input = self._input
        if not self._liveness(primary).connected:
            return False
        if not self._is_draining(backup.replica):
            return False
        return plan_input.target is not None and plan_input.target.backup(number) is None

    def _is_draining(self, replica: Replica) -> bool:
        member = self._input.state.members.get(replica.node)
        return member is not None and member.condition == "draining"

    def _time_out_if_due(self, primary: Replica, learner: Copy) -> bool:
        """Time out a learner that has had its time, or plan to look again then; return whether it timed out."""
        age_ns = self._input.age_ns(learner.joined)
        if age_ns < LEARNER_PATIENCE_NS:
            self._waits.add(LEARNER_PATIENCE_NS - age_ns)
            return False
        self._timed_out.append((primary, learner))
        return True

    # ----------------------------------------------------------------------- desired places

    def _desired_copy(
        self, number: SlotNumber, primary: Replica, backup: Copy | None, learner: Copy | None
    ) -> Replica | None:
        """Return the next copy in sync: the future primary, or else the future backup; None to leave it as it is."""
        target = self._input.target
        if target is None:
            return None
        if self._is_settling(primary):
            if backup is None or self._is_draining(backup.replica):
                return self._first_usable(number, self._place_beside(number, primary), primary, backup)
            if learner is not None and learner.replica.node in self._places(number):
                return learner.replica if self._liveness(learner.replica).usable else backup.replica
            return backup.replica
        successor = self._desired_primary(number, primary)
        if successor != primary:
            return successor
        choice = self._first_usable(number, target.backup(number), primary, backup)
        if backup is not None and self._is_settling(backup.replica):
            is_begun = learner is not None and learner.replica == choice
            return choice if is_begun else backup.replica
        return choice

    def _places(self, number: SlotNumber) -> tuple[NodeId | None, NodeId | None]:
        """Return the two nodes that the ring wants to have a slot."""
        target = self._input.target
        assert target is not None
        return target.primary(number), target.backup(number)

    def _place_beside(self, number: SlotNumber, primary: Replica) -> NodeId | None:
        """Return the node that should have the copy of a settling primary.

        The ring may lack the primary. Its own primary for the slot is then as good a place, and perhaps the only one.
        Where neither of its two can be used, its backup's place decides, as for any other primary.
        """
        leader, follower = self._places(number)
        others = [node for node in (leader, follower) if node is not None and node != primary.node]
        usable = next((node for node in others if node in self._usable), None)
        return usable or follower or next(iter(others), None)

    def _desired_primary(self, number: SlotNumber, primary: Replica) -> Replica:
        target = self._input.target
        assert target is not None
        node = target.primary(number)
        if node is None or node == primary.node or self._is_settling(primary):
            return primary
        if primary.node in self._usable:
            # It may stay where it is while the ring's choice is away, or does not answer it.
            desired = self._usable.get(node)
            if desired is None or self._input.avoided(primary, desired):
                return primary
            return desired
        return self._first_usable(number, node, primary, None) or primary

    def _is_settling(self, replica: Replica) -> bool:
        """Return whether a life will soon count for the ring, and does not yet: it keeps what it has until then.

        A node that comes back with its journal goes on as a new life, and each change of the members puts off the end
        of the window in which it settles. The ring may lack it meanwhile, and what was moved off it would come home.
        """
        liveness = self._liveness(replica)
        return not (liveness.dead or liveness.usable or self._is_draining(replica))

    def _first_usable(
        self, number: SlotNumber, node: NodeId | None, primary: Replica, backup: Copy | None
    ) -> Replica | None:
        """Return the ring's choice if it is usable and reachable, else the next such member on the ring."""
        plan_input, target = self._input, self._input.target
        assert target is not None
        if node is None:
            return None
        choice = self._usable.get(node)
        if choice is None and node != primary.node:
            # Away, but not settled as away: wait for it rather than move things twice.
            return None if backup is None else backup.replica
        if choice is not None and choice != primary and not plan_input.avoided(primary, choice):
            return choice
        if backup is not None and backup.replica.node in self._usable:
            return backup.replica
        fallback = choice if choice != primary else None
        for other in target.successors(number):
            replica = self._usable.get(other)
            if replica is None or replica == primary:
                continue
            if not plan_input.avoided(primary, replica):
                return replica
            fallback = fallback or replica
        return fallback

    # ----------------------------------------------------------------------- all slots

    def _start_learners(self, after: list[SlotState]) -> None:
        # Redundancy first: a slot without a backup loses its locks with its primary, a misplaced one loses nothing.
        version = self._input.version
        for number, replica in self._urgent + self._moves:
            if self._learning >= LEARNERS_MAX:
                break
            learners = self._learners.get(replica, 0)
            if learners >= LEARNERS_PER_NODE_MAX:
                continue
            self._learners[replica] = learners + 1
            self._learning += 1
            slot = after[number]
            step = with_copies(slot, version, slot.backup, Copy(replica, version))
            after[number] = self._equal.setdefault(step, step)

    def _with_active_members(self, after: list[SlotState]) -> dict[NodeId, Member]:
        members = self._input.state.members
        joining = {node: m for node, m in members.items() if m.condition == "joining"}
        if not joining:
            return members
        in_sync: dict[Replica, None] = {}
        for slot in {id(slot): slot for slot in after}.values():
            if slot.primary is not None:
                in_sync[slot.primary] = None
            if slot.backup is not None:
                in_sync[slot.backup.replica] = None
        active = {
            node: msgspec.structs.replace(member, condition="active")
            for node, member in joining.items()
            if member.replica in in_sync
        }
        return {**members, **active} if active else members

    # ----------------------------------------------------------------------- small things

    def _liveness(self, replica: Replica) -> Liveness:
        liveness = self._livenesses.get(replica)
        if liveness is None:
            self._livenesses[replica] = liveness = self._input.liveness(replica)
        return liveness

    def _is_dead(self, replica: Replica) -> bool:
        return self._liveness(replica).dead

    def _depose(self, replica: Replica) -> None:
        # A life that is gone cannot be acknowledged anyway: the state names another one.
        if not self._liveness(replica).gone:
            self._deposed[replica] = None
