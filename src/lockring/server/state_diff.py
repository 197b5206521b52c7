"""Describes the changes from one cluster state to the next, in sentences for the log. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from lockring.cluster_state import ClusterState, Replica, SlotState


class StateNews:
    """Collects the changes over any number of states, so that a move in many steps becomes one line.

    Args:
        me: a node's id, to select what concerns that node; None for the whole cluster.
        absent: ids of the members that are known here to have failed. The state does not show it: a primary may
            also have been replaced because its copy could not reach it, or by a move whose end alone was
            seen.
    """

    def __init__(self, me: str | None, absent: Callable[[], Collection[str]] = tuple) -> None:
        self._me = me
        self._absent = absent
        self._members: list[str] = []
        self._slots: Counter[str] = Counter()

    def note(self, old: ClusterState, new: ClusterState) -> None:
        """Collect the step from one state to a later one."""
        self._note_members(old, new)
        absent = self._absent()
        for before, after in zip(old.slots, new.slots, strict=True):
            # All changes but the reservation of more generations raise the epoch.
            if before is not after and before.epoch != after.epoch:
                if old.version == 0 and after.primary is not None:
                    # A server's first state is not news, and may concern lives that are over.
                    sentence = f"{{}} had {after.primary.node} as the primary" if self._me is None else ""
                else:
                    sentence = self._sentence(before, after, new, absent)
                if sentence:
                    self._slots[sentence] += 1

    def take_lines(self) -> list[str]:
        """Return what was collected, one line each, and start over."""
        lines = self._members + [sentence.format(_slots(count)) for sentence, count in self._slots.items()]
        self._members = []
        self._slots.clear()
        return lines

    def _note_members(self, old: ClusterState, new: ClusterState) -> None:
        for node, member in new.members.items():
            before = old.members.get(node)
            if before is None:
                self._members.append(f"{node} joined, at {member.address}")
            elif before.replica != member.replica:
                self._members.append(f"{node} was restarted, at {member.address}")
            elif before.condition != member.condition and member.condition == "draining":
                self._members.append(f"{node} is draining")
            elif before.condition == "draining" and member.condition != "draining":
                self._members.append(f"{node} is no longer draining: it may have slots again")
            elif before.address != member.address or before.weight != member.weight:
                self._members.append(f"{node} is at {member.address} now, with weight {member.weight}")
        for node in old.members:
            if node not in new.members:
                self._members.append(
                    "this node was removed from the cluster" if node == self._me else f"{node} left"
                )

    def _sentence(
        self, before: SlotState, after: SlotState, state: ClusterState, absent: Collection[str]
    ) -> str:
        """Return what happened to one slot, with {} for the number of slots; "" if it is not worth a line."""
        source, target = _node(before.primary), _node(after.primary)
        if before.primary != after.primary:
            if self._me not in (None, source, target):
                return ""
            if not target:
                return f"{{}} of {source} are not served by any node"
            if not source:
                return f"{target} begins to serve {{}}"
            if before.base != after.base:
                return f"{{}} of {source} lost both copies; {target} starts them empty"
            if source == target:
                return f"{target} has {{}} back from its journal"
            if after.backup is not None and after.backup.replica == before.primary:
                return f"{{}} moved from {source} to {target}"
            assert before.primary is not None
            if source in absent:
                return f"{target} took over {{}} of {source}, which failed"
            if not state.is_current(before.primary):
                return f"{target} took over {{}} of {source}, which left or was restarted"
            return f"{target} took over {{}} of {source}"
        if before.backup is not None and after.backup is not None and before.backup != after.backup:
            # A tenure that goes on under another life is that of an heir; each other copy has a tenure of its own.
            back, is_heir = after.backup.replica.node, before.backup.joined == after.backup.joined
            if is_heir and self._me in (None, back, target):
                return f"{back} has its copy of {{}} back from its journal"
        if before.backup is not None and after.backup is None and after.primary is not None:
            lost = before.backup.replica.node
            if self._me in (None, lost, target):
                return f"{target} continues without {lost}'s copy of {{}}"
        return ""


def shares(state: ClusterState, replica: Replica, may_serve: bool = True) -> str:
    """Describe what one node does: "serves 1365 slots, has the copy of 1366".

    Args:
        state: the newest that it knows.
        replica: the node and its life.
        may_serve: whether it has the coordinator's lease, without which it serves nothing.
    """
    serves = sum(slot.primary == replica for slot in state.slots)
    copies = sum(slot.backup is not None and slot.backup.replica == replica for slot in state.slots)
    alone = sum(slot.primary == replica and slot.backup is None for slot in state.slots)
    without = f"; {alone} without a copy elsewhere" if alone else ""
    what = (
        f"serves {_slots(serves)}"
        if may_serve
        else f"should serve {_slots(serves)} but may not without a lease"
    )
    return f"{what}, has the copy of {copies}{without}"


def whole(state: ClusterState, absent: Collection[str] = ()) -> str:
    """Describe the cluster: the slots that lack something, and what is moving.

    Args:
        state: the newest.
        absent: ids of members that have failed: their slots are not served, and their copies do not count.
    """
    served = copied = 0
    silent: Counter[str] = Counter()
    for slot in state.slots:
        if slot.primary is None or not state.is_current(slot.primary):
            continue
        if slot.primary.node in absent:
            silent[slot.primary.node] += 1
            continue
        served += 1
        copied += slot.backup is not None and slot.backup.replica.node not in absent
    moving = sum(slot.learner is not None for slot in state.slots)
    text = f"{served} of {_slots(len(state.slots))} served, {copied} with a copy in sync"
    for node, count in sorted(silent.items()):
        text += f"; {_slots(count)} of {node}, which is gone"
    return f"{text}, {moving} being copied" if moving else text


def _node(replica: Replica | None) -> str:
    return replica.node if replica is not None else ""


def _slots(count: int) -> str:
    return "1 slot" if count == 1 else f"{count} slots"
