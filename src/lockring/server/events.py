"""What happened between two cluster states, in sentences for the log. Pure functions."""

from __future__ import annotations

from collections import Counter

from lockring.ring.state import ClusterState, Replica


def changes(old: ClusterState, new: ClusterState, me: str | None = None) -> list[str]:
    """One clear line per important difference.

    Args:
        old: the state that was reported last; the empty one if none was.
        new: the state now.
        me: a node's id, for what concerns that node only; None for the whole cluster.
    """
    return _member_changes(old, new, me) + _slot_changes(old, new, me)


def _member_changes(old: ClusterState, new: ClusterState, me: str | None) -> list[str]:
    lines = []
    for node, member in new.members.items():
        before = old.members.get(node)
        if before is None:
            lines.append(f"{node} joined, at {member.address}")
        elif before.replica != member.replica:
            lines.append(f"{node} was started anew, at {member.address}")
        elif before.condition != member.condition and member.condition == "draining":
            lines.append(f"{node} is draining")
        elif before.address != member.address or before.weight != member.weight:
            lines.append(f"{node} is at {member.address} now, with weight {member.weight}")
    gone = [node for node in old.members if node not in new.members]
    return lines + ["this node was taken out of the cluster" if n == me else f"{n} left" for n in gone]


def _slot_changes(old: ClusterState, new: ClusterState, me: str | None) -> list[str]:
    began: Counter[str] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    taken_over: Counter[tuple[str, str]] = Counter()
    emptied: Counter[tuple[str, str]] = Counter()
    orphaned: Counter[str] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    for before, after in zip(old.slots, new.slots, strict=True):
        if before is after or before == after:
            continue
        source, target = _node(before.primary), _node(after.primary)
        if before.primary != after.primary:
            if not target:
                orphaned[source] += 1
            elif not source:
                began[target] += 1
            elif before.base != after.base:
                emptied[source, target] += 1
            elif after.backup is not None and after.backup.replica == before.primary:
                moved[source, target] += 1
            else:
                taken_over[source, target] += 1
        elif before.backup is not None and after.backup is None and after.primary is not None:
            dropped[before.backup.replica.node, target] += 1
    lines = [f"{target} serves {_slots(n)} now" for target, n in began.items() if me in (None, target)]
    for (source, target), count in moved.items():
        if me in (None, source, target):
            lines.append(f"{_slots(count)} moved from {source} to {target}")
    for (source, target), count in taken_over.items():
        if me in (None, source, target):
            lines.append(f"{target} took over {_slots(count)} of {source}")
    for (source, target), count in emptied.items():
        if me in (None, source, target):
            lines.append(f"{_slots(count)} of {source} lost both copies; {target} begins them empty")
    for source, count in orphaned.items():
        if me in (None, source):
            lines.append(f"{_slots(count)} of {source} have nobody to serve them")
    for (node, primary), count in dropped.items():
        if me in (None, primary, node):
            lines.append(f"{primary} goes on without {node}'s copy of {_slots(count)}")
    return lines


def shares(state: ClusterState, replica: Replica) -> str:
    """What one node does: "serves 1365 slots, has the copy of 1366"."""
    serves = sum(slot.primary == replica for slot in state.slots)
    copies = sum(slot.backup is not None and slot.backup.replica == replica for slot in state.slots)
    alone = sum(slot.primary == replica and slot.backup is None for slot in state.slots)
    without = f"; {alone} without a copy elsewhere" if alone else ""
    return f"serves {_slots(serves)}, has the copy of {copies}{without}"


def whole(state: ClusterState) -> str:
    """How the cluster is: which slots lack what, and what is moving."""
    served = sum(slot.primary is not None for slot in state.slots)
    copied = sum(slot.primary is not None and slot.backup is not None for slot in state.slots)
    moving = sum(slot.learner is not None for slot in state.slots)
    text = f"{served} of {_slots(len(state.slots))} served, {copied} with a copy in sync"
    return f"{text}, {moving} being copied" if moving else text


def _node(replica: Replica | None) -> str:
    return replica.node if replica is not None else ""


def _slots(count: int) -> str:
    return "1 slot" if count == 1 else f"{count} slots"
