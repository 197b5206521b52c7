"""The former lives of a node, for which the present one vouches since it has their journal.

Rules:

- The present life vouches for former ones only if their journal is complete: everything that they have answered for is
  in it, and they are over. The coordinator then puts it in their place.
- It keeps a slot's former content while the cluster state names one of them as primary or backup there, and goes on
  from that content once the state names itself instead. In any other case another copy was better, and the content is
  dropped.
- Former lives have promised, as copies, not to serve in a primary's place for a while. The promise binds this life too,
  counted from its own start, which is later than any of their acknowledgements. It does not in a slot that a former
  life served itself, in the reign that a state names, if the next state gives the slot to this life: another node had
  no right in between. That state is not older than any by which they have promised something, since their
  acknowledgements have waited until the journal had the state's version.
"""

from __future__ import annotations

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.journal import OWN_TENURE
from lockring.core.node.recovery import Recovery
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import DISTANT_PAST_NS, up
from lockring.ids import Incarnation, SlotNumber
from lockring.protocol import FORMER_LIVES_MAX
from lockring.units import NS_PER_MS


class FormerLives:
    """The lives before the present one.

    Attributes:
        lives: those for which it vouches.
        seen: the newest cluster state that they knew, None if none.
        restored: by number, the slots whose former content is kept; whether a state has named a former life as
            primary in the very reign whose content that is.
        locks_back: locks that were in its slots when it became their primary.
    """

    def __init__(self, me: Replica, recovery: Recovery, now_ns: int) -> None:
        """Take over from the lives in a journal.

        Args:
            me: the present life.
            recovery: what the journal says; its slots are kept.
            now_ns: when the present life begins.
        """
        self.lives = _bounded(tuple(life for life in recovery.lives if life < me.incarnation))
        self.seen = recovery.seen
        self.restored: dict[SlotNumber, bool] = dict.fromkeys(recovery.slots, False)
        self.locks_back = 0
        self._id = me.node
        self._began_ns = now_ns
        self._unbound: dict[SlotNumber, None] = {}

    def refuses(self, state: ClusterState) -> bool:
        """Return whether a state is of another cluster than theirs, older than what they knew, or has skipped that."""
        seen = self.seen
        if seen is None:
            return False
        is_older = state.version < seen.version or state.has_skipped(seen.version)
        return is_older or state.cluster != seen.cluster

    def named_in(self, state: ClusterState) -> tuple[Incarnation, ...]:
        """Return the lives that a state still names in some slot; all of them before the first state."""
        if not self.lives or not state.cluster:
            return self.lives
        named: dict[Incarnation, None] = {}
        for slot in state.slots:
            for replica in _replicas_of(slot):
                if replica.node == self._id:
                    named[replica.incarnation] = None
        return tuple(life for life in self.lives if life in named)

    def keeps(self, after: SlotState) -> bool:
        """Return whether a new state leaves a slot's former content where it is, since it names a former life."""
        # Written out, since a start asks it several times for each slot.
        primary, backup, learner = after.primary, after.backup, after.learner
        return (
            (primary is not None and self._is_former(primary))
            or (backup is not None and self._is_former(backup.replica))
            or (learner is not None and self._is_former(learner.replica))
        )

    def look(self, slot: NodeSlot, after: SlotState) -> None:
        """Note whether a state that keeps a slot's content says that a former life served it to the last."""
        primary = after.primary
        self.restored[slot.number] = (
            primary is not None
            and self._is_former(primary)
            and slot.content is not None
            and slot.content[0] == after.since
            and slot.origin == OWN_TENURE
        )

    def give_up(self, number: SlotNumber, *, to_primary: bool = False) -> None:
        """Keep a slot's former content no more: it is this life's now, or dropped.

        Args:
            number: of the slot.
            to_primary: whether the state makes this life its primary.
        """
        if self.restored.pop(number) and to_primary:
            self._unbound[number] = None

    def bound_until_ns(self, number: SlotNumber, backup_lease_ms: int) -> int:
        """Return the time before which this life does not serve a slot in place of a primary that they have copied."""
        return DISTANT_PAST_NS if number in self._unbound else self.promised_until_ns(backup_lease_ms)

    def promised_until_ns(self, backup_lease_ms: int) -> int:
        """Return the time at which the promises of former lives are over, in the distant past if there were none."""
        if not self.lives:
            return DISTANT_PAST_NS
        if self.seen is not None:
            backup_lease_ms = max(backup_lease_ms, self.seen.backup_lease_ms)
        return self._began_ns + up(backup_lease_ms * NS_PER_MS)

    def _is_former(self, replica: Replica) -> bool:
        return replica.node == self._id and replica.incarnation in self.lives


def _bounded(lives: tuple[Incarnation, ...]) -> tuple[Incarnation, ...]:
    """Return as many lives as one may vouch for.

    If a node has started again and again, its coordinator was either there, and the state names one of the last, or it
    was not, and the state still names one of the first.
    """
    if len(lives) <= FORMER_LIVES_MAX:
        return lives
    half = FORMER_LIVES_MAX // 2
    return lives[:half] + lives[-half:]


def _replicas_of(slot: SlotState) -> list[Replica]:
    """Return the replicas whose place an heir may take.

    A learner's is not one, but a primary may have reported it in sync just before its end. Then the next state names it
    as backup.
    """
    found = [] if slot.primary is None else [slot.primary]
    return found + [copy.replica for copy in (slot.backup, slot.learner) if copy is not None]
