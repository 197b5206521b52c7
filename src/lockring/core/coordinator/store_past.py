"""The store as a coordinator found it, and the losses that nodes have shown it to have.

A *store that lost something* shows by a version that a node has seen, and that is newer than the store's, or one that
coordinators have skipped when they began (`ClusterState.skipped`): the store went back, and went on from there. Which
node has which slot is then unknown, and all slots wait for every lease to
end: the *quarantine*. It happens once per lead: afterwards no node serves on the strength of what was lost, and a
higher version is enough.

The coordinator knows of a loss before any node reports it if it has read or written what was lost. That knowledge
belongs to the process, not to one of its leads: a coordinator that has only stood by has read the state too.

A *store that the cluster has left* bears a mark, which `lockring coordinator export` wrote. A coordinator that finds it
ends, whether it starts, stands by or leads: what it decided would be a second cluster's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState, Relocation
from lockring.core.coordinator.transitions import version_above_seen
from lockring.ids import NO_VERSION, Version

OWN_VERSIONS_MAX: Final = 10_000
"""Number of versions that a term remembers: a node that is further behind was away for thousands of changes."""


class Loss(NamedTuple):
    """A loss of the store: it has an older version than one that is known to have been in it.

    Attributes:
        found: the version that it has, 0 if it is empty.
        known: the version that was in it.
        source: the source of that knowledge, as the words before "version".
    """

    found: Version
    known: Version
    source: str

    @property
    def account(self) -> str:
        """The loss, as a sentence for people."""
        found = f"has version {self.found}" if self.found else "is empty"
        since = ", which it never had" if self.known < self.found else ""
        return f"it has lost what it was given or was set back: it {found}, but {self.source} version {self.known}{since}"


def abandoned(relocation: Relocation) -> str:
    """Return why no coordinator may begin on a store that its cluster has left, and what to do, for people."""
    return (
        f"the cluster has left this store: {relocation.account}. A coordinator here would make a second cluster; start it on"
        " the store that has the state now. To undo the move, while no coordinator has started there: lockring coordinator"
        " import --force FILE, into this store"
    )


class NewestVersion:
    """The newest version that is known to have been in the store. Not safe for use by several tasks.

    A version that a later state does not account for stays the newest one: it shows that the store has lost something.

    Attributes:
        version: that version; 0 before the first.
    """

    def __init__(self, version: Version = NO_VERSION) -> None:
        self.version = version

    def learn(self, state: ClusterState) -> None:
        """Note a state that was read or written."""
        if self.is_accounted_for(state):
            self.version = state.version

    def hear(self, version: Version) -> None:
        """Note a version that must have been in the store."""
        self.version = max(self.version, version)

    def is_accounted_for(self, state: ClusterState) -> bool:
        """Return whether the store can have a state without having lost anything that is known."""
        return self.version <= state.version and not state.has_skipped(self.version)


class OwnVersions:
    """The versions that one term has written: all that the store has had from the first of them on.

    A version between them is that of a state which the store has lost: it was written before this term, which began on
    an earlier one. Only the newest `OWN_VERSIONS_MAX` are kept, and no lower one is judged.
    """

    def __init__(self) -> None:
        self._versions: dict[Version, None] = {}

    def add(self, version: Version) -> None:
        """Note a version that this term has written, or found to be its own. They rise, until a loss ends the list."""
        self._versions[version] = None
        if len(self._versions) > OWN_VERSIONS_MAX:
            del self._versions[next(iter(self._versions))]

    def lack(self, version: Version) -> bool:
        """Return whether a version lies between those of this term, and is none of them."""
        versions = self._versions
        return (
            bool(versions)
            and next(iter(versions)) < version < next(reversed(versions))
            and version not in versions
        )


class StorePast:
    """The store as this process first claimed it. Not safe for use by several tasks.

    Attributes:
        lost: the newest version that is known to have been lost, 0 if none is.
        has_lost: whether something was lost that the next claim must make up for.
        is_quarantined: whether a claim has made up for a loss.
        cluster_is_chosen_here: whether the store knew of no cluster, so that its id is this process's choice.
        found: the state of the store just before the last claim.
        relocation: the mark that the cluster has left this store, None if it has not.
        newest: the newest version that this process knows to have been in the store.
        loss: the newest loss that made all slots wait, None if there was none.
        own: the versions that this term has written since it last made up for a loss.
    """

    def __init__(self) -> None:
        self.lost = NO_VERSION
        self.has_lost = False
        self.is_quarantined = False
        self.cluster_is_chosen_here = False
        self.found = ClusterState()
        self.relocation: Relocation | None = None
        self.newest = NewestVersion()
        self.own = OwnVersions()
        self.loss: Loss | None = None
        self._is_loss_new = False
        self._has_claimed = False

    @property
    def version_min(self) -> Version:
        """The lowest version that the next write may bear: above all that was lost and can have been reserved."""
        return version_above_seen(self.lost) if self.lost else NO_VERSION

    def record_found(self, stored: ClusterState, *, is_own: bool, may_be_empty: bool) -> None:
        """Record the state of the store just before a claim.

        Args:
            stored: the state that was read.
            is_own: whether this term wrote it.
            may_be_empty: whether an empty store means a new cluster rather than a loss.
        """
        self.found = stored
        if is_own:
            self.own.add(stored.version)  # the outcome of its write was unknown
        else:
            self.own = OwnVersions()  # another term has written since, if this one ever has
        if self._has_claimed or is_own:
            return
        self.cluster_is_chosen_here = not stored.cluster
        if stored.version == 0 and not may_be_empty:
            self.has_lost = True

    def record_older(self, version: Version, found: Version) -> None:
        """Record that the store was set back below a version that this very process knows: it cannot be relied on."""
        self.lost = max(self.lost, version)
        self.has_lost, self.is_quarantined = True, False
        self._record(Loss(found, version, "this coordinator has read or written"))

    def see(self, version: Version, found: Version) -> None:
        """Record that a node has seen a version which the store does not account for; it has another one."""
        self.lost = max(self.lost, version)
        self.has_lost = True
        if not self.is_quarantined:
            self._record(Loss(found, version, "a node has seen"))

    def take_loss(self) -> Loss | None:
        """Hand out the loss that has made all slots wait since the last call, None if there was none."""
        loss, self._is_loss_new = (self.loss if self._is_loss_new else None), False
        return loss

    def _record(self, loss: Loss) -> None:
        self.loss = loss
        self._is_loss_new = True

    def claimed(self) -> None:
        """Record that a claim is in the store, and with it the quarantine if something was lost."""
        if self.has_lost:
            self.has_lost, self.is_quarantined = False, True
            self.own = OwnVersions()  # a lower version than this one shows nothing any more
        self._has_claimed = True
