"""Groups: their members and their views."""

from typing import Final

import msgspec

from lockring.ids import (
    NO_GENERATION,
    NO_VERSION,
    AcquisitionNumber,
    Generation,
    LockName,
    RequestNumber,
    SessionId,
    Version,
)
from lockring.protocol.base import Message

MEMBER_PAYLOAD_BYTES_MAX: Final = 768
"""Longest payload of a group's member. Together with its id it fits into a holder's."""


WEIGHT_MAX: Final = 100
"""Greatest weight of a group's member, and of a node."""


MEMBERS_MAX: Final = 1_000
"""Largest number of members of one group that own keys; further ones wait until there is room."""


class MemberRecord(msgspec.Struct, array_like=True, gc=False, frozen=True, tag="member"):
    """A member's own record, kept as the payload of its holding of the group's lock."""

    id: str
    weight: int
    payload: bytes = b""


class GroupMember(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One member of a group.

    `payload` is its message to the others, `owner` its client's owner label, and `fencing_token` the token of its
    holding of the group's lock, by which a member recognizes itself.
    """

    id: str
    weight: int
    payload: bytes
    owner: str
    fencing_token: Generation


def membership_of(payload: bytes) -> MemberRecord | None:
    """Return the membership in a holder's payload, None if the holder is not a member."""
    try:
        found = _memberships.decode(payload)
    except msgspec.DecodeError:
        return None
    return found if found.id and 1 <= found.weight <= WEIGHT_MAX else None


def payload_of(membership: MemberRecord) -> bytes:
    """Return the payload that holds a membership."""
    return msgspec.msgpack.encode(membership)


_memberships: Final = msgspec.msgpack.Decoder(MemberRecord)


class DescribeGroup(Message, tag=31):
    """Ask for the members of the group whose lock is `name`. Answered `View`."""

    request: RequestNumber
    name: LockName
    version: Version = NO_VERSION


class FollowGroup(Message, tag=32):
    """Subscribe a member to its group: each `View`, now and on change, until `Unwatch`, or `Refusal` when it moves.

    The member is the holder of the group's lock with this `session` and `acquisition`. It has seen the `view` of that
    number (0: none) and let go of what that takes from it.
    """

    request: RequestNumber
    name: LockName
    session: SessionId
    acquisition: AcquisitionNumber
    view: Generation = NO_GENERATION
    version: Version = NO_VERSION


class ViewAck(Message, tag=33):
    """The member has let go of what the `view` of that number takes from it. Not answered."""

    request: RequestNumber
    name: LockName
    session: SessionId
    acquisition: AcquisitionNumber
    view: Generation


class View(Message, tag=34):
    """The members of a group; `view` numbers the list, 0 if the node has formed none yet.

    `settled`: every member of the time before has seen it or is gone, so each key has left its former owner. `awaited`
    has the ids of those that have not yet answered, for observers.
    """

    request: RequestNumber
    view: Generation
    settled: bool
    members: list[GroupMember]
    awaited: list[str] = []


class SettlementNotice(Message, tag=35):
    """The view that the member has is settled."""

    request: RequestNumber
    view: Generation
