"""Differences between two versions of the cluster state, and the digest that proves their application right.

A state of a thousand nodes takes 320 KiB, and a step of one node changes a few slots of it. The rules:

- *A difference leads from exactly one version to exactly one other.* On any other version it is not applied: the
  receiver asks for the whole state.
- *The digest of the result travels with it.* A result with another digest is dropped, and the whole state asked for.
- *Making and applying it takes time in proportion to its size*, apart from copying one tuple of all slots.

A slot's new value mostly consists of numbers and lives that its old value has, or that many slots get at once. So the
difference lists the *shapes* of changes, each once: for every field of a slot, where its value comes from. The same
shape fits many slots, and takes a dozen bytes.

The digest of the slots is the sum of a checksum of each, multiplied by a number of the slot's own, modulo 2**64. So it
follows a change of a slot in O(1), and two slots that have been mixed up do not cancel out. It guards against faults
in this code and in memory, not against an attacker.
"""

from __future__ import annotations

import struct
from operator import mul
from typing import Final, NamedTuple, NoReturn
from zlib import crc32

import msgspec

from lockring.cluster_state import (
    ClusterState,
    Copy,
    Farewell,
    Member,
    Relocation,
    Replica,
    Replication,
    SlotState,
)
from lockring.core.digest import mix, slot_factors
from lockring.errors import ProtocolError
from lockring.ids import NO_VERSION, ClusterId, NodeId, SlotNumber, TermId, Version
from lockring.protocol import StateDifference
from lockring.slots import SLOTS

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF

_AS_BEFORE: Final = 0
"""The reference of a field that keeps its value."""

_NUMBERS_KNOWN: Final = 8
_LIVES_KNOWN: Final = 5
"""References below are of values that both sides have; those from here on count through the difference's own list."""


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """Everything in a state but its version, its members and its slots."""

    cluster: ClusterId
    term: TermId
    replication: Replication
    backup_lease_ms: int
    coordinator_lease_ms: int
    coordinator: str
    farewell: Farewell | None
    skipped: tuple[tuple[Version, Version], ...]
    relocation: Relocation | None = None


class _Shape(msgspec.Struct, frozen=True, array_like=True):
    """Where the fields of a changed slot come from, each as a reference to a number or to a life.

    `backup_ref` and `learner_ref` refer to the life, and the field behind each to the version at which it joined.
    """

    epoch_ref: int
    since_ref: int
    base_ref: int
    primary_ref: int
    backup_ref: int
    backup_joined_ref: int
    learner_ref: int
    learner_joined_ref: int
    generation_from_ref: int
    generation_below_ref: int


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """The content of a difference.

    Attributes:
        head: None if it is as before.
        gone: members that the later state does not have.
        members: those that it has and the earlier one has not, or has otherwise.
        numbers: numbers that shapes refer to.
        lives: lives that shapes refer to.
        shapes: of the changed slots, each once.
        slots: the changed slots, ascending; two bytes each, little endian.
        shape_of: the place of each one's shape in the same form; empty if there is one shape.
    """

    head: _Head | None
    gone: list[NodeId]
    members: list[Member]
    numbers: list[int]
    lives: list[Replica]
    shapes: list[_Shape]
    slots: bytes
    shape_of: bytes


class Difference(NamedTuple):
    """A difference that was made.

    Attributes:
        message: as it travels.
        content: the digest of the later state's content; see `content_of`.
    """

    message: StateDifference
    content: int


class LaterState(NamedTuple):
    """A difference that was applied.

    Attributes:
        state: the later state.
        content: the digest of its content.
        changed: the slots that differ from the earlier state's, ascending.
    """

    state: ClusterState
    content: int
    changed: list[SlotNumber]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


def _mark_of(slot: SlotState) -> int:
    return crc32(_encode(slot))


def _mark_of_member(member: Member) -> int:
    return mix(crc32(_encode(member)))


def _head_of(state: ClusterState) -> _Head:
    return _Head(
        cluster=state.cluster,
        term=state.term,
        replication=state.replication,
        backup_lease_ms=state.backup_lease_ms,
        coordinator_lease_ms=state.coordinator_lease_ms,
        coordinator=state.coordinator,
        farewell=state.farewell,
        skipped=state.skipped,
        relocation=state.relocation,
    )


def content_of(state: ClusterState) -> int:
    """Return the digest of a state's members and slots. It takes some milliseconds if all slots differ."""
    marks: dict[int, int] = {}
    of_slots: list[int] = []
    for slot in state.slots:
        mark = marks.get(id(slot))
        if mark is None:
            marks[id(slot)] = mark = _mark_of(slot)
        of_slots.append(mark)
    content: int = sum(map(mul, of_slots, slot_factors()))
    return (content + sum(map(_mark_of_member, state.members.values()))) & _MASK


def digest_of(state: ClusterState, content: int) -> int:
    """Return the digest of a whole state.

    Args:
        state: the state.
        content: what `content_of` returns for it.
    """
    return (content + mix(crc32(_encode([state.version, _head_of(state)])))) & _MASK


# ----------------------------------------------------------------------- making one


def difference_of(before: ClusterState, after: ClusterState, content: int) -> Difference:
    """Return the difference that leads from one state to another.

    Args:
        before: the earlier one.
        after: the later one; slots that did not change should be the same objects.
        content: the digest of the earlier one's content.
    """
    gone, members, content = _members_between(before, after, content)
    references = _References(after.version)
    factors = slot_factors()
    changed: list[int] = []
    shape_of: list[int] = []
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for number, (old, new) in enumerate(zip(before.slots, after.slots, strict=True)):
        if old is new:
            continue
        found = places.get((id(old), id(new)))
        if found is None:
            place = -1 if old == new else references.shape(old, new)
            places[id(old), id(new)] = found = place, _mark_of(new) - _mark_of(old)
        if found[0] >= 0:
            changed.append(number)
            shape_of.append(found[0])
            content += found[1] * factors[number]
    head, content = _head_of(after), content & _MASK
    change = _Body(
        head=None if head == _head_of(before) else head,
        gone=gone,
        members=members,
        numbers=list(references.numbers),
        lives=list(references.lives),
        shapes=list(references.shapes),
        slots=_packed(changed),
        shape_of=_packed(shape_of) if len(references.shapes) > 1 else b"",
    )
    digest = digest_of(after, content)
    return Difference(StateDifference(before.version, after.version, digest, _encode(change)), content)


def _members_between(
    before: ClusterState, after: ClusterState, content: int
) -> tuple[list[NodeId], list[Member], int]:
    """Return members that are gone, those that are new or changed, and the content's digest with these changes."""
    if before.members is after.members:
        return [], [], content
    gone = [node for node in before.members if node not in after.members]
    members = [member for node, member in after.members.items() if before.members.get(node) != member]
    for node in [*gone, *(member.replica.node for member in members)]:
        old = before.members.get(node)
        if old is not None:
            content -= _mark_of_member(old)
    return gone, members, content + sum(map(_mark_of_member, members))


class _References:
    """The lists of one difference, while it is being made.

    Attributes:
        numbers, lives, shapes: each with its place.
    """

    def __init__(self, version: Version) -> None:
        self.numbers: dict[int, int] = {}
        self.lives: dict[Replica, int] = {}
        self.shapes: dict[_Shape, int] = {}
        self._version = version

    def shape(self, old: SlotState, new: SlotState) -> int:
        """Add the shape of a slot's change, if it is a new one; return its place."""
        known = _numbers_of(old, self._version)
        backup, learner = old.backup, old.learner
        new_backup, new_learner = new.backup, new.learner
        shape = _Shape(
            epoch_ref=self._number(new.epoch, old.epoch, known),
            since_ref=self._number(new.since, old.since, known),
            base_ref=self._number(new.base, old.base, known),
            primary_ref=self._life(new.primary, old.primary, old),
            backup_ref=self._life(_life_of(new_backup), _life_of(backup), old),
            backup_joined_ref=self._joined(new_backup, backup, known),
            learner_ref=self._life(_life_of(new_learner), _life_of(learner), old),
            learner_joined_ref=self._joined(new_learner, learner, known),
            generation_from_ref=self._number(new.generation_from, old.generation_from, known),
            generation_below_ref=self._number(new.generation_below, old.generation_below, known),
        )
        return self.shapes.setdefault(shape, len(self.shapes))

    def _number(self, value: int, before: int, known: tuple[int, ...]) -> int:
        if value == before:
            return _AS_BEFORE
        if value in known:
            return known.index(value) + 1
        return _NUMBERS_KNOWN + self.numbers.setdefault(value, len(self.numbers))

    def _joined(self, copy: Copy | None, before: Copy | None, known: tuple[int, ...]) -> int:
        return _AS_BEFORE if copy is None else self._number(copy.joined, _joined(before), known)

    def _life(self, life: Replica | None, before: Replica | None, old: SlotState) -> int:
        if life == before:
            return _AS_BEFORE
        known = _lives_of(old)
        if life in known:
            return known.index(life) + 1
        assert life is not None
        return _LIVES_KNOWN + self.lives.setdefault(life, len(self.lives))


def _numbers_of(slot: SlotState, version: Version) -> tuple[int, ...]:
    """Return the numbers that a slot's next value may have from its present one; one fewer than `_NUMBERS_KNOWN`."""
    return (
        version,
        slot.epoch,
        slot.since,
        slot.base,
        _joined(slot.backup),
        _joined(slot.learner),
        slot.generation_below,
    )


def _lives_of(slot: SlotState) -> tuple[Replica | None, ...]:
    """Return the lives that a slot's next value may have from its present one; one fewer than `_LIVES_KNOWN`."""
    return (None, slot.primary, _life_of(slot.backup), _life_of(slot.learner))


def _life_of(copy: Copy | None) -> Replica | None:
    return None if copy is None else copy.replica


def _joined(copy: Copy | None) -> Version:
    return NO_VERSION if copy is None else copy.joined


def _packed(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def _unpacked(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 2}H", data)


# ----------------------------------------------------------------------- applying one


def apply_difference(before: ClusterState, content: int, message: StateDifference) -> LaterState:
    """Return the state to which a difference leads. Equal new slots come back as one object.

    Args:
        before: the state from which it leads.
        content: the digest of that state's content.
        message: the difference.

    Raises:
        ProtocolError: it leads from another version, or is damaged.
    """
    _check_base(before, message)
    try:
        change = _decode(message.change)
        numbers, shape_of = _unpacked(change.slots), _unpacked(change.shape_of)
    except (msgspec.MsgspecError, ValueError, RecursionError, struct.error) as error:
        raise ProtocolError(f"not a difference of cluster states: {error}") from error
    if not change.shape_of and len(change.shapes) == 1:
        shape_of = (0,) * len(numbers)
    if len(shape_of) != len(numbers) or any(map(_is_not_below, numbers, (*numbers[1:], SLOTS))):
        raise ProtocolError("a difference does not say which slots it changes")
    members, content = _members_after(before, change, content)
    slots = list(before.slots)
    factors = slot_factors()
    values: dict[tuple[int, int], tuple[SlotState, int]] = {}
    equal: dict[SlotState, SlotState] = {}
    try:
        for number, place in zip(numbers, shape_of, strict=True):
            old = slots[number]
            found = values.get((id(old), place))
            if found is None:
                new = _slot_after(old, change.shapes[place], change, message.version)
                new = equal.setdefault(new, new)
                values[id(old), place] = found = new, _mark_of(new) - _mark_of(old)
            slots[number] = found[0]
            content += found[1] * factors[number]
    except (IndexError, ValueError) as error:
        raise ProtocolError(f"a difference refers to what it does not have: {error}") from error
    content &= _MASK
    head = change.head or _head_of(before)
    after = ClusterState(
        cluster=head.cluster,
        version=message.version,
        term=head.term,
        members=members,
        slots=tuple(slots) if numbers else before.slots,
        replication=head.replication,
        backup_lease_ms=head.backup_lease_ms,
        coordinator_lease_ms=head.coordinator_lease_ms,
        coordinator=head.coordinator,
        farewell=head.farewell,
        skipped=head.skipped,
        relocation=head.relocation,
    )
    _check_digest(after, content, message)
    return LaterState(after, content, list(numbers))  # type: ignore[arg-type]  # born here


def _check_base(before: ClusterState, message: StateDifference) -> None:
    if message.base != before.version:
        raise ProtocolError(
            f"a difference from version {message.base} does not apply to version {before.version}"
        )


def _check_digest(after: ClusterState, content: int, message: StateDifference) -> None:
    if digest_of(after, content) != message.digest:
        raise ProtocolError(f"a difference to version {message.version} leads to another state")


def _is_not_below(number: int, following: int) -> bool:
    return number >= following


def _members_after(before: ClusterState, body: _Body, content: int) -> tuple[dict[NodeId, Member], int]:
    """Return the members of the later state, and the content's digest with what has changed about them."""
    if not body.gone and not body.members:
        return before.members, content
    members = dict(before.members)
    for node in body.gone:
        old = members.pop(node, None)
        if old is None:
            raise ProtocolError(f"a difference removes node {node}, which is not a member")
        content -= _mark_of_member(old)
    for member in body.members:
        old = members.get(member.replica.node)
        if old is not None:
            content -= _mark_of_member(old)
        members[member.replica.node] = member
        content += _mark_of_member(member)
    return members, content


def _slot_after(old: SlotState, shape: _Shape, body: _Body, version: Version) -> SlotState:
    """Return a slot's value after a change of this shape.

    Raises:
        IndexError: the shape refers to something that is not there.
        ValueError: the same.
    """
    known, lives = _numbers_of(old, version), _lives_of(old)

    def number(reference: int, before: int) -> int:
        if reference <= _AS_BEFORE:
            return before if reference == _AS_BEFORE else _no_reference(reference)
        if reference < _NUMBERS_KNOWN:
            return known[reference - 1]
        return body.numbers[reference - _NUMBERS_KNOWN]

    def life(reference: int, before: Replica | None) -> Replica | None:
        if reference <= _AS_BEFORE:
            return before if reference == _AS_BEFORE else _no_reference(reference)
        if reference < _LIVES_KNOWN:
            return lives[reference - 1]
        return body.lives[reference - _LIVES_KNOWN]

    def copy(of_life: int, joined: int, before: Copy | None) -> Copy | None:
        if of_life == joined == _AS_BEFORE:
            return before
        replica = life(of_life, _life_of(before))
        return None if replica is None else Copy(replica, Version(number(joined, _joined(before))))

    return SlotState(
        epoch=number(shape.epoch_ref, old.epoch),  # type: ignore[arg-type]  # born here
        since=number(shape.since_ref, old.since),  # type: ignore[arg-type]
        base=number(shape.base_ref, old.base),  # type: ignore[arg-type]
        primary=life(shape.primary_ref, old.primary),
        backup=copy(shape.backup_ref, shape.backup_joined_ref, old.backup),
        learner=copy(shape.learner_ref, shape.learner_joined_ref, old.learner),
        generation_from=number(shape.generation_from_ref, old.generation_from),  # type: ignore[arg-type]
        generation_below=number(shape.generation_below_ref, old.generation_below),  # type: ignore[arg-type]
    )


def _no_reference(reference: int) -> NoReturn:
    raise ValueError(f"{reference} refers to nothing")
