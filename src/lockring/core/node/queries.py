"""What a node tells of its locks to those who ask, and what it does for operators: describe, list, break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockring.core.deadlines import DeadlineQueue
from lockring.core.node.lock_table import revoke_of
from lockring.core.node.locks import HOLDERS_MAX, LockHolder
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest
from lockring.names import check_lock_name
from lockring.protocol import (
    Break,
    BreakReply,
    Describe,
    DescribeReply,
    List,
    ListReply,
    LockRecord,
)
from lockring.slots import SLOTS, slot_of
from lockring.units import NS_PER_S, ns_to_ms_floor

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore
    from lockring.core.node.dispatch import ClientRequests

LIST_LIMIT_MAX: Final = 10_000
LIST_SCAN_MAX: Final = 20_000
"""Locks looked at for one page of a list, so that a page never takes long."""

LIST_HOLDERS_MAX: Final = HOLDERS_MAX
"""Holders in one page of a list, so that it fits into a message."""


class Queries:
    """Questions about locks, and orders to end a lease.

    Attributes:
        broken: when broken leases run out.
    """

    def __init__(self, node: NodeCore, service: ClientRequests) -> None:
        self._node = node
        self._service = service
        self.broken: DeadlineQueue[tuple[int, LockHolder]] = DeadlineQueue(lambda item, _: item[1].broken)

    def end_broken_due(self, now_ns: int) -> None:
        """Free the locks whose broken leases have run out."""
        while (due := self.broken.pop_due(now_ns)) is not None:
            slot, holder = due[1]
            data = self._node.slots[slot]
            if data.reign is not None and holder in data.table.broken:
                self._service.locking.drop_holder(data, holder, now_ns, "broken")

    def reign_began(self, data: NodeSlot, now_ns: int) -> None:
        """A slot is served here from now on. Whom an operator has taken a lock from believes in it for a TTL since then at most, and that
        was before this node heard of it."""
        for holder in data.table.broken:
            self.broken.push(now_ns + holder.session.lifetime_ns, (data.number, holder))

    def _info(self, name: str, now_ns: int) -> LockRecord:
        lock = self._node.slots[slot_of(name)].table.describe(name, self._node.replica.node, now_ns)
        lock.view = self._service.groups.view_of(name)
        return lock

    def describe(self, connection: int, message: Describe, now_ns: int) -> None:
        """Tell of one lock, held or free."""
        slot = slot_of(check_lock_name(message.name))
        if not self._node.may_serve(slot, now_ns=now_ns):
            self._service.elsewhere(connection, message, slot, now_ns)
            return
        self._node.send(connection, DescribeReply(message.request, self._info(message.name, now_ns)))

    def list_locks(self, connection: int, message: List, now_ns: int) -> None:
        """Tell of the locks in the slots served here, a page at a time."""
        if not 1 <= message.limit <= LIST_LIMIT_MAX or not 0 <= message.from_slot < SLOTS:
            raise InvalidRequest(f"a page has 1 to {LIST_LIMIT_MAX} locks, from slot 0 to {SLOTS - 1}")
        node = self._node
        serves_all = node.may_serve_everything(now_ns)
        locks: list[LockRecord] = []
        scanned = holders = unserved = 0
        after = message.after_name
        for slot in range(message.from_slot, SLOTS):
            data = node.slots.get(slot)
            if data is None or not (
                (serves_all and data.reign is not None) or node.may_serve(slot, now_ns=now_ns)
            ):
                unserved += node.state.slots[slot].primary == node.replica
            elif data.table.locks:
                names = sorted(
                    name for name in data.table.locks if name > after and name.startswith(message.prefix)
                )
                scanned += len(data.table.locks)
                room = message.limit - len(locks)
                for name in names[:room]:
                    lock = self._info(name, now_ns)
                    holders += len(lock.holders)
                    if locks and holders > LIST_HOLDERS_MAX:
                        after = locks[-1].name if slot_of(locks[-1].name) == slot else ""
                        node.send(connection, ListReply(message.request, locks, slot, after, unserved))
                        return
                    locks.append(lock)
                if len(names) > room:
                    last = names[room - 1] if room else after
                    node.send(connection, ListReply(message.request, locks, slot, last, unserved))
                    return
                if scanned >= LIST_SCAN_MAX and slot + 1 < SLOTS:
                    node.send(connection, ListReply(message.request, locks, slot + 1, "", unserved))
                    return
            after = ""
        node.send(connection, ListReply(message.request, locks, -1, "", unserved))

    def break_lease(self, connection: int, message: Break, now_ns: int) -> None:
        """End a holder's lease on an operator's word: not renewed any more, or with force gone at once."""
        name = check_lock_name(message.name)
        slot = slot_of(name)
        if not self._node.may_serve(slot, now_ns=now_ns):
            self._service.elsewhere(connection, message, slot, now_ns)
            return
        data = self._node.slots[slot]
        lock = data.table.locks.get(name)
        holder = next(
            (each for each in (lock.holders if lock else ()) if each.generation == message.generation), None
        )
        if holder is None:
            tokens = ", ".join(str(each.generation) for each in lock.holders) if lock else ""
            text = f"lock {name!r} is held with token {tokens}" if tokens else f"lock {name!r} is not held"
            self._service.refuse(
                connection, message, "not-held", f"{text}; token {message.generation} holds nothing"
            )
            return
        self._service.tell_lost(holder, "broken")
        left_ns = holder.session.deadline_ns - now_ns
        broken = f"lock {name!r} was taken from {holder.session.owner!r} (token {holder.generation})"
        if message.force or left_ns <= 0:
            self._node.note(f"{broken} by force: it is free at once", connection)
            self._service.locking.drop_holder(data, holder, now_ns, "broken")
            self._node.send(connection, BreakReply(message.request, True, 0))
            return
        if not holder.broken:
            within_s = left_ns / NS_PER_S
            self._node.note(
                f"{broken}: it is free once that lets go, in {within_s:.1f} s at the latest", connection
            )
        if not holder.broken:
            data.table.break_holder(holder)
            self.broken.push(now_ns + left_ns, (slot, holder))
            assert data.reign is not None
            if data.reign.streams:
                data.reign.record(revoke_of(holder), now_ns)
            else:
                data.reign.count()
        self._node.send(connection, BreakReply(message.request, False, ns_to_ms_floor(left_ns)))
