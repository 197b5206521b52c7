"""The next state: everything that wants a change goes into one write, in a fixed order.

1. *Members* that have joined, that drain, or that no longer do (`roster`).
2. *Requests of nodes* about single slots (`slot_requests`): they do not wait for the reconciler's next turn. A life
   that has just been replaced among the members asks for nothing any more, and becomes no backup.
   In a large cluster, requests that no client waits for are collected for a moment (`pace`), and new members, if
   nothing else must be written.
3. *Farewells* of nodes that have given up their last slots.
4. *The reconciler's step*, if a run is due. It starts from the members and slots of 1 and 2, so it never contradicts
   them. Members that no slot needs any more are dropped behind it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.pace import Pace
from lockring.core.coordinator.reconciler_runs import ReconcilerRuns, lives_in
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.slot_requests import SlotRequestQueue
from lockring.core.farewells import Farewells
from lockring.core.timing import earliest
from lockring.ids import ConnectionId, Version
from lockring.protocol import Refusal, SlotRequests


class Moment(NamedTuple):
    """The time of a decision.

    Attributes:
        version: of the state that it makes.
        lease_wait_ns: how long a coordinator lease, lengthened, lasts.
        now_ns: the monotonic clock, in nanoseconds.
        wall_ns: the wall clock, in nanoseconds.
    """

    version: Version
    lease_wait_ns: int
    now_ns: int
    wall_ns: int


class Decision(NamedTuple):
    """The next state, and answers that do not wait for it.

    Attributes:
        state: the next state, still with the version of the present one; the present one itself if nothing changes.
        deposed: lives that lose slots by it: they get no acknowledgement while it is being written.
        refused: the operators' drains that are refused after all, each with its connection.
    """

    state: ClusterState
    deposed: frozenset[Replica]
    refused: list[tuple[ConnectionId, Refusal]]


class Decisions:
    """The sources of changes, joined. Not safe for use by several tasks.

    Args:
        roster: members that come, leave and drain.
        membership: which members have failed, and which make up the ring.
        runs: the reconciler.
        farewells: the words of nodes that stop.
        pace: how long changes wait for others.
    """

    def __init__(
        self,
        roster: Roster,
        membership: MemberLeases,
        runs: ReconcilerRuns,
        farewells: Farewells,
        pace: Pace,
    ) -> None:
        self._roster = roster
        self._membership = membership
        self._runs = runs
        self._farewells = farewells
        self._pace = pace
        self._requests = SlotRequestQueue()
        self._newcomers_from_ns: int | None = None

    def request(self, sender: Replica, ask: SlotRequests, *, now_ns: int) -> None:
        """Keep the requests of this life of a node for a decision; they have passed `check_requests`."""
        self._requests.add(sender, ask, now_ns=now_ns)

    def next_deadline_ns(self, state: ClusterState) -> int | None:
        """Return when to decide, None if nothing waits for that.

        Args:
            state: the state in force.
        """
        at_ns = self._runs.next_deadline_ns()
        if self._requests.has_any:
            at_ns = earliest(at_ns, self._requests.due_ns(self._pace.requests_pause_ns(len(state.members))))
        return earliest(at_ns, self._newcomers_from_ns) if self._roster.has_arrivals else at_ns

    def is_idle(self, *, now_ns: int) -> bool:
        """Return whether nothing could change the state: no request, no change of members, no run, no farewell."""
        due_ns = self._runs.next_deadline_ns()
        return not (
            (due_ns is not None and now_ns >= due_ns)
            or self._requests.has_any
            or self._roster.has_changes
            or self._farewells.is_open
        )

    def take_next(self, state: ClusterState, at: Moment) -> Decision:
        """Decide on the state to follow this one, and consume the requests that it answers.

        Args:
            state: the state in force.
            at: the time.
        """
        refused = self._roster.refuse_overtaken_drains(state, self._membership, at.now_ns)
        members = self._roster.next_members(state)
        after = state if members is state.members else msgspec.structs.replace(state, members=members)
        waits = members is not state.members and self._may_newcomers_wait(state, at.now_ns)
        with_newcomers = after
        slots = self._with_requests(after, at)
        # A write to many costs much: the steps that follow from requests go with them, out of turn.
        is_out_of_turn = slots is not after.slots and bool(self._pace.requests_pause_ns(len(state.members)))
        farewell = self._farewells.word(state, now_ns=at.now_ns, wall_ns=at.wall_ns)
        if slots is not state.slots or farewell is not state.farewell:
            after = msgspec.structs.replace(after, slots=slots, farewell=farewell)
        decision = Decision(after, frozenset(), refused)
        due_ns = self._runs.next_deadline_ns()
        is_due = due_ns is not None and at.now_ns >= due_ns and self._runs.look(after, now_ns=at.now_ns)
        if is_due or is_out_of_turn:
            decision = self._reconcile(state, after, at)._replace(refused=refused)
        if decision.state is with_newcomers and waits:
            return Decision(state, frozenset(), refused)
        if members is not state.members:
            self._newcomers_from_ns = at.now_ns + self._pace.newcomers_pause_ns(len(members))
        return decision

    def _may_newcomers_wait(self, state: ClusterState, now_ns: int) -> bool:
        """Return whether new members are written with the next write, as they are alone and one was just for others."""
        if self._newcomers_from_ns is None or now_ns >= self._newcomers_from_ns:
            return False
        return self._roster.has_newcomers_alone(state)

    def _with_requests(self, state: ClusterState, at: Moment) -> tuple[SlotState, ...]:
        """Apply the requests of nodes that are due, and return the slots."""
        pause_ns = self._pace.requests_pause_ns(len(state.members))
        due_ns = self._requests.due_ns(pause_ns)
        if due_ns is None or at.now_ns < due_ns:
            return state.slots
        return self._requests.apply(state, self._runs.reachability, version=at.version, now_ns=at.now_ns)

    def _reconcile(self, before: ClusterState, state: ClusterState, at: Moment) -> Decision:
        self._runs.observe(state, now_ns=at.now_ns)
        self._roster.judge_drains(before, self._membership, at.now_ns)
        step = self._runs.run(
            state,
            version=at.version,
            lease_wait_ns=at.lease_wait_ns,
            leaving=self._roster.released(),
            connected=self._roster.is_connected,
            heir_of=self._roster.heirs.heir_of,
            now_ns=at.now_ns,
        )
        members = self._roster.without_departed(
            step.members, lambda: lives_in(step.slots), self._membership, at.now_ns
        )
        if members is not state.members or step.slots is not state.slots:
            state = msgspec.structs.replace(state, members=members, slots=step.slots)
        return Decision(state, step.deposed, [])
