"""Invariants between the parts of a coordinator, which hold after every input."""

from __future__ import annotations

from lockring.cluster_state import ClusterState
from lockring.core.coordinator.heartbeats import Heartbeats
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.term import Phase, Term
from lockring.core.coordinator.transitions import check_state, is_above_reserved


class Checks:
    """The checks, with the last state that passed them: checking every slot takes long."""

    def __init__(self) -> None:
        self._checked: ClusterState | None = None

    def check(
        self,
        term: Term,
        roster: Roster,
        heartbeats: Heartbeats,
    ) -> None:
        """Assert the invariants.

        Raises:
            AssertionError: a bug.
        """
        roster.check_invariants()
        for connection in heartbeats.connections():
            assert roster.node_of(connection) is not None
        assert not (roster.pending.connections() and term.is_active), "joins wait for an active coordinator"
        assert not term.deposed or term.is_writing, "nodes are deposed only by a write under way"
        if term.phase is Phase.PASSIVE:
            assert not [*roster.lives(), *roster.pending.connections()]
        if term.state is not None and term.state is not self._checked:
            check_state(term.state)
            assert is_above_reserved(term.state), (
                f"version {term.state.version} is below what its slots reserve"
            )
            self._checked = term.state
