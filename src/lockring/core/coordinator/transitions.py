"""The few ways in which one slot may change, as pure functions from a slot to its next value.

Two kinds of number move here, and nowhere else:

- *Versions.* Every change stamps `epoch`, so that requests made against an older value are recognized. A new reign
  stamps `since` too, and an assignment without data `base`. Only `extended` leaves the epoch as it is:
  nothing but the end of the range changes, and no request about the slot becomes wrong by it.
- *Generations.* A reign that inherits all data goes on in the range of the one before. One that begins empty, or
  over copies that may lag (`async`), gets a range above everything ever reserved, and above the
  microseconds of the version, which stand in for the reservations that a lost store has forgotten.
  For that, versions keep up with reservations: no state reserves more than `GENERATIONS_PER_REIGN` above its version.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import msgspec

from lockring.cluster_state import (
    GENERATION_MAX,
    GENERATIONS_PER_REIGN,
    ClusterState,
    Copy,
    Replica,
    SlotState,
)
from lockring.ids import Epoch, Generation, SlotNumber, Version
from lockring.slots import SLOTS

VERSION_MAX: Final = (GENERATION_MAX - 1_000 * GENERATIONS_PER_REIGN) * 1_000
"""Highest version that a node may claim to have seen: the generations derived from it stay below 2**53, with room."""

_NS_PER_US: Final = 1_000
_reserved_of: Final = attrgetter("generation_below")


def version_above_reserved(state: ClusterState) -> Version:
    """Return the lowest version for the state after this one: its microseconds are above all reserved generations."""
    return Version(max(map(_reserved_of, state.slots), default=0) * _NS_PER_US)


def is_above_reserved(state: ClusterState) -> bool:
    """Return whether the version of a state bounds what it reserves; a state of an earlier release may reserve more."""
    reserved_max = state.version // _NS_PER_US + GENERATIONS_PER_REIGN
    return max(map(_reserved_of, state.slots), default=0) <= reserved_max


def version_above_seen(version: Version) -> Version:
    """Return the lowest version for a state that follows one known by its version alone.

    Its microseconds are above all generations that the earlier state can have reserved.
    """
    return Version(version + GENERATIONS_PER_REIGN * _NS_PER_US)


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
    """Return the slot with its backup as lone primary, after the primary failed or fell silent.

    Args:
        slot: has a backup.
        version: of the state that will contain the result.
        lagging: whether copies may lack mutations that clients already know of (`async` replication).
    """
    assert slot.backup is not None
    first, below = _inherited_range(slot, version, lagging)
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=slot.base,
        primary=slot.backup.replica,
        generation_from=first,
        generation_below=below,
    )


def swapped(slot: SlotState, version: Version, *, lagging: bool) -> SlotState:
    """Return the slot with backup and primary in each other's place: a planned move, with two copies throughout."""
    assert slot.primary is not None
    assert slot.backup is not None
    first, below = _inherited_range(slot, version, lagging)
    former = Copy(slot.primary, version)
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=slot.base,
        primary=slot.backup.replica,
        backup=former,
        generation_from=first,
        generation_below=below,
    )


def inherited(
    slot: SlotState, version: Version, heir: Replica, backup: Replica | None, *, lagging: bool
) -> SlotState:
    """Return the slot in a new reign of its primary's next life, which has everything that the primary answered for.

    Args:
        slot: has a primary, and that is over.
        version: of the state that will contain the result.
        heir: a later life of the primary's node.
        backup: the copy that stays, or the heir of the one that was there; None for none. Its table and the heir's may
            have ended at the same place, as after a planned move.
        lagging: whether copies may lack mutations that clients already know of (`async` replication). The heir lacks
            no grant that was answered; the new range is for those that observers may have seen earlier.
    """
    assert slot.primary is not None
    first, below = _inherited_range(slot, version, lagging)
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=slot.base,
        primary=heir,
        backup=None if backup is None else Copy(backup, version),
        generation_from=first,
        generation_below=below,
    )


def assigned_empty(slot: SlotState, version: Version, primary: Replica) -> SlotState:
    """Return the slot in a reign without data: no node has, and no client can still rely on, its former locks."""
    first, below = _fresh_range(slot, version)
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=version,
        primary=primary,
        generation_from=first,
        generation_below=below,
    )


def released(slot: SlotState, version: Version) -> SlotState:
    """Return the slot without any replica; reserved generations stay reserved."""
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=slot.base,
        generation_from=slot.generation_from,
        generation_below=slot.generation_below,
    )


def forgotten(slot: SlotState, version: Version) -> SlotState:
    """Return the slot after the loss of the store: its replicas are unknown, so it waits as if all copies were gone."""
    below = slot.generation_below
    return SlotState(
        epoch=Epoch(version),
        since=version,
        base=version,
        generation_from=below,
        generation_below=below,
    )


def with_copies(slot: SlotState, version: Version, backup: Copy | None, learner: Copy | None) -> SlotState:
    """Return the slot in the same reign with other copies."""
    return SlotState(
        epoch=Epoch(version),
        since=slot.since,
        base=slot.base,
        primary=slot.primary,
        backup=backup,
        learner=learner,
        generation_from=slot.generation_from,
        generation_below=slot.generation_below,
    )


def extended(slot: SlotState) -> SlotState:
    """Return the slot in the same reign with more generations. The epoch stays: see the module."""
    below = slot.generation_below + GENERATIONS_PER_REIGN
    assert below <= GENERATION_MAX, "the generations of a slot are used up"
    return msgspec.structs.replace(slot, generation_below=below)


def replicated_from_now_on(slot: SlotState) -> SlotState:
    """Return the slot as `async` replication becomes `sync`: its reign goes on above every grant no copy has seen."""
    if slot.primary is None:
        return slot
    below = Generation(slot.generation_below + GENERATIONS_PER_REIGN)
    assert below <= GENERATION_MAX, "the generations of a slot are used up"
    return msgspec.structs.replace(slot, generation_from=slot.generation_below, generation_below=below)


def lives_of(slot: SlotState) -> tuple[Replica, ...]:
    """Return every life that the slot names: primary, backup, learner."""
    copies = [copy.replica for copy in (slot.backup, slot.learner) if copy is not None]
    return tuple(copies) if slot.primary is None else (slot.primary, *copies)


def check_slot(number: SlotNumber, slot: SlotState, version: Version) -> None:
    """Assert the invariants of a slot in any state.

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
    """Assert the invariants of every state that a coordinator writes.

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
        check_slot(SlotNumber(number), slot, state.version)
        for replica in lives_of(slot):
            known = state.members.get(replica.node)
            assert known is not None, f"slot {number} names {replica}, which is not a member"
            assert replica.incarnation <= known.replica.incarnation, f"slot {number}: {replica}, {known}"
