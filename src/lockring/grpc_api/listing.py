"""A `ListLocks` call: one page over all nodes, each of which is asked for what it has, by slot and name.

A page token says where the next page begins: at which node, slot and name. It means the same at every node, and nothing
is kept for it anywhere.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from lockring.clock import monotonic_ns
from lockring.cluster_state import Replica
from lockring.errors import InvalidRequest, Unavailable
from lockring.grpc_api.converters import lock_of
from lockring.grpc_api.router import AGAIN, Forwarder
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import NO_NODE, NodeId, SlotNumber
from lockring.protocol import List, ListReply
from lockring.slots import SLOTS

PAGE_LOCKS_MAX: Final = 1_000
_PAGE_LOCKS: Final = 100
_PAGE_BYTES: Final = 1024 * 1024
_ASKED_LOCKS: Final = 100
_ASKED_MAX: Final = 50
"""Questions for one page: where few locks have the prefix, a page ends before it is full."""


class _Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    node: NodeId = NodeId("")
    slot: SlotNumber = SlotNumber(0)
    after: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Place)


async def list_page(
    forwarder: Forwarder, request: pb.ListLocksRequest, until_ns: int
) -> pb.ListLocksResponse:
    """One page.

    Raises:
        InvalidRequest: the size or the token is none.
        Unavailable: no slot is served, or a node may not tell of any of its slots.
        LockringError: a node could not be asked in time.
    """
    if not 0 <= request.page_size <= PAGE_LOCKS_MAX:
        raise InvalidRequest(f"page_size is 1 to {PAGE_LOCKS_MAX}, or 0, not {request.page_size}")
    room = request.page_size or _PAGE_LOCKS
    place: _Place | None = _decoded(request.page_token)
    page = pb.ListLocksResponse()
    size = 0
    if _node_from(forwarder, NO_NODE) is None:
        raise Unavailable("no node serves any slot at present", reason="no-primary")
    for _ in range(_ASKED_MAX):
        assert place is not None
        node = _node_from(forwarder, place.node)
        if node is None:
            place = None
            break
        if node != place.node:
            place = _Place(node)
        listed = await _ask(forwarder, request.prefix, place, min(room, _ASKED_LOCKS), until_ns)
        if listed is None:
            place = _Place(NodeId(node + "\0"))  # it has left: go on with the one after it
            continue
        for lock in listed.locks:
            found = lock_of(lock, in_list=True)
            page.locks.append(found)
            size += found.ByteSize()
            room -= 1
            place = _Place(node, lock.slot, lock.name)
            if size >= _PAGE_BYTES:
                break
        else:
            place = _Place(node, listed.next_slot, listed.next_name)
            if listed.next_slot < 0:
                place = _Place(NodeId(node + "\0"))
        if room <= 0 or size >= _PAGE_BYTES:
            break
    if place is not None and _node_from(forwarder, place.node) is not None:
        page.next_page_token = base64.urlsafe_b64encode(_encoder.encode(place)).decode()
    return page


async def _ask(
    forwarder: Forwarder, prefix: str, place: _Place, limit: int, until_ns: int
) -> ListReply | None:
    """Ask a node for its next locks; None if it is a member no more."""
    attempts = 0
    while True:
        member = forwarder.state.members.get(place.node)
        if member is None:
            return None
        try:
            port = await forwarder.port_of(member.replica, until_ns)
            answer = await forwarder.ask_once(
                port, lambda number, _: List(number, prefix, place.slot, place.after, limit), until_ns
            )
            assert isinstance(answer, ListReply)
            if (
                answer.unserved
                and not answer.locks
                and _primaries(forwarder, member.replica) <= answer.unserved
            ):
                raise Unavailable(f"node {place.node} may not serve any of its slots at present")
            return answer
        except AGAIN:
            if monotonic_ns() >= until_ns:
                raise
        await forwarder.pause(attempts, until_ns)
        attempts += 1


def _node_from(forwarder: Forwarder, node: NodeId) -> NodeId | None:
    """The first member that is primary of something, by its id, from `node` on."""
    primaries: set[Replica | None] = {slot.primary for slot in forwarder.state.slots}
    members = forwarder.state.members
    return min(
        (each.replica.node for name, each in members.items() if name >= node and each.replica in primaries),
        default=None,
    )


def _primaries(forwarder: Forwarder, replica: Replica) -> int:
    """How many slots have this primary."""
    return sum(slot.primary == replica for slot in forwarder.state.slots)


def _decoded(token: str) -> _Place:
    if not token:
        return _Place()
    try:
        place = _decoder.decode(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest("page_token is not one that a page before has brought") from error
    if not 0 <= place.slot < SLOTS:
        raise InvalidRequest("page_token is not one that a page before has brought")
    return place
