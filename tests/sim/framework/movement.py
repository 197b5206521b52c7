"""P6, checked from outside: what a planned move may move, by the stored states and the members.

The rule: between two members that were there before and stay as they were, no slot moves. In the states one sees
more than the ring's moves, so the rule is about a slot's *home*, which is where the ring wants it:

- An assignment of an empty slot goes home, and so does a swap away from a primary that may stay: both show where home
  is. A promotion tells nothing: it is a failure's doing, and the slot comes home later. A swap away from a primary
  that leaves is a move off the leaving member wherever it goes (its home may not be reachable), and leaves home open.
- A swap away from a primary that may stay goes home; or home has changed, which is allowed where since it was last
  shown the old home has left (or was reweighed), or the new one has come (or was reweighed), or a member has come
  *and* left, whom the slot may have been given to meanwhile.
- No slot is swapped away from a current life that does not drain, before that life has settled. A node that is back is
  a new life: that its name is on the ring is not enough.
- A coordinator that starts goes on from where the slots are, and mends what is out of bounds: homes are open then. So
  they are where the ring was renewed twice between two states.

*May stay* means settled, and not draining. Who is settled is the one thing taken from inside the coordinator: members
that are silent are not seen in the states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.sim.framework.world import Violation

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from lockring.cluster_state import ClusterState, Replica
    from tests.sim.framework.coordinator_shell import CoordinatorShell
    from tests.sim.framework.store import SimStore


class _Home(NamedTuple):
    """The home of a slot, and the renewal of the ring after which that was shown."""

    node: str
    renewal: int


class _Renewal(NamedTuple):
    """One change of the ring's members: whom it has lost and won; who was reweighed is in both."""

    left: frozenset[str]
    came: frozenset[str]


class Movement:
    """Watches the stored states for moves that no change of the members asks for.

    Counts in the world's statistics: "moves_home", and "moves_checked" for those whose slot's home was known.
    """

    def __init__(self, coordinators: Sequence[CoordinatorShell], stats: Counter[str]) -> None:
        self._stats = stats
        self._coordinators = coordinators
        self._term = ""
        self._updates = 0
        self._members: dict[str, int] = {}
        self._settled: frozenset[Replica] | None = None
        self._renewals: list[_Renewal] = []
        self._homes: dict[int, _Home] = {}

    def watch(self, store: SimStore) -> None:
        """See every state that is stored from now on, after the present observers."""
        first = store.on_change

        def then(before: ClusterState | None, after: ClusterState | None) -> None:
            first(before, after)
            self.stored(before, after)

        store.on_change = then

    def stored(self, before: ClusterState | None, after: ClusterState | None) -> None:
        """A state was written, or all was lost."""
        if before is None or after is None:
            self._homes.clear()
            return
        earlier = self._settled
        self._see_members(after)
        for number, (old, new) in enumerate(zip(before.slots, after.slots, strict=True)):
            if new.primary is None or old == new:
                continue
            if new.base != old.base:
                self._homes[number] = _Home(new.primary.node, len(self._renewals))
            elif new.since != old.since and new.backup is not None and old.primary == new.backup.replica:
                leaving = new.backup.replica
                member = after.members.get(leaving.node)
                may_stay = member is not None and member.replica == leaving and member.condition != "draining"
                if may_stay and not (
                    self._settled is None or earlier is None or leaving in self._settled | earlier
                ):
                    raise Violation("P6", f"slot {number} moves off {leaving}, which has not settled yet")
                if leaving.node not in self._members or not may_stay:
                    self._homes.pop(number, None)
                else:
                    self._moved(number, leaving.node, new.primary.node)

    def _see_members(self, state: ClusterState) -> None:
        core = next(
            (
                each.deciding
                for each in self._coordinators
                if each.deciding and each.deciding._term.name == state.term
            ),
            None,
        )
        if state.term != self._term or core is None:
            self._term = state.term
            self._updates = 0 if core is None else core._membership.updates
            self._members = {} if core is None else _weights(core)
            self._settled = None if core is None else frozenset(core._membership.settled)
            self._homes.clear()
            return
        updates = core._membership.updates
        self._settled = frozenset(core._membership.settled)
        if updates == self._updates:
            return
        members = _weights(core)
        if updates > self._updates + 1 or not self._members:
            self._homes.clear()
            self._settled = None  # nor is it known of all lives whether they had settled
        lost = frozenset(node for node, weight in self._members.items() if members.get(node) != weight)
        won = frozenset(node for node, weight in members.items() if self._members.get(node) != weight)
        self._renewals.append(_Renewal(lost, won))
        self._updates, self._members = updates, members

    def _moved(self, number: int, source: str, target: str) -> None:
        self._stats["moves_home"] += 1
        home = self._homes.get(number)
        self._homes[number] = _Home(target, len(self._renewals))
        if home is None:
            return
        self._stats["moves_checked"] += 1
        if target == home.node:
            return
        since = self._renewals[home.renewal :]
        left: frozenset[str] = frozenset().union(*(each.left for each in since))
        came: frozenset[str] = frozenset().union(*(each.came for each in since))
        if home.node in left or target in came or left & came:
            return
        raise Violation(
            "P6",
            f"slot {number} moves from {source} to {target}, though it belongs to {home.node}, which stays;"
            f" left since: {sorted(left)}, came: {sorted(came)}",
        )


def _weights(core: object) -> dict[str, int]:
    settled = core._membership.settled  # type: ignore[attr-defined]
    return {replica.node: weight for replica, weight in settled.items()}
