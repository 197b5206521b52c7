"""Counts the slots that get another primary, by the reason that the states show."""

from __future__ import annotations

from lockring.cluster_state import ClusterState, SlotState

KINDS = ("planned", "takeover", "first", "emptied", "unserved")


class SlotMoves:
    """The counts of one coordinator. Lives in one event loop.

    Attributes:
        counts: by kind. Planned: between live nodes. Takeover: by the copy of a node that failed or left. First: of a
            slot that had none. Emptied: both copies were lost. Unserved: none is left.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self._last: ClusterState | None = None

    def note(self, state: ClusterState) -> None:
        """Count the step from the last state to this one; before the first one there was none."""
        last, self._last = self._last, state
        if last is None or last.cluster != state.cluster or last is state:
            return
        for before, after in zip(last.slots, state.slots, strict=True):
            if before is not after and before.primary != after.primary:
                self.counts[_kind(before, after)] += 1


def _kind(before: SlotState, after: SlotState) -> str:
    if after.primary is None:
        return "unserved"
    if before.primary is None:
        return "first"
    if before.base != after.base:
        return "emptied"
    if after.backup is not None and after.backup.replica == before.primary:
        return "planned"
    return "takeover"
