"""A node's way out: what it still waits for once it has the order to stop, and for how long.

- While the coordinator is there, everything moves to the other nodes first. If no other is left, the coordinator
  takes the slots back at once, and the locks in them end with the node.
- A node with a journal keeps in it what no other node can take. Once every other node leaves too, it stops, and its
  slots wait for its next life.
- Without the coordinator nothing can move. A node on which nothing is need not wait for it; one on which something is
  gives a coordinator that is being restarted, or hangs, some seconds; one whose lease is over has nothing left to keep.
- A node that has to begin another life meanwhile has lost what it had, and need not join only to leave.
- It never waits longer than it was given.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, Replica
from lockring.core.effects import COORDINATOR, Depart, DepartureEnd
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.core.node.roles import ReleasedSlots
from lockring.core.timing import ASK_AGAIN_NS
from lockring.ids import RequestNumber
from lockring.protocol import DrainReply, Leave, Refusal
from lockring.units import NS_PER_MS, NS_PER_S

COORDINATOR_AWAY_NS_MAX: Final = 5 * NS_PER_S
"""How long a node that leaves goes without its coordinator before it stops without moving anything."""

COORDINATOR_SILENT_NS_MAX: Final = 10 * NS_PER_S
"""The same where the connection stands, and the coordinator acknowledges nothing on it."""


class Departure:
    """A departure from its order to its end.

    Attributes:
        is_over: whether the shell was asked to stop the node.
    """

    def __init__(
        self, context: NodeContext, tie: CoordinatorTie, released: ReleasedSlots, *, until_ns: int
    ) -> None:
        """Begin to leave.

        Args:
            context: the node's.
            tie: to the coordinator.
            released: the slots that were given up with no successor.
            until_ns: when the node stops whatever is left on it.
        """
        self._context = context
        self._tie = tie
        self._released = released
        self._begun_ns = context.now_ns
        self._until_ns = until_ns
        self._ended_before = released.locks
        self._has_begun = False
        self._request: RequestNumber | None = None
        self._asked_at_ns: int | None = None
        self._is_refused = False
        self._trouble = ""
        self.is_over = False

    def look(self, now_ns: int) -> None:
        """Take the next step, if there is one. The core calls it after every change, and with every tick."""
        if self.is_over:
            return
        self._ask(now_ns)
        if self._has_begun and self._end_if_drained():
            return
        away_since_ns = self._tie.away_since_ns
        if away_since_ns is not None and not self._context.state.cluster:
            self._end(DepartureEnd.NEW_LIFE)
        elif now_ns >= self._until_ns:
            self._end(DepartureEnd.TIMED_OUT)
        elif away_since_ns is not None:
            away_ns = now_ns - away_since_ns
            self._go_without_coordinator(now_ns, away_ns, is_given_up=away_ns >= COORDINATOR_AWAY_NS_MAX)
        elif (silent_ns := self._silent_ns(now_ns)) >= COORDINATOR_SILENT_NS_MAX:
            self._go_without_coordinator(now_ns, silent_ns, is_given_up=True)

    def coordinator_lost(self) -> None:
        """Ask again on the next connection to the coordinator."""
        self._has_begun = False
        self._request = self._asked_at_ns = None

    def awaits(self, request: RequestNumber) -> bool:
        """Return whether an answer with this number is to the node's own request to leave."""
        return request == self._request

    def answered(self, answer: DrainReply | Refusal) -> None:
        """Note the coordinator's answer to this node's request to leave."""
        if isinstance(answer, DrainReply):
            self._has_begun = True
            if not self.is_over:
                self._end_if_drained()
            return
        self._is_refused = True
        if answer.text != self._trouble:
            self._trouble = answer.text
            text = f"the coordinator does not begin the drain yet: {answer.text}"
            self._context.outbox.warn("drain-refused", text)

    def _ask(self, now_ns: int) -> None:
        if self._has_begun or not self._tie.is_up:
            return
        asked_at_ns = self._asked_at_ns
        if asked_at_ns is None or (self._is_refused and now_ns - asked_at_ns >= ASK_AGAIN_NS):
            self._asked_at_ns = now_ns
            self._is_refused = False
            self._request = self._tie.number_request()
            keeps = self._context.journal is not None
            self._context.outbox.send(COORDINATOR, Leave(self._request, keeps))

    def _end_if_drained(self) -> bool:
        """End if nothing is left that could go to another node, and return whether that is so."""
        me, state = self._context.replica, self._context.state
        member = state.members.get(me.node)
        if member is not None and member.condition != "draining":
            return False  # the coordinator has begun, but its next state may still give this node something
        if is_drained(state, me):
            self._end(DepartureEnd.DRAINED)
        elif _has_only_spare_copies(state, me):
            self._end(DepartureEnd.ONLY_SPARE_COPIES)
        elif self._is_kept() and _leaves_last(state, me):
            self._end(DepartureEnd.KEPT)
        else:
            return False
        return True

    def _is_kept(self) -> bool:
        """Return whether the journal has everything, as far as it can be written."""
        journal = self._context.journal
        return journal is not None and (journal.is_settled or bool(journal.trouble))

    def _silent_ns(self, now_ns: int) -> int:
        """Return for how long the coordinator has acknowledged no heartbeat, at most since the departure began."""
        context = self._context
        lease_ns = context.state.coordinator_lease_ms * NS_PER_MS
        return min(now_ns - self._begun_ns, lease_ns - context.rights.coordinator_lease_left_ns(now_ns))

    def _go_without_coordinator(self, now_ns: int, away_ns: int, *, is_given_up: bool) -> None:
        """Stop if nothing is left to keep, or if the coordinator has been away too long."""
        context = self._context
        if is_drained(context.state, context.replica):
            self._end(DepartureEnd.NOTHING_HERE)
        elif is_given_up or context.rights.coordinator_lease_left_ns(now_ns) <= 0:
            self._end(DepartureEnd.COORDINATOR_AWAY, away_ns)

    def _end(self, end: DepartureEnd, away_ns: int = 0) -> None:
        self.is_over = True
        locks_ended = self._released.locks - self._ended_before
        self._context.outbox.add(Depart(end, locks_ended, away_ns))


def is_drained(state: ClusterState, replica: Replica) -> bool:
    """Return whether no slot of the state names this replica."""
    return all(slot.primary != replica and slot.copy_of(replica) is None for slot in state.slots)


def _leaves_last(state: ClusterState, me: Replica) -> bool:
    """Return whether every other member leaves too, so that nothing can move any more."""
    return all(member.condition == "draining" for node, member in state.members.items() if node != me.node)


def _has_only_spare_copies(state: ClusterState, me: Replica) -> bool:
    """Return whether a node serves nothing, and waiting would not bring its copies to another node either."""
    others = [
        member for node, member in state.members.items() if node != me.node and member.condition != "draining"
    ]
    if len(others) != 1:
        return False
    other = others[0].replica
    return all(slot.primary == other for slot in state.slots if slot.primary == me or slot.copy_of(me))
