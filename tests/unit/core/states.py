"""Cluster states for tests of what is sent of them: each differs from the one before in a few slots."""

from __future__ import annotations

import msgspec

from lockring.cluster_state import ClusterState, Member, Replica, SlotState
from lockring.ids import Epoch, Incarnation, NodeId, SlotNumber, Version

FIRST = Version(100)


def replica(name: str, incarnation: int = 1) -> Replica:
    """A life of a node."""
    return Replica(NodeId(name), Incarnation(incarnation))


def member(name: str, incarnation: int = 1, *, differences: bool = True) -> Member:
    """A member at an address of its name."""
    return Member(replica(name, incarnation), f"{name}:1", 1, "active", differences=differences)


def first_state(*names: str) -> ClusterState:
    """A state with these members, and all slots at the first of them."""
    slot = SlotState(epoch=Epoch(FIRST), since=FIRST, base=FIRST, primary=replica(names[0]))
    state = ClusterState(cluster="c", version=FIRST, term="t", coordinator="here:1")  # type: ignore[arg-type]
    members = {each.replica.node: each for each in map(member, names)}
    return msgspec.structs.replace(state, members=members, slots=(slot,) * len(state.slots))


def moved(state: ClusterState, to: str, *numbers: int) -> ClusterState:
    """The next state, in which these slots have another primary."""
    version = Version(state.version + 1)
    slots = list(state.slots)
    for number in numbers:
        slots[number] = msgspec.structs.replace(
            slots[number], epoch=Epoch(version), since=version, primary=replica(to)
        )
    return msgspec.structs.replace(state, version=version, slots=tuple(slots))


def with_members(state: ClusterState, *members: Member) -> ClusterState:
    """The next state, with other members and the same slots."""
    known = {each.replica.node: each for each in members}
    return msgspec.structs.replace(state, version=Version(state.version + 1), members=known)


def numbers(*slots: int) -> list[SlotNumber]:
    """Numbers of slots."""
    return [SlotNumber(slot) for slot in slots]
