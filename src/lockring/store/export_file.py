"""The file that carries a cluster's state from one store to another: JSON, described in `docs/cli.md`.

- *It is whole, or refused.* A checksum covers all of it, so a file that was cut or edited is found.
- *Versions are text.* They are nanoseconds, larger than the numbers that many JSON readers keep exactly.
- *It has no farewell.* That is the word of stopped nodes on when their last promise ends, and it lets the next start
  wait less. It is true for the very store that it was written to: after an export, the cluster may have gone on there.
- *It names the versions that were skipped*, by which a loss of the store shows that it moved away from. Files of format
  version 1 name none, and none are made up for them: a node that lacks the newest state, or a journal that does, would
  be taken for the sign of a loss.
- *It does not say which members take differences.* They say so again when they join.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

import msgspec

from lockring.addresses import split_address
from lockring.cluster_state import (
    SKIPPED_MAX,
    ClusterState,
    Condition,
    Copy,
    Member,
    Replica,
    Replication,
    SlotState,
)
from lockring.core.coordinator import check_state
from lockring.errors import InvalidRequest, StoreError
from lockring.ids import ClusterId, Epoch, Generation, Incarnation, NodeId, SlotNumber, TermId, Version
from lockring.names import check_node_id
from lockring.slots import SLOTS
from lockring.units import NS_PER_S, NS_PER_US

FORMAT: Final = "lockring cluster state"
FORMAT_VERSION: Final = 2
"""Raised when the meaning of the file changes. A file of a later version is refused rather than guessed at."""
_WITHOUT_SKIPPED: Final = 1
"""The version of files that name no skipped versions."""

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Longest file that is read; the state of a large cluster has a hundredth of that."""

_MEND: Final = "export the state again"


class Export(NamedTuple):
    """A state that was exported.

    Attributes:
        state: the state, without a farewell.
        exported_at_ns: when, by the wall clock in nanoseconds.
        source: the store that it was read from, for people.
        is_move: whether that store bears a mark that the cluster has left it; otherwise the file is a copy.
    """

    state: ClusterState
    exported_at_ns: int
    source: str
    is_move: bool = False


_Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]


class _Life(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: NodeId
    incarnation: _Count


class _Tenure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: NodeId
    incarnation: _Count
    joined: _Number


class _Slots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    numbers: str
    epoch: _Number
    since: _Number
    base: _Number
    primary: _Life | None
    backup: _Tenure | None
    learner: _Tenure | None
    generation_from: _Count
    generation_below: _Count


class _Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    incarnation: _Count
    address: str
    weight: Annotated[int, msgspec.Meta(ge=1, le=100)]
    condition: Condition
    grpc: str


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cluster: ClusterId
    version: _Number
    term: TermId
    coordinator: str
    replication: Replication
    backup_lease_ms: _Milliseconds
    coordinator_lease_ms: _Milliseconds
    members: list[_Member]
    slots: list[_Slots]
    skipped: list[tuple[_Number, _Number]] | msgspec.UnsetType = msgspec.UNSET


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    layout: int = msgspec.field(name="format_version")
    exported_at: str
    source: str
    is_move: bool
    checksum: str
    state: _State


class _Header(msgspec.Struct, frozen=True):
    format: str
    layout: int = msgspec.field(name="format_version")


def encode_export(export: Export) -> bytes:
    """Return the content of the file for a state, indented and with a line end."""
    content = _Document(
        format=FORMAT,
        layout=FORMAT_VERSION,
        exported_at=_to_text(export.exported_at_ns),
        source=export.source,
        is_move=export.is_move,
        checksum="",
        state=_to_file(export.state),
    )
    content = msgspec.structs.replace(content, checksum=_checksum_of(content))
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def decode_export(data: bytes) -> Export:
    """Return the state in a file's content.

    Raises:
        StoreError: it is not such a file, is of another version, was changed, or contradicts itself.
    """
    try:
        header = msgspec.json.decode(data, type=_Header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreError(f"it is not an export of lockring, or was cut: {error}; {_MEND}") from error
    if header.format != FORMAT:
        raise StoreError(f"it says {header.format[:40]!r}, not {FORMAT!r}: it is not an export of lockring")
    if not _WITHOUT_SKIPPED <= header.layout <= FORMAT_VERSION:
        raise StoreError(
            f"it has format version {header.layout}, but this release reads {_WITHOUT_SKIPPED} to {FORMAT_VERSION}: import it"
            " with the release that exported it"
        )
    try:
        content = msgspec.json.decode(data, type=_Document)
        exported_at_ns = _from_text(content.exported_at)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"it is damaged: {error}; {_MEND}") from error
    if content.checksum != _checksum_of(content):
        raise StoreError(f"it was changed: its checksum belongs to another content; {_MEND}")
    try:
        if (content.layout == _WITHOUT_SKIPPED) != (content.state.skipped is msgspec.UNSET):
            raise ValueError(
                f"skipped versions do not belong to format version {content.layout}, or are missing"
            )
        state = _from_file(content.state)
        check_state(state)
    except (InvalidRequest, ValueError, AssertionError) as error:
        raise StoreError(f"it contradicts itself: {str(error)[:200]}; {_MEND}") from error
    return Export(state, exported_at_ns, content.source, content.is_move)


# --------------------------------------------------------------------------- both ways


def _to_file(state: ClusterState) -> _State:
    places: dict[SlotState, list[int]] = {}
    for place, slot in enumerate(state.slots):
        places.setdefault(slot, []).append(place)
    return _State(
        cluster=state.cluster,
        version=str(state.version),
        term=state.term,
        coordinator=state.coordinator,
        replication=state.replication,
        backup_lease_ms=state.backup_lease_ms,
        coordinator_lease_ms=state.coordinator_lease_ms,
        members=[
            _Member(
                id=member.replica.node,
                incarnation=member.replica.incarnation,
                address=member.address,
                weight=member.weight,
                condition=member.condition,
                grpc=member.grpc,
            )
            for _, member in sorted(state.members.items())
        ],
        slots=[
            _Slots(
                numbers=_to_ranges(numbers),
                epoch=str(slot.epoch),
                since=str(slot.since),
                base=str(slot.base),
                primary=None if slot.primary is None else _Life(slot.primary.node, slot.primary.incarnation),
                backup=_to_tenure(slot.backup),
                learner=_to_tenure(slot.learner),
                generation_from=slot.generation_from,
                generation_below=slot.generation_below,
            )
            for slot, numbers in places.items()
        ],
        skipped=[(str(below), str(above)) for below, above in state.skipped],
    )


def _from_file(found: _State) -> ClusterState:
    members = [
        Member(
            replica=Replica(check_node_id(each.id), Incarnation(each.incarnation)),
            address=_address(each.address),
            weight=each.weight,
            condition=each.condition,
            grpc=_address(each.grpc) if each.grpc else "",
        )
        for each in found.members
    ]
    slots: list[SlotState | None] = [None] * SLOTS
    for each in found.slots:
        primary = each.primary
        slot = SlotState(
            epoch=Epoch(int(each.epoch)),
            since=Version(int(each.since)),
            base=Version(int(each.base)),
            primary=None if primary is None else _replica(primary.node, Incarnation(primary.incarnation)),
            backup=_from_tenure(each.backup),
            learner=_from_tenure(each.learner),
            generation_from=Generation(each.generation_from),
            generation_below=Generation(each.generation_below),
        )
        for number in _from_ranges(each.numbers):
            if slots[number] is not None:
                raise ValueError(f"slot {number} is there twice")
            slots[number] = slot
    missing = [number for number, each_slot in enumerate(slots) if each_slot is None]
    if missing:
        raise ValueError(f"{len(missing)} of {SLOTS} slots are missing, the first is {missing[0]}")
    if len({member.replica.node for member in members}) < len(members):
        raise ValueError("a member is there twice")
    if not found.cluster or not int(found.version):
        raise ValueError("there is no cluster in it")
    version = Version(int(found.version))
    return ClusterState(
        cluster=found.cluster,
        version=version,
        term=found.term,
        members={member.replica.node: member for member in members},
        slots=tuple([each_slot for each_slot in slots if each_slot is not None]),
        replication=found.replication,
        backup_lease_ms=found.backup_lease_ms,
        coordinator_lease_ms=found.coordinator_lease_ms,
        coordinator=_address(found.coordinator) if found.coordinator else "",
        skipped=_skipped(found, version),
    )


def _skipped(found: _State, version: Version) -> tuple[tuple[Version, Version], ...]:
    """Return the ranges of skipped versions, none for a file that does not name them."""
    if found.skipped is msgspec.UNSET:
        return ()
    ranges = tuple([(Version(int(below)), Version(int(above))) for below, above in found.skipped])
    if len(ranges) > SKIPPED_MAX or any(not below < above <= version for below, above in ranges):
        raise ValueError("its skipped versions are not below its own, or too many")
    return ranges


def _to_tenure(copy: Copy | None) -> _Tenure | None:
    return None if copy is None else _Tenure(copy.replica.node, copy.replica.incarnation, str(copy.joined))


def _from_tenure(found: _Tenure | None) -> Copy | None:
    if found is None:
        return None
    return Copy(_replica(found.node, Incarnation(found.incarnation)), Version(int(found.joined)))


def _replica(node: NodeId, incarnation: Incarnation) -> Replica:
    return Replica(check_node_id(node), incarnation)


def _address(text: str) -> str:
    split_address(text)
    return text


def _to_ranges(numbers: Iterable[int]) -> str:
    """Return ascending numbers as text: "0-3,7"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _from_ranges(text: str) -> Iterable[SlotNumber]:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin, end = int(first), int(last if dash else first)
        if not 0 <= begin <= end < SLOTS:
            raise ValueError(f"there are no slots {part[:40]!r}")
        yield from map(SlotNumber, range(begin, end + 1))


def _checksum_of(content: _Document) -> str:
    """Return the checksum of a file: that of its content on one line with an empty checksum."""
    data = msgspec.json.encode(msgspec.structs.replace(content, checksum=""))
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _to_text(wall_ns: int) -> str:
    return (
        datetime.fromtimestamp(wall_ns // NS_PER_S, UTC)
        .replace(microsecond=wall_ns % NS_PER_S // NS_PER_US)
        .isoformat(timespec="microseconds")
    )


def _from_text(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no offset from UTC")
    return int(moment.replace(microsecond=0).timestamp()) * NS_PER_S + moment.microsecond * NS_PER_US
