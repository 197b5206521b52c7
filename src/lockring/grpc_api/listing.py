"""A `ListLocks` call: one page over all nodes. Each node lists its own locks, by slot and name.

A page token says where the next page begins: at which node, slot and name. It means the same at every node, and no node
keeps anything for it. So a page is assembled here, of parts for which the client core asks single members: the core's
own list keeps its place until it has everything.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Final

import msgspec

from lockring.clock import monotonic_ns
from lockring.cluster_state import Replica
from lockring.core.client import PageRequest
from lockring.errors import InvalidRequest, Unavailable
from lockring.grpc_api.converters import lock_of
from lockring.grpc_api.driver import AGAIN, NodeDriver
from lockring.grpc_api.host import NodeHost
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import FIRST_SLOT, NO_NODE, NodeId, SlotNumber
from lockring.protocol import ListReply
from lockring.slots import SLOTS

PAGE_LOCKS_MAX: Final = 1_000
_PAGE_LOCKS: Final = 100
_PAGE_BYTES: Final = 1024 * 1024
_ASKED_LOCKS: Final = 100
_ASKED_MAX: Final = 50
"""Questions for one page: where few locks have the prefix, a page ends before it is full."""

_PAUSE_S: Final = 0.1


class _Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    node: NodeId = NO_NODE
    slot: SlotNumber = FIRST_SLOT
    after: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Place)


class Lister:
    """Assembles pages.

    Args:
        host: the node of this process, whose cluster state says which members there are.
        driver: asks them.
    """

    def __init__(self, host: NodeHost, driver: NodeDriver) -> None:
        self._host = host
        self._driver = driver

    async def page(self, request: pb.ListLocksRequest, until_ns: int) -> pb.ListLocksResponse:
        """Return one page.

        Raises:
            InvalidRequest: the size or the token is not valid.
            Unavailable: no slot is served, or a node may not speak of any of its slots.
            LockringError: a node could not be asked in time.
        """
        if not 0 <= request.page_size <= PAGE_LOCKS_MAX:
            raise InvalidRequest(f"page_size is 1 to {PAGE_LOCKS_MAX}, or 0, not {request.page_size}")
        room = request.page_size or _PAGE_LOCKS
        place: _Place | None = _decoded(request.page_token)
        page = pb.ListLocksResponse()
        size = 0
        if self._node_from(NO_NODE) is None:
            raise Unavailable("no node serves any slot at present", reason="no-primary")
        for _ in range(_ASKED_MAX):
            assert place is not None
            node = self._node_from(place.node)
            if node is None:
                place = None
                break
            if node != place.node:
                place = _Place(node)
            listed = await self._ask(request.prefix, place, min(room, _ASKED_LOCKS), until_ns)
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
        if place is not None and self._node_from(place.node) is not None:
            page.next_page_token = base64.urlsafe_b64encode(_encoder.encode(place)).decode()
        return page

    async def _ask(self, prefix: str, place: _Place, limit: int, until_ns: int) -> ListReply | None:
        """Ask a node for its next locks; None if it is not a member any more."""
        while True:
            member = self._host.state.members.get(place.node)
            if member is None:
                return None
            replica = member.replica
            page = PageRequest(replica, place.slot, place.after, limit)
            try:
                answer: ListReply = await self._driver.ask(
                    lambda core, now_ns, page=page: core.list_page(  # type: ignore[misc]
                        prefix, page, give_up_at_ns=until_ns, now_ns=now_ns
                    )
                )
                if answer.unserved and not answer.locks and self._primaries(replica) <= answer.unserved:
                    raise Unavailable(f"node {place.node} may not serve any of its slots at present")
                return answer
            except AGAIN:
                if monotonic_ns() >= until_ns:
                    raise
            await asyncio.sleep(_PAUSE_S)

    def _node_from(self, node: NodeId) -> NodeId | None:
        """Return the first member, by its id and from `node` on, that is primary of something."""
        state = self._host.state
        primaries: set[Replica | None] = {slot.primary for slot in state.slots}
        return min(
            (each for each in state.members if each >= node and state.members[each].replica in primaries),
            default=None,
        )

    def _primaries(self, replica: Replica) -> int:
        """Return how many slots have this primary."""
        return sum(slot.primary == replica for slot in self._host.state.slots)


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
