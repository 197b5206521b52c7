"""Questions about a node's locks, and an operator's orders about them: describe, list, break."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from lockring.core.access import Grantee, NameTable, Verb
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.effects import lock_entry
from lockring.core.events import BROKEN
from lockring.core.node.access_guard import AccessGuard, rights_for
from lockring.core.node.blockers import Blockers
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.grants import NodeGrants
from lockring.core.node.groups import Groups
from lockring.core.node.lock_table import revoke_of
from lockring.core.node.locks import HOLDERS_MAX, LockHolder
from lockring.core.node.searches import Searches
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest
from lockring.ids import ConnectionId, LockName, SlotNumber
from lockring.protocol import (
    Break,
    BreakReply,
    Describe,
    DescribeReply,
    HolderRecord,
    List,
    ListReply,
    LockRecord,
)
from lockring.slots import SLOTS, all_slots, slot_of
from lockring.units import NS_PER_S, ns_to_ms_floor

LIST_LIMIT_MAX: Final = 10_000
LIST_SCAN_MAX: Final = 20_000
"""Locks looked at for one page of a list, so that a page never takes long."""
LIST_UNSORTED_MAX: Final = 1_000
"""Locks of a slot that each page of a list sorts; those of a slot with more stay sorted for the next page."""

LIST_HOLDERS_MAX: Final = HOLDERS_MAX
"""Holders in one page of a list, so that it fits into a message."""


class Queries:
    """Questions about locks, and orders to end a lease.

    Attributes:
        broken: when broken leases run out.
        searches: those for the first locks by name.
    """

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        grants: NodeGrants,
        groups: Groups,
        *,
        guard: AccessGuard,
        blockers: Blockers,
    ) -> None:
        self._context = context
        self._clients = clients
        self._grants = grants
        self._groups = groups
        self._guard = guard
        self.searches = Searches(context, clients, grants, groups, guard=guard)
        self._blockers = blockers
        self.broken: DeadlineQueue[tuple[SlotNumber, LockHolder]] = DeadlineQueue(
            lambda item, _: item[1].broken, context.outbox.wake
        )

    def end_broken_due(self, now_ns: int) -> None:
        """Free the locks whose broken leases have run out."""
        while (due := self.broken.pop_due(now_ns)) is not None:
            number, holder = due[1]
            slot = self._context.slots[number]
            if slot.reign is not None and holder in slot.table.broken:
                self._grants.drop_holder(slot, holder, now_ns, "broken")

    def reign_began(self, slot: NodeSlot, now_ns: int) -> None:
        """Time the ends of broken leases in a slot that is served here from now on.

        When a lease was broken is not known here, but it was before now, and the client may believe in it for a TTL
        from then on.
        """
        for holder in slot.table.broken:
            self.broken.push(now_ns + holder.session.lifetime_ns, (slot.number, holder))

    def _record_of(self, name: LockName, slot: NodeSlot, now_ns: int) -> LockRecord:
        record = slot.table.describe(name, self._context.replica.node, now_ns)
        record.view = self._groups.view_of(name)
        record.holders = [self._located(holder, slot) for holder in record.holders]
        return record

    def _located(self, holder: HolderRecord, slot: NodeSlot) -> HolderRecord:
        found = slot.table.find(holder.session, holder.acquisition)
        return self._blockers.located(holder, found) if isinstance(found, LockHolder) else holder

    def describe(self, connection: ConnectionId, message: Describe, slot: NodeSlot, now_ns: int) -> None:
        """Describe one lock, held or free."""
        access = self._clients.by_connection[connection].access
        record = self._guard.shown(self._record_of(message.name, slot, now_ns), access)
        reply = DescribeReply(message.request, record)
        if message.asks_rights:
            reply.rights, reply.identity = rights_for(access, message.name)
        self._context.outbox.send(connection, reply)

    def list_locks(self, connection: ConnectionId, message: List, now_ns: int) -> None:
        """Describe the locks in the slots served here, a page at a time."""
        if not 1 <= message.limit <= LIST_LIMIT_MAX or not 0 <= message.from_slot < SLOTS:
            raise InvalidRequest(f"a page has 1 to {LIST_LIMIT_MAX} locks, from slot 0 to {SLOTS - 1}")
        context, access = self._context, self._clients.by_connection[connection].access
        readable = None
        if access is not None and not access.permissions.tables[Verb.READ].allows_all(message.prefix):
            if self._guard.refuses_list(connection, access, message):
                return
            if access.is_enforced:
                readable = access.permissions.tables[Verb.READ]
        if message.search is not None:
            self.searches.answer(
                connection, message, message.search, access=access, readable=readable, now_ns=now_ns
            )
            return
        serves_all = context.rights.may_serve_everything(now_ns)
        page = _Page(message, access, readable)
        after = message.after_name
        for number in all_slots()[message.from_slot :]:
            slot = context.slots.get(number)
            if slot is None or not (
                (serves_all and slot.reign is not None) or context.rights.may_serve(number, now_ns=now_ns)
            ):
                page.unserved += context.state.slots[number].primary == context.replica
            elif slot.table.locks:
                if self._fill(page, slot, after, now_ns):
                    break
            after = ""
        context.outbox.send(connection, page.reply())

    def _fill(self, page: _Page, slot: NodeSlot, after: str, now_ns: int) -> bool:
        """Add a slot's locks behind a name to a page, and return whether the page is full."""
        message = page.message
        room = message.limit - len(page.locks)
        names = self._pick_behind(page, slot, after, room + 1)
        page.scanned += len(slot.table.locks)
        for name in names[:room]:
            record = self._record_of(name, slot, now_ns)
            page.holders += len(record.holders)
            if page.locks and page.holders > LIST_HOLDERS_MAX:
                last = page.locks[-1].name
                page.end(slot.number, last if slot_of(last) == slot.number else "")
                return True
            page.locks.append(self._guard.shown(record, page.access))
        if len(names) > room:
            page.end(slot.number, names[room - 1] if room else after)
            return True
        if page.scanned >= LIST_SCAN_MAX and slot.number + 1 < SLOTS:
            page.end(SlotNumber(slot.number + 1), "")
            return True
        return False

    def _pick_behind(self, page: _Page, slot: NodeSlot, after: str, most: int) -> list[LockName]:
        """Pick the first names of a slot behind a name that are wanted, in order.

        A slot with many locks is sorted once for all its pages, in the index of the searches.
        """
        locks, prefix, readable = slot.table.locks, page.message.prefix, page.readable
        if len(locks) <= LIST_UNSORTED_MAX:
            return sorted(
                name
                for name in locks
                if name > after and name.startswith(prefix) and (readable is None or readable.allows(name))
            )
        found: list[LockName] = []
        names = self.searches.index.bring(slot)[0].names
        for at in range(max(bisect_left(names, prefix), bisect_right(names, after)), len(names)):
            name = names[at]
            if len(found) == most or not name.startswith(prefix):
                break
            if name in locks and (readable is None or readable.allows(name)):
                found.append(name)
        return found

    def break_lease(self, connection: ConnectionId, message: Break, slot: NodeSlot, now_ns: int) -> None:
        """End a holder's lease by an operator's order: not renewed any more, or with force gone at once."""
        outbox = self._context.outbox
        lock = slot.table.locks.get(message.name)
        holders = lock.holders if lock is not None else ()
        holder = next((each for each in holders if each.generation == message.generation), None)
        if holder is None:
            self._clients.refuse(connection, message, "not-held", _why_not_held(message, holders))
            return
        if outbox.audits:
            access = self._clients.by_connection[connection].access
            outbox.add(
                lock_entry(
                    "break",
                    message.name,
                    holder.generation,
                    connection=connection,
                    access=access,
                    is_forwarded=self._clients.is_forwarded(connection, access),
                    verb=Verb.BREAK,
                )
            )
        if message.force or not holder.broken:
            self._context.outbox.counters.breaks[message.force] += 1
        self._clients.notify_lost(holder, "broken")
        if not holder.broken or message.force:
            self._context.outbox.events.lock_ended(
                BROKEN,
                message.name,
                holder.session.owner,
                holder.generation,
                reason="forced" if message.force else "",
                now_ns=now_ns,
            )
        left_ns = holder.session.deadline_ns - now_ns
        broken = f"lock {message.name!r} was taken from {holder.session.owner!r} (token {holder.generation})"
        if message.force or left_ns <= 0:
            outbox.note("lock-broken", f"{broken} by force: it is free at once", connection)
            self._grants.drop_holder(slot, holder, now_ns, "broken")
            outbox.send(connection, BreakReply(message.request, True, 0))
            return
        if not holder.broken:
            within_s = left_ns / NS_PER_S
            outbox.note(
                "lock-broken",
                f"{broken}: it is free once that lets go, in {within_s:.1f} s at the latest",
                connection,
            )
            slot.table.break_holder(holder)
            self.broken.push(now_ns + left_ns, (slot.number, holder))
            assert slot.reign is not None
            # The copies hear of it, so that the next primary does not renew the lease either.
            if slot.reign.streams or slot.reign.journal is not None:
                slot.reign.record(revoke_of(holder), now_ns, urgent=True)
            else:
                slot.reign.count()
        outbox.send(connection, BreakReply(message.request, False, ns_to_ms_floor(left_ns)))


class _Page:
    """A page of a list for an identity while it is filled; `readable` says which locks may be shown, None for all."""

    def __init__(self, message: List, access: Grantee | None, readable: NameTable | None) -> None:
        self.message = message
        self.access = access
        self.readable = readable
        self.locks: list[LockRecord] = []
        self.scanned = 0
        self.holders = 0
        self.unserved = 0
        self._next_slot = SlotNumber(-1)
        self._after = ""

    def end(self, next_slot: SlotNumber, after: str) -> None:
        """Let the next page begin in that slot, behind that name."""
        self._next_slot = next_slot
        self._after = after

    def reply(self) -> ListReply:
        """Return the page as its client gets it."""
        return ListReply(self.message.request, self.locks, self._next_slot, self._after, self.unserved)


def _why_not_held(message: Break, holders: Sequence[LockHolder]) -> str:
    tokens = ", ".join(str(each.generation) for each in holders)
    held = f"is held with token {tokens}" if tokens else "is not held"
    return f"lock {message.name!r} {held}; token {message.generation} holds nothing"
