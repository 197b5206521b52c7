"""Messages from a primary to its copies: mutations of a slot, the parts of a stream, and the end of a reign."""

import msgspec

from lockring.ids import (
    AcquisitionNumber,
    Generation,
    LockName,
    MutationIndex,
    SequenceNumber,
    SessionId,
    SlotNumber,
    Version,
)
from lockring.protocol.base import Message


class Put(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=0):
    """A holder was added. `age_ms` is its age when this was written; `payload` is as in `Acquire`.

    `identity` is the key of the identity to which the session belongs, "" if the primary knows none.
    """

    name: LockName
    mode: int
    permits: int
    session: SessionId
    acquisition: AcquisitionNumber
    owner: str
    ttl_ms: int
    generation: Generation
    seq: int
    age_ms: int = 0
    payload: bytes = b""
    identity: str = ""


class Remove(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=1):
    """A holder was removed: released, expired or broken."""

    name: LockName
    session: SessionId
    acquisition: AcquisitionNumber


class AdvanceGeneration(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=2):
    """A generation was used without a grant: as the number of a view of the group whose lock is `name`."""

    name: LockName
    generation: Generation


class Revoke(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=3):
    """An operator ended a grant: no keepalive renews it any more, at any primary."""

    session: SessionId
    acquisition: AcquisitionNumber


Mutation = Put | Remove | AdvanceGeneration | Revoke


class Snapshot(msgspec.Struct, array_like=True, gc=False, tag=0):
    """All holders of a slot as of `index`, in one or more parts: `part` counts from 0, `last` marks the end.

    The revocations come after all holders.
    """

    slot: SlotNumber
    since: Version
    joined: Version
    base: Version
    index: MutationIndex
    highest: Generation
    part: int
    last: bool
    holders: list[Put | Revoke]


class Tail(msgspec.Struct, array_like=True, gc=False, tag=1):
    """The mutations `after` + 1, `after` + 2, … of a reign; may be empty."""

    slot: SlotNumber
    since: Version
    joined: Version
    after: MutationIndex
    highest: Generation
    mutations: list[Mutation]


class Resume(msgspec.Struct, array_like=True, gc=False, tag=2):
    """The state at index 0 of the new primary's reign is that of the reign `ended_since` at `ended_index`.

    A copy that ended there (the former primary of a planned move) is at index 0; any other needs a snapshot.
    """

    slot: SlotNumber
    since: Version
    joined: Version
    ended_since: Version
    ended_index: MutationIndex


StreamPart = Snapshot | Tail | Resume


class HandOverSlot(msgspec.Struct, array_like=True, gc=False):
    """The end of a reign: its mutations after `after`, which end at `index`; `highest` is its highest generation."""

    slot: SlotNumber
    since: Version
    joined: Version
    after: MutationIndex
    index: MutationIndex
    highest: Generation
    mutations: list[Mutation]


class Replicate(Message, tag=60):
    """A heartbeat from a primary to a copy, with the news of any number of slots.

    `version` is the sender's state; `serving` is False if the sender knows that it may not serve (no coordinator
    lease).
    """

    sequence: SequenceNumber
    version: Version
    serving: bool
    streams: list[StreamPart]


class Position(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The progress of a copy of one slot.

    Attributes:
        slot: the slot.
        since: the reign that the copy follows.
        joined: the tenure of the copy.
        reached: index of the last mutation that it has; -1 asks for a snapshot.
    """

    slot: SlotNumber
    since: Version
    joined: Version
    reached: MutationIndex


class ReplicateAck(Message, tag=61):
    """Acknowledges `Replicate` number `sequence`, and so extends the sender's lease; `version` is the copy's state.

    `positions` has one entry for each slot in it that the sender follows.

    With `is_lease_only` it extends the lease and says nothing else, since the copy's disk is slow. `version` is that of
    a state which its journal has, and another acknowledgement, of `sequence` or a later number, says the rest.
    """

    sequence: SequenceNumber
    version: Version
    positions: list[Position]
    is_lease_only: bool = False


class HandOver(Message, tag=62):
    """From a former primary to its successor: the sender will never serve these slots in that reign again."""

    version: Version
    slots: list[HandOverSlot]
