"""Requests of nodes to change single slots, kept until the next write.

Several nodes may send requests about one slot at the same time: the primary to drop its backup, the backup to be
promoted. Every item names the slot's epoch, so the first to be applied makes the others void. Nothing is answered and
nothing is kept beyond the next write: a node whose request is still open after the next state sends it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.coordinator.reachability import Reachability
from lockring.core.coordinator.transitions import extended, promoted, with_copies
from lockring.errors import ProtocolError
from lockring.ids import SlotNumber, Version
from lockring.protocol import SlotRequest, SlotRequestKind, SlotRequests
from lockring.slots import SLOTS


def check_requests(ask: SlotRequests) -> None:
    """Refuse requests that no node may send.

    Raises:
        ProtocolError: an unknown kind, or a slot that does not exist.
    """
    if ask.kind not in SlotRequestKind.__members__.values():
        raise ProtocolError(f"there is nothing to ask of kind {ask.kind}")
    for item in ask.items:
        if not 0 <= item.slot < SLOTS:
            raise ProtocolError(f"slots are 0 to {SLOTS - 1}, not {item.slot}")


class SlotRequestQueue:
    """The requests that wait for the next write, in the order of their arrival. Not safe for use by several tasks.

    A repeated request replaces the earlier one, so their number is bounded by nodes, kinds and slots.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Replica, int, SlotNumber], SlotRequest] = {}
        self._since_ns = 0
        self._is_urgent = False

    def add(self, sender: Replica, ask: SlotRequests, *, now_ns: int) -> None:
        """Keep the requests of this life of a node; they have passed `check_requests`."""
        if not self._waiting:
            self._since_ns, self._is_urgent = now_ns, False
        # Clients wait for a takeover, or for a grant that a dead copy does not acknowledge; for all else, no client.
        self._is_urgent |= ask.kind in (SlotRequestKind.TAKEOVER, SlotRequestKind.DROP)
        for item in ask.items:
            self._waiting[sender, ask.kind, item.slot] = item

    @property
    def has_any(self) -> bool:
        """Whether requests wait."""
        return bool(self._waiting)

    def due_ns(self, pause_ns: int) -> int | None:
        """Return when to apply the requests, None if there are none.

        Args:
            pause_ns: how long those are collected that no client waits for.
        """
        if not self._waiting:
            return None
        return self._since_ns if self._is_urgent else self._since_ns + pause_ns

    def apply(
        self, state: ClusterState, reach: Reachability, *, version: Version, now_ns: int
    ) -> tuple[SlotState, ...]:
        """Remove all requests, and return the slots with those granted that still apply.

        Args:
            state: the state to go on from.
            reach: is updated with the copies that could or could not be reached.
            version: of the state that will have the slots.
            now_ns: the clock.

        Returns:
            The slots; the same tuple as the state's if nothing applied.
        """
        if not self._waiting:
            return state.slots
        waiting, self._waiting = self._waiting, {}
        after: list[SlotState] | None = None
        for (sender, kind, number), item in waiting.items():
            if not state.is_current(sender):
                continue
            slots: Sequence[SlotState] = state.slots if after is None else after
            slot = slots[number]
            step = _granted(state, slot, sender, kind, item, version=version)
            if step is slot:
                continue
            _learn_from(reach, slot, kind, item, version=version, now_ns=now_ns)
            if after is None:
                after = list(state.slots)
            after[number] = step
        if after is None:
            return state.slots
        # Equal slots become one object: planning and encoding go by object, and most slots share their history.
        equal: dict[SlotState, SlotState] = {}
        changed = state.slots
        return tuple([a if a is b else equal.setdefault(a, a) for a, b in zip(after, changed, strict=True)])


def _copy_of(item: SlotRequest) -> Copy:
    return Copy(Replica(item.node, item.incarnation), item.joined)


def _granted(
    state: ClusterState, slot: SlotState, sender: Replica, kind: int, item: SlotRequest, *, version: Version
) -> SlotState:
    """Return the slot after a request, or the slot itself where the request does not apply."""
    if kind == SlotRequestKind.EXTEND:
        if slot.primary == sender and slot.generation_below <= item.below:
            return extended(slot)
        return slot
    if slot.epoch != item.epoch:
        return slot
    copy = _copy_of(item)
    if kind == SlotRequestKind.TAKEOVER:
        if slot.backup == copy and copy.replica == sender:
            return promoted(slot, version, lagging=state.replication == "async")
    elif slot.primary != sender:
        return slot
    elif kind == SlotRequestKind.DROP:
        if copy == slot.backup:
            return with_copies(slot, version, None, slot.learner)
        if copy == slot.learner:
            return with_copies(slot, version, slot.backup, None)
    elif copy == slot.learner and state.is_current(copy.replica):
        # A life that is over must not become the backup: it would replace a copy that still has the data.
        return with_copies(slot, version, copy, None)
    return slot


def _learn_from(
    reach: Reachability, slot: SlotState, kind: int, item: SlotRequest, *, version: Version, now_ns: int
) -> None:
    if kind == SlotRequestKind.DROP and slot.primary is not None:
        reach.dropped(slot.primary, _copy_of(item), version=version, now_ns=now_ns)
    elif kind == SlotRequestKind.IN_SYNC and slot.primary is not None:
        reach.in_sync(slot.primary, Replica(item.node, item.incarnation))
