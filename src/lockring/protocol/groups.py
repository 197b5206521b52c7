"""Groups: their members and their views."""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.protocol.base import Message

MEMBER_PAYLOAD_BYTES_MAX: Final = 768
"""Longest payload of a group's member: with its id it fits into a holder's."""


WEIGHT_MAX: Final = 100
"""Greatest weight of a group's member."""


MEMBERS_MAX: Final = 1_000
"""Members of one group that own something; there are 4096 slots to own. Who comes later waits until there is room."""


class MemberRecord(msgspec.Struct, array_like=True, gc=False, frozen=True, tag="member"):
    """What a member of a group leaves with its holding of the group's lock, as that holding's payload."""

    id: str
    weight: int
    payload: bytes = b""


class GroupMember(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One member of a group: its id, its weight, what it tells the others, its client's owner label, and the token of its
    holding of the group's lock, by which it knows itself."""

    id: str
    weight: int
    payload: bytes
    owner: str
    fencing_token: int


def membership_of(payload: bytes) -> MemberRecord | None:
    """The membership that a holder's payload says, None if the holder is no member."""
    try:
        found = _memberships.decode(payload)
    except msgspec.DecodeError:
        return None
    return found if found.id and 1 <= found.weight <= WEIGHT_MAX else None


def payload_of(membership: MemberRecord) -> bytes:
    """The payload that says a membership."""
    return msgspec.msgpack.encode(membership)


_memberships: Final = msgspec.msgpack.Decoder(MemberRecord)


class DescribeGroup(Message, tag=31):
    """Ask for the members of the group whose lock is `name`. Answered `View`."""

    request: int
    name: str
    version: int = 0


class FollowGroup(Message, tag=32):
    """A member wants every `View` of its group, now and when it changes, until `Unwatch`, or `Refusal` when it moves.

    The member is the holder of the group's lock that `session` and `acquisition` name; it has seen the `view` of that number
    (0: none) and let go of what that takes from it.
    """

    request: int
    name: str
    session: str
    acquisition: int
    view: int = 0
    version: int = 0


class ViewAck(Message, tag=33):
    """A member has let go of what the `view` of that number takes from it. Not answered."""

    request: int
    name: str
    session: str
    acquisition: int
    view: int


class View(Message, tag=34):
    """The members of a group; `view` numbers it, 0 if the node has formed none yet.

    `settled`: every member that was there when it was formed has seen it or is gone, so what it gives to a member is
    nobody else's. `awaited` has the ids of those that have not, for who looks.
    """

    request: int
    view: int
    settled: bool
    members: list[GroupMember]
    awaited: list[str] = []


class SettlementNotice(Message, tag=35):
    """To a member that has this view: it is settled."""

    request: int
    view: int
