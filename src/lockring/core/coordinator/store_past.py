"""The store as a coordinator found it, and the losses that nodes have shown it to have.

A *store that lost something* shows by a version that a node has seen, and that is newer than the store's, or one that
coordinators have skipped when they began (`ClusterState.skipped`): the store went back, and went on from there. Which
node has which slot is then unknown, and all slots wait for every lease to
end: the *quarantine*. It happens once per process: afterwards no node serves on the strength of what was lost, and a
higher version is enough.
"""

from __future__ import annotations

from lockring.cluster_state import ClusterState
from lockring.ids import Version


class StorePast:
    """The store as this process first claimed it. Not safe for use by several tasks.

    Attributes:
        version_min: the lowest version that the next write may bear: above all that nodes have seen.
        has_lost: whether something was lost that the next claim must make up for.
        is_quarantined: whether a claim has made up for a loss.
        cluster_is_chosen_here: whether the store knew of no cluster, so that its id is this process's choice.
        found: the state of the store just before the last claim.
    """

    def __init__(self) -> None:
        self.version_min = 0
        self.has_lost = False
        self.is_quarantined = False
        self.cluster_is_chosen_here = False
        self.found = ClusterState()
        self._has_claimed = False

    def record_found(self, stored: ClusterState, *, is_own: bool, may_be_empty: bool) -> None:
        """Record the state of the store just before a claim.

        Args:
            stored: the state that was read.
            is_own: whether this term wrote it.
            may_be_empty: whether an empty store means a new cluster rather than a loss.
        """
        self.found = stored
        if self._has_claimed or is_own:
            return
        self.cluster_is_chosen_here = not stored.cluster
        if stored.version == 0 and not may_be_empty:
            self.has_lost = True

    def record_older(self, version: Version) -> None:
        """Record that the store was set back below a version that this very process wrote: it cannot be relied on."""
        self.version_min = max(self.version_min, version + 1)
        self.has_lost, self.is_quarantined = True, False

    def see(self, version: Version) -> None:
        """Record that a node has seen a version which the store does not account for."""
        self.version_min = max(self.version_min, version + 1)
        self.has_lost = True

    def claimed(self) -> None:
        """Record that a claim is in the store, and with it the quarantine if something was lost."""
        if self.has_lost:
            self.has_lost, self.is_quarantined = False, True
        self._has_claimed = True
