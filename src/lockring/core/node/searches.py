"""Searches: which of a node's locks come first by name, of those that are wanted.

Each question looks through some slots and answers with the first names there, and the next one goes on in the next
slots. Once enough names are known, the last of them is a bound, so that hardly more than a comparison is left to do for
each further lock; a client that has enough sets it for the next question.

A question is worked at in slices of half a millisecond, and a turn of the node has one slice, of the question that has
waited longest. So an acquire waits for little more than a slice, however many ask; only beyond `SEARCHES_UNDER_WAY_MAX`
each further question has one slice at once, and that is its answer. A lock is shown as it was when its slot was looked
through. What happens to others between two slices may or may not be seen.

Names are mostly looked up in order (see `name_index`), and those of a slot that is not in order yet are sorted. Locks
of a mode or of an owner are looked for among all, as long as names have no bound: few may be wanted, anywhere. A slot
is passed by where no lock has the mode, or, if names alone matter, where the first one of many is beyond the bound.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from typing import Final

from lockring.core.access import Grantee, NameTable, end_of_prefix
from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.counters import MODES
from lockring.core.node.grants import NodeGrants
from lockring.core.node.groups import Groups
from lockring.core.node.lock_table import LockTable
from lockring.core.node.name_index import NameIndex, SlotNames
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest
from lockring.ids import ConnectionId, LockName, SlotNumber
from lockring.names import text_searched_from
from lockring.protocol import COUNTED_MAX, List, ListReply, LockRecord, LockSearch, Mode
from lockring.slots import all_slots, slot_of
from lockring.units import NS_PER_MS, NS_PER_S

SEARCH_LIMIT_MAX: Final = 1_001
"""Locks in one answer: one more than a page has, which says that there is another page."""
SEARCH_EFFORT_MAX: Final = 200_000
"""How much is done for one answer, in comparisons of a name: one takes some 50 ns."""
SEARCH_SLICE_EFFORT: Final = 8_000
"""How much of that is done in one turn of the node."""
SEARCHES_UNDER_WAY_MAX: Final = 32
"""So many questions wait for their next slice, each with what it has found so far."""
STALE_NS: Final = 2 * NS_PER_S
"""A question that was left for so long, since the process stood still, begins again: what it has found is not true."""
WAITERS_FEW: Final = 2_000
"""So many waiters are looked at for each question about locks with waiters; if there are more, all locks are."""
SEARCH_SHOWN_MAX: Final = 8
"""Holders and waiters of each lock in an answer; the others are counted."""

_SORTING_PAUSE_NS: Final = 20 * NS_PER_MS
"""Between two turns that sort names in advance: some hundredths of the time go into it, and a million take seconds."""

_FEW_NAMES_DIVISOR: Final = 4
"""A text is looked for in all names of a slot at once, unless so small a part of them is wanted."""
UNCOUNTED: Final = -1
"""How many locks are wanted, where a count would take a look at each."""

_EFFORT_PER_SLOT: Final = 128
"""A slot's objects and the names that a bound is compared with are not in the cache of the processor."""
_EFFORT_OF_PASSING: Final = 40
"""Fewer of them are looked at where a slot is passed by."""
_EFFORT_OF_NAME: Final = 1
"""A look at a name where it stands, which is not in the cache of the processor."""
_EFFORT_OF_FIND: Final = 4
_EFFORT_OF_RIGHTS: Final = 5
_EFFORT_OF_ENTRY: Final = 3
_EFFORT_OF_OWNER: Final = 3
_EFFORT_OF_RECORD: Final = 40
"""Of a name that is among the first so far: each is described, unless others of the same slice come before it."""


class Searches:
    """The searches at one node.

    Attributes:
        index: the names that are sorted already.
        sorting: when to go on with the names of many new locks, before the next tick.
        under_way: the questions that wait for their next slice, in turn.
    """

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        grants: NodeGrants,
        groups: Groups,
        *,
        guard: AccessGuard,
    ) -> None:
        self.index = NameIndex()
        self.sorting: DeadlineQueue[None] = DeadlineQueue(lambda _, __: True, context.outbox.wake)
        self.under_way: deque[_Question] = deque()
        self._context = context
        self._clients = clients
        self._grants = grants
        self._groups = groups
        self._guard = guard

    def keep_names(self, now_ns: int) -> None:
        """Sort some names in advance. Where that took most of the time, go on soon: a search would sort the rest."""
        if self.index.keep_up(self._context.slots) and not self.sorting:
            self.sorting.push(now_ns + _SORTING_PAUSE_NS, None)

    def on_timer(self, now_ns: int) -> None:
        """Go on with names, if it is time, and with one question."""
        while self.sorting.pop_due(now_ns) is not None:
            self.keep_names(now_ns)
        if self.under_way:
            question = self.under_way.popleft()
            if question.connection not in self._clients.by_connection:
                return
            if now_ns > question.looked_ns + STALE_NS:
                question.begin(self._waited_for(question))
            self._go_on(question, now_ns)

    def answer(
        self,
        connection: ConnectionId,
        message: List,
        search: LockSearch,
        *,
        access: Grantee | None,
        readable: NameTable | None,
        now_ns: int,
    ) -> None:
        """Answer with the first locks in the next slots that are wanted, and say where to go on.

        Args:
            connection: where to answer.
            message: the question.
            search: which locks are wanted.
            access: the rights of the identity that asks, None where none are looked at.
            readable: which names it may see, None for all.
            now_ns: the time.

        Raises:
            InvalidRequest: the question has no valid limit or mode.
        """
        if message.limit > SEARCH_LIMIT_MAX:
            raise InvalidRequest(f"a search finds 1 to {SEARCH_LIMIT_MAX} locks, not {message.limit}")
        if not -1 <= search.mode <= max(Mode):
            raise InvalidRequest(f"there is no mode {search.mode}")
        question = _Question(connection, message, search, access, readable)
        question.begin(self._waited_for(question))
        if self.under_way and len(self.under_way) < SEARCHES_UNDER_WAY_MAX:
            self._put_off(question, now_ns)
        else:
            self._go_on(question, now_ns)

    def _waited_for(self, question: _Question) -> _WaitedFor:
        return _WaitedFor(self._clients, self._grants.waiters if question.search.has_waiters else 0)

    def _put_off(self, question: _Question, now_ns: int) -> None:
        question.looked_ns = now_ns
        self.under_way.append(question)
        self._context.outbox.wake(now_ns)

    def _go_on(self, question: _Question, now_ns: int) -> None:
        """Look through some more slots, and answer if that was all of them, or much."""
        context, wanted = self._context, question.wanted
        serves_all = context.rights.may_serve_everything(now_ns)
        enough = wanted.effort + SEARCH_SLICE_EFFORT
        number = -1
        for number in all_slots()[question.next_slot :]:
            if wanted.effort >= enough:
                break
            slot = context.slots.get(number)
            if slot is None or not (
                (serves_all and slot.reign is not None) or context.rights.may_serve(number, now_ns=now_ns)
            ):
                question.unserved += context.state.slots[number].primary == context.replica
                wanted.effort += 1
            elif slot.table.locks:
                wanted.look_in(slot, self.index, question.waiting)
        else:
            number = -1
        question.next_slot = SlotNumber(number)
        self._describe(question, now_ns)
        if number < 0 or wanted.effort >= SEARCH_EFFORT_MAX or len(self.under_way) >= SEARCHES_UNDER_WAY_MAX:
            context.outbox.send(question.connection, question.reply())
        else:
            self._put_off(question, now_ns)

    def _describe(self, question: _Question, now_ns: int) -> None:
        """Describe the locks that are among the first since this slice, and drop those that are not any more."""
        context, wanted, known = self._context, question.wanted, question.found
        wanted.narrow()
        question.found = {}
        for name, number in wanted.slots.items():
            found = known.get(name)
            if found is None:
                table = context.slots[number].table
                record = table.describe(name, context.replica.node, now_ns, most=SEARCH_SHOWN_MAX)
                record.view = self._groups.view_of(name)
                lock = table.locks[name]
                count = len(lock.holders), len(lock.waiters or ())
                found = self._guard.shown(record, question.access), count
            question.found[name] = found


class _Question:
    """A question that is worked at.

    Attributes:
        connection: where to answer.
        search: which locks are wanted.
        access: the rights of the identity that asks, None where none are looked at.
        wanted: the names that were found so far.
        found: what these locks were like, and how many holders and waiters each had.
        waiting: the locks with waiters when it began, as far as they are known.
        next_slot: the next slot to look through; -1 if there is no other one.
        unserved: how many slots this node has and does not serve.
        looked_ns: when it had its last slice, or came.
    """

    __slots__ = (
        "_message",
        "_readable",
        "access",
        "connection",
        "found",
        "looked_ns",
        "next_slot",
        "search",
        "unserved",
        "waiting",
        "wanted",
    )

    def __init__(
        self,
        connection: ConnectionId,
        message: List,
        search: LockSearch,
        access: Grantee | None,
        readable: NameTable | None,
    ) -> None:
        self.connection = connection
        self.search = search
        self.access = access
        self.looked_ns = 0
        self._message = message
        self._readable = readable

    def begin(self, waiting: _WaitedFor) -> None:
        """Begin with the first slot, with nothing found."""
        message = self._message
        self.wanted = _Matches(message.prefix, self.search, self._readable, message.limit)
        self.found: dict[LockName, tuple[LockRecord, tuple[int, int]]] = {}
        self.waiting = waiting
        self.next_slot = message.from_slot
        self.unserved = 0

    def reply(self) -> ListReply:
        """Return the answer."""
        found = [self.found[name] for name in sorted(self.found)]
        return ListReply(
            self._message.request,
            [record for record, _ in found],
            self.next_slot,
            "",
            self.unserved,
            counts=[count for _, count in found],
            matched=self.wanted.matched,
        )


class _Matches:
    """The names that are wanted, while slots are looked through.

    Attributes:
        effort: what was done so far, in comparisons of a name.
        matched: how many locks are wanted, whatever bounds their names have; `UNCOUNTED` if that is not known.
        slots: the slot of each name that may be among the first.
    """

    def __init__(self, prefix: str, search: LockSearch, readable: NameTable | None, limit: int) -> None:
        self.effort = 0
        self.matched = 0
        self.slots: dict[LockName, SlotNumber] = {}
        self._prefix = prefix
        self._search = search
        self._owner = search.owner.lower()
        self._readable = readable
        self._limit = limit
        self._before = search.before
        self._is_counted = search.is_counted
        # A slot's first name tells that none there is wanted, once there is a bound.
        self._is_by_order = not (
            prefix
            or search.text
            or readable is not None
            or search.owner
            or search.has_waiters
            or search.mode >= 0
        )
        # Entries are looked at last, and only where the name may be among the first.
        self._by_entry = search.is_held or search.has_waiters or search.mode >= 0 or bool(search.owner)

    def look_in(self, slot: NodeSlot, index: NameIndex, waiting: _WaitedFor) -> None:
        """Look through a slot's locks.

        Args:
            slot: has them.
            index: the names in order, where it is by names that they are found.
            waiting: the locks with waiters, as far as they are known.
        """
        search, table = self._search, slot.table
        if self._is_by_order and self._before:
            first = index.first_name(slot)
            if first is not None and first >= self._before:
                self.effort += _EFFORT_OF_PASSING
                self._count(UNCOUNTED if search.is_held else len(table.locks))
                return
        if search.mode > 0 and not table.many[MODES + search.mode]:
            self.effort += _EFFORT_OF_PASSING
            return
        self.effort += _EFFORT_PER_SLOT
        if self.matched > COUNTED_MAX:
            self._is_counted = False
        few = waiting.few_in(table) if search.has_waiters else None
        # Without a bound, rare locks are found faster than names are looked at; with one, few names are left.
        if self._owner and (self._is_counted or not self._before):
            self._add_counted(table, self._names_of_owner(table))
        elif few is not None:
            self._add_counted(table, self._of_owner(table, few))
        elif search.mode >= 0 and not (self._before or self._prefix):
            self._add(table, self._with_entries(table, self._of_owner(table, self._named_by_mode(table))))
        else:
            names, effort = index.bring(slot)
            self.effort += effort
            self._add(table, self._with_entries(table, self._of_owner(table, self._named(table, names))))

    # ------------------------------------------------------------------ the ways to look

    def _named(self, table: LockTable, sorted_names: SlotNames) -> list[LockName]:
        """Pick the names of live locks within the bounds, out of all in order, and count those that are wanted."""
        locks, prefix, end = table.locks, self._prefix, end_of_prefix(self._prefix)
        names, text = sorted_names.names, self._search.text
        low = bisect_left(names, prefix) if prefix else 0
        high = len(names) if end is None else bisect_left(names, end)
        if self._takes_looks:
            if not self._is_counted:
                low, high = self._bounded(names, low, high)
            if not text or (high - low) * _FEW_NAMES_DIVISOR <= len(names):
                return self._looked_at(table, names[low:high])
            found, effort = sorted_names.with_text(text)
            self.effort += effort
            return self._looked_at(
                table, [name for name in found if name.startswith(prefix)] if prefix else found
            )
        if self._by_entry:
            self._count(UNCOUNTED)
        elif len(names) == len(locks):
            self._count(high - low)
        elif not prefix:
            self._count(len(locks))
        else:
            self.effort += high - low
            self._count(len([name for name in names[low:high] if name in locks]))
        low, high = self._bounded(names, low, high)
        self.effort += high - low
        return [name for name in names[low:high] if name in locks]

    def _named_by_mode(self, table: LockTable) -> list[LockName]:
        """Pick the names within the bounds whose locks have the mode, by a look at each lock."""
        self.effort += _EFFORT_OF_NAME * len(table.locks)
        mode = self._search.mode
        locks = table.locks.values()
        names = self._within([lock.name for lock in locks if lock.mode == mode and lock.held is not None])
        if self._takes_looks:
            return self._looked_at(table, names)
        self._count(UNCOUNTED)
        return names

    def _looked_at(self, table: LockTable, names: list[LockName]) -> list[LockName]:
        """Pick the names within the bounds that a look at each finds wanted, and count those whatever bounds."""
        effort = _EFFORT_OF_FIND if self._search.text and self._text_from else 1
        self.effort += len(names) * (effort + _EFFORT_OF_RIGHTS * (self._readable is not None))
        locks = table.locks
        found = [name for name in self._readable_with_text(names) if name in locks]
        self._count(len(found) if self._is_counted and not self._by_entry else UNCOUNTED)
        return self._within(found)

    def _names_of_owner(self, table: LockTable) -> list[LockName]:
        """Pick the names of the locks that clients with such a label hold or wait for."""
        owner = self._owner
        self.effort += _EFFORT_OF_OWNER * len(table.shares)
        found: list[LockName] = []
        for share in table.shares.values():
            if owner in share.session.owner.lower():
                found += [entry.lock.name for entry in share.entries.values()]
        return list(dict.fromkeys(found))

    # ------------------------------------------------------------------ inner

    @property
    def _text_from(self) -> int:
        return text_searched_from(self._prefix)

    @property
    def _takes_looks(self) -> bool:
        """Whether the order of names does not tell which are wanted."""
        return bool(self._search.text) or self._readable is not None

    def _readable_with_text(self, names: list[LockName]) -> list[LockName]:
        if self._search.text:
            text, start = self._search.text, self._text_from
            if start:
                names = [name for name in names if name.find(text, start) >= 0]
            else:  # the operator is several times as fast as the method
                names = [name for name in names if text in name]
        if self._readable is not None:
            readable = self._readable
            names = [name for name in names if readable.allows(name)]
        return names

    def _with_entries(self, table: LockTable, names: list[LockName]) -> list[LockName]:
        """Pick the names of the locks that are held and waited for as is wanted."""
        search, locks = self._search, table.locks
        if search.has_waiters:
            self.effort += _EFFORT_OF_ENTRY * len(names)
            names = [name for name in names if locks[name].waiters]
        if search.is_held:
            self.effort += _EFFORT_OF_ENTRY * len(names)
            names = [name for name in names if locks[name].held is not None]
        if search.mode >= 0:
            self.effort += _EFFORT_OF_ENTRY * len(names)
            mode = search.mode
            names = [name for name in names if locks[name].mode == mode and locks[name].held is not None]
        return names

    def _of_owner(self, table: LockTable, names: list[LockName]) -> list[LockName]:
        """Pick the names of the locks that clients with such a label hold or wait for, by a look at each."""
        owner, locks = self._owner, table.locks
        if not owner:
            return names
        self.effort += _EFFORT_OF_OWNER * len(names)
        return [
            name
            for name in names
            if any(owner in each.session.owner.lower() for each in locks[name].holders)
            or any(owner in each.session.owner.lower() for each in locks[name].waiters or ())
        ]

    def _bounded(self, names: list[LockName], low: int, high: int) -> tuple[int, int]:
        """Narrow a range of sorted names to those that are behind the one bound and before the other."""
        after, before = self._search.after, self._before
        if low < high and before and names[low] >= before:  # so it is in most slots, once there is a bound
            return low, low
        if after:
            low = max(low, bisect_right(names, after))
        if before:
            high = min(high, bisect_left(names, before))
        return low, max(low, high)

    def _within(self, names: list[LockName]) -> list[LockName]:
        after, before = self._search.after, self._before
        if before:
            return [name for name in names if after < name < before]
        return [name for name in names if name > after] if after else names

    def _count(self, found: int) -> None:
        if found == UNCOUNTED:
            self.matched = UNCOUNTED
        elif self.matched != UNCOUNTED:
            self.matched += found

    def _add_counted(self, table: LockTable, names: list[LockName]) -> None:
        """Count those of these names that are wanted, and add the ones within the bounds."""
        self.effort += len(names)
        prefix = self._prefix
        if prefix:
            names = [name for name in names if name.startswith(prefix)]
        names = self._readable_with_text(names)
        names = self._with_entries(table, names)
        self._count(len(names))
        self._add(table, self._within(names))

    def _add(self, table: LockTable, names: list[LockName]) -> None:
        self.effort += _EFFORT_OF_RECORD * len(names)
        for name in names:
            self.slots[name] = table.slot
        if len(self.slots) > 2 * self._limit:
            self.narrow()

    def narrow(self) -> None:
        """Keep as many names as are asked for, the first ones."""
        if len(self.slots) >= self._limit:
            kept = sorted(self.slots)[: self._limit]
            self.slots = {name: self.slots[name] for name in kept}
            self._before = kept[-1]  # a name in another slot is another name


class _WaitedFor:
    """The locks with waiters, by slot, if the waiters are few: they are found without a look at all locks."""

    def __init__(self, clients: ConnectedClients, waiters: int) -> None:
        self._by_slot: dict[SlotNumber, dict[LockName, None]] | None = None
        if waiters <= WAITERS_FEW:
            self._by_slot = {}
            for client in clients.by_connection.values():
                for waiter in client.waiters:
                    name = waiter.lock.name
                    self._by_slot.setdefault(slot_of(name), {})[name] = None

    def few_in(self, table: LockTable) -> list[LockName] | None:
        """Return the names in a slot's table; None if the waiters are too many."""
        if self._by_slot is None:
            return None
        return [name for name in self._by_slot.get(table.slot, ()) if name in table.locks]
