"""The few ways in which one slot may change, as pure functions from a slot to its next value.

Two kinds of number move here, and nowhere else:

- *Versions.* Every change stamps `epoch`, so that requests made against an older value are told apart. A new reign
  stamps `since` too, and an assignment without data `base`. Only `extended` leaves the epoch as it is:
  nothing but the end of the range changes, and no request about the slot becomes wrong by it.
- *Generations.* A reign that inherits all data goes on in the range of the one before. One that begins empty, or
  over copies that may lag (`async`), gets a range above everything ever reserved, and above the
  microseconds of the version, which stand in for the reservations that a lost store has forgotten.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import (
    GENERATION_MAX,
    GENERATIONS_PER_REIGN,
    ClusterState,
    Copy,
    Replica,
    SlotState,
)
from lockring.ids import Epoch, Generation, Version
from lockring.slots import SLOTS

VERSION_MAX: Final = (GENERATION_MAX - 1_000 * GENERATIONS_PER_REIGN) * 1_000
"""Highest version that anyone may claim to have seen: the generations derived from it stay below 2**53, with room."""

_NS_PER_US: Final = 1_000


def _fresh_range(slot: SlotState, version: Version) -> tuple[Generation, Generation]:
    first = Generation(max(slot.generation_below, version // _NS_PER_US))
    below = Generation(first + GENERATIONS_PER_REIGN)
    assert below <= GENERATION_MAX, "the generations of a slot are used up"
    return first, below


def _inherited_range(slot: SlotState, version: Version, lagging: bool) -> tuple[Generation, Generation]:
    if lagging:
        return _fresh_range(slot, version)
    return slot.generation_from, slot.generation_below


def promoted(slot: SlotState, version: Version, *, lagging: bool) -> SlotState:
    """The backup reigns alone: its primary failed, or fell silent.

    Args:
        slot: has a backup.
        version: of the state that will contain the result.
        lagging: whether copies may lag behind what clients were told (`async` replication).
    """
    assert slot.backup is not None
    first, below = _inherited_range(slot, version, lagging)
    return SlotState(Epoch(version), version, slot.base, slot.backup.replica, None, None, first, below)


def swapped(slot: SlotState, version: Version, *, lagging: bool) -> SlotState:
    """A planned move: backup and primary change places, so there is never one copy only."""
    assert slot.primary is not None
    assert slot.backup is not None
    first, below = _inherited_range(slot, version, lagging)
    former = Copy(slot.primary, version)
    return SlotState(Epoch(version), version, slot.base, slot.backup.replica, former, None, first, below)


def assigned_empty(slot: SlotState, version: Version, primary: Replica) -> SlotState:
    """A reign without data: nobody has, or can still rely on, what the slot held before."""
    first, below = _fresh_range(slot, version)
    return SlotState(Epoch(version), version, version, primary, None, None, first, below)


def released(slot: SlotState, version: Version) -> SlotState:
    """Nobody has the slot any more; what was reserved stays reserved."""
    return SlotState(
        Epoch(version), version, slot.base, None, None, None, slot.generation_from, slot.generation_below
    )


def forgotten(slot: SlotState, version: Version) -> SlotState:
    """The slot after the loss of the store: who has it is unknown, so it waits like one whose copies are all gone."""
    below = slot.generation_below
    return SlotState(Epoch(version), version, version, None, None, None, below, below)


def with_copies(slot: SlotState, version: Version, backup: Copy | None, learner: Copy | None) -> SlotState:
    """The same reign with other copies."""
    return SlotState(
        Epoch(version),
        slot.since,
        slot.base,
        slot.primary,
        backup,
        learner,
        slot.generation_from,
        slot.generation_below,
    )


def extended(slot: SlotState) -> SlotState:
    """The same reign with as many generations again. The epoch stays: see the module."""
    below = Generation(slot.generation_below + GENERATIONS_PER_REIGN)
    assert below <= GENERATION_MAX, "the generations of a slot are used up"
    return SlotState(
        slot.epoch,
        slot.since,
        slot.base,
        slot.primary,
        slot.backup,
        slot.learner,
        slot.generation_from,
        below,
    )


def replicated_from_now_on(slot: SlotState) -> SlotState:
    """The slot when `async` replication becomes `sync`: the reign goes on above everything it may have granted unseen."""
    if slot.primary is None:
        return slot
    below = Generation(slot.generation_below + GENERATIONS_PER_REIGN)
    assert below <= GENERATION_MAX, "the generations of a slot are used up"
    return SlotState(
        slot.epoch,
        slot.since,
        slot.base,
        slot.primary,
        slot.backup,
        slot.learner,
        slot.generation_below,
        below,
    )


def lives_of(slot: SlotState) -> tuple[Replica, ...]:
    """Every life that the slot names: primary, backup, learner."""
    copies = [copy.replica for copy in (slot.backup, slot.learner) if copy is not None]
    return tuple(copies) if slot.primary is None else (slot.primary, *copies)


def check_slot(number: int, slot: SlotState, version: Version) -> None:
    """Assert what holds of every slot in every state.

    Raises:
        AssertionError: it does not hold; the text names the slot.
    """
    where = f"slot {number} at version {version}: {slot}"
    assert 0 <= slot.base <= slot.since <= slot.epoch <= version, where
    assert 0 <= slot.generation_from <= slot.generation_below <= GENERATION_MAX, where
    if slot.primary is None:
        assert slot.backup is None, where
        assert slot.learner is None, where
        return
    assert slot.base > 0, where
    assert slot.generation_from < slot.generation_below, where
    nodes = [slot.primary.node]
    for copy in (slot.backup, slot.learner):
        if copy is not None:
            assert slot.since <= copy.joined <= slot.epoch, where
            nodes.append(copy.replica.node)
    assert len(set(nodes)) == len(nodes), where


def check_state(state: ClusterState) -> None:
    """Assert what holds of every state that a coordinator writes.

    Raises:
        AssertionError: it does not hold.
    """
    assert len(state.slots) == SLOTS
    for node, member in state.members.items():
        assert member.replica.node == node
    checked: dict[int, SlotState] = {}
    for number, slot in enumerate(state.slots):
        if id(slot) in checked:
            continue
        checked[id(slot)] = slot
        check_slot(number, slot, state.version)
        for replica in lives_of(slot):
            known = state.members.get(replica.node)
            assert known is not None, f"slot {number} names {replica}, which is no member"
            assert replica.incarnation <= known.replica.incarnation, f"slot {number}: {replica}, {known}"
