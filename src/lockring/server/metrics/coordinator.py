"""The figures of a coordinator."""

from __future__ import annotations

from collections import Counter

from lockring.cluster_state import ClusterState
from lockring.core.coordinator import CoordinatorStatus
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.slot_moves import SlotMoves
from lockring.server.store_worker import StoreWorker

_CONDITIONS = ("joining", "active", "draining", "absent")


def add_coordinator(
    figures: Figures,
    status: CoordinatorStatus,
    state: ClusterState | None,
    *,
    store: StoreWorker,
    moves: SlotMoves,
    state_at_s: float,
) -> None:
    """Add the figures of a coordinator. Those of the cluster come from the one that leads alone.

    Args:
        figures: the values so far.
        status: of the coordinator.
        state: the newest cluster state if it leads, None otherwise.
        store: its store.
        moves: the moves of slots that it has seen.
        state_at_s: when it got the newest state, in seconds since 1970; 0 before the first.
    """
    figures.add("lockring_coordinator_leader", float(state is not None))
    if state_at_s:
        figures.add("lockring_state_version_timestamp_seconds", state_at_s)
    for op, took in store.took.items():
        figures.add_histogram("lockring_store_operation_seconds", [took], op=op)
        for kind in ("failed", "given-up"):
            figures.add("lockring_store_errors_total", store.errors.get((op, kind), 0), op=op, kind=kind)
    for kind, count in moves.counts.items():
        figures.add("lockring_slot_moves_total", count, kind=kind)
    if state is not None:
        _add_cluster(figures, state, frozenset(status.absent))


def _add_cluster(figures: Figures, state: ClusterState, absent: frozenset[str]) -> None:
    without_primary = without_backup = moving = 0
    for slot in state.slots:
        primary, backup = slot.primary, slot.backup
        without_primary += primary is None or primary.node in absent or not state.is_current(primary)
        without_backup += backup is None or backup.replica.node in absent
        moving += slot.learner is not None
    figures.add("lockring_slots_without_primary", without_primary)
    figures.add("lockring_slots_without_backup", without_backup)
    figures.add("lockring_slot_moves_in_progress", moving)
    found = Counter(
        "absent" if node in absent else member.condition for node, member in state.members.items()
    )
    for condition in _CONDITIONS:
        figures.add("lockring_members", found[condition], condition=condition)
