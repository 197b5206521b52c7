"""Lists and searches: how they go on from page to page, and from member to member.

Each member that is the primary of some slot is asked, one after the other. The result is not a snapshot: where routes
change meanwhile it starts over, a few times at most.

A search takes the first names of each answer, and sets the last name that it may still need as a bound for the next
question. So a member sends little, however many locks it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from lockring.cluster_state import Replica
from lockring.ids import FIRST_SLOT, LockName, RequestNumber, Version
from lockring.names import text_searched_from
from lockring.protocol import COUNTED_MAX, List, ListReply, LockRecord, LockRecords, LockSearch
from lockring.slots import SLOTS

LIST_ROUNDS_MAX: Final = 3
"""How often a list starts over because the routes have changed. More would let a busy cluster keep it from ending."""
PAGE_LOCKS: Final = 1000
"""Locks on one page of a list: some hundred kilobytes, far below the longest frame."""
UNKNOWN: Final = -1
"""How many locks a search would find, where a count would take a look at each, or an older node does not count."""


class ListProgress:
    """How far a list is.

    Attributes:
        version: of the routes that this round follows, -1 before the first.
        rounds: how many have begun.
        todo: members still to be asked, the present one first.
        from_slot: where to go on at that member.
        after_name: likewise.
        locks: the locks found, by name.
        unserved: in how many slots no node could look.
    """

    __slots__ = ("after_name", "from_slot", "locks", "rounds", "todo", "unserved", "version")

    def __init__(self) -> None:
        self.version = Version(-1)
        self.rounds = 0
        self.todo: list[Replica] = []
        self.from_slot = FIRST_SLOT
        self.after_name = ""
        self.locks: dict[LockName, LockRecord] = {}
        self.unserved = 0

    @property
    def is_complete(self) -> bool:
        """Whether every member has been asked."""
        return bool(self.rounds) and not self.todo

    def begin(self, version: Version, primaries: Sequence[Replica], *, unserved: int) -> None:
        """Start a round over these members; what an earlier one found is found again."""
        self.version = version
        self.rounds += 1
        self.todo = list(primaries)
        self.locks = {}
        self.unserved = unserved
        self.from_slot, self.after_name = FIRST_SLOT, ""

    def start_over(self) -> None:
        """Forget all progress."""
        self.version, self.rounds, self.todo = Version(-1), 0, []

    def found_nothing_served(self) -> bool:
        """Return whether every member was asked, and no node could look in any slot."""
        return not self.todo and self.unserved >= SLOTS

    def message(self, request: RequestNumber, prefix: str) -> List:
        """Return the next question to the present member."""
        return List(request, prefix, self.from_slot, self.after_name, PAGE_LOCKS)

    def add_page(self, page: ListReply) -> None:
        """Take one page in, and move on."""
        for lock in page.locks:
            self.add(lock)
        self.move_on(page)

    def add(self, lock: LockRecord) -> bool:
        """Take a lock in, and return whether it is new, or in a later state than the one that is known."""
        known = self.locks.get(lock.name)
        # A lock may be found twice, at its former and its present primary: the later state counts.
        if known is not None and (lock.generation, lock.seq) < (known.generation, known.seq):
            return False
        self.locks[lock.name] = lock
        return True

    def move_on(self, page: ListReply) -> None:
        """Go on where a page says, or at the next member."""
        self.unserved += page.unserved
        if page.next_slot < 0:
            del self.todo[0]
            self.from_slot, self.after_name = FIRST_SLOT, ""
        else:
            self.from_slot, self.after_name = page.next_slot, page.next_name

    def result(self) -> LockRecords:
        """Return all locks found, by name."""
        return LockRecords([self.locks[name] for name in sorted(self.locks)], min(self.unserved, SLOTS))


class LocksFound(NamedTuple):
    """The result of a search.

    Attributes:
        locks: the first ones by name, each with its first holders and waiters.
        counts: how many holders and waiters each of them has.
        matched: how many locks the search would find in all, `UNKNOWN` where a node does not count them, or no more.
        has_more: whether there are more behind the last one.
        unserved_slots: in how many slots no node could look.
    """

    locks: list[LockRecord]
    counts: list[tuple[int, int]]
    matched: int
    has_more: bool
    unserved_slots: int


class FindProgress:
    """How far a search is.

    Attributes:
        search: which locks are wanted.
        limit: how many, the first ones by name.
        prefix: how their names start.
        progress: as that of a list.
        counts: how many holders and waiters each lock found has.
        matched: how many locks were wanted so far, `UNKNOWN` since a node has not counted them.
    """

    __slots__ = ("counts", "limit", "matched", "prefix", "progress", "search")

    def __init__(self, search: LockSearch, limit: int, prefix: str = "") -> None:
        self.search = search
        self.limit = limit
        self.prefix = prefix
        self.progress = ListProgress()
        self.counts: dict[LockName, tuple[int, int]] = {}
        self.matched = 0

    @property
    def version(self) -> Version:
        """See `ListProgress`."""
        return self.progress.version

    @property
    def rounds(self) -> int:
        """See `ListProgress`."""
        return self.progress.rounds

    @property
    def todo(self) -> list[Replica]:
        """See `ListProgress`."""
        return self.progress.todo

    @property
    def is_complete(self) -> bool:
        """See `ListProgress`."""
        return self.progress.is_complete

    def begin(self, version: Version, primaries: Sequence[Replica], *, unserved: int) -> None:
        """See `ListProgress`."""
        self.progress.begin(version, primaries, unserved=unserved)
        self.counts = {}
        self.matched = 0

    def start_over(self) -> None:
        """See `ListProgress`."""
        self.progress.start_over()

    def found_nothing_served(self) -> bool:
        """See `ListProgress`."""
        return self.progress.found_nothing_served()

    def message(self, request: RequestNumber, prefix: str) -> List:
        """See `ListProgress`. One more is asked for than is wanted, which says whether there are more."""
        search = self.search
        if len(self.progress.locks) > self.limit:
            search = msgspec.structs.replace(search, before=max(self.progress.locks))
        if not UNKNOWN < self.matched <= COUNTED_MAX:
            search = msgspec.structs.replace(search, is_counted=False)
        return List(
            request, prefix, self.progress.from_slot, self.progress.after_name, self.limit + 1, search=search
        )

    def add_page(self, page: ListReply) -> None:
        """See `ListProgress`."""
        if page.counts is None:
            self._add_whole_page(page)
        else:
            if page.matched == UNKNOWN:
                self.matched = UNKNOWN
            elif self.matched != UNKNOWN:
                self.matched += page.matched
            for lock, counts in zip(page.locks, page.counts, strict=False):
                if self.progress.add(lock):
                    self.counts[lock.name] = counts
        self.progress.move_on(page)
        locks = self.progress.locks
        if len(locks) > self.limit + 1:
            names = sorted(locks)[: self.limit + 1]
            self.progress.locks = {name: locks[name] for name in names}
            self.counts = {name: self.counts[name] for name in names}

    def _add_whole_page(self, page: ListReply) -> None:
        """Take in a page of a node that knows no searches, and has listed all locks."""
        self.matched = UNKNOWN
        for lock in page.locks:
            if is_wanted(lock, self.search, self.prefix) and self.progress.add(lock):
                self.counts[lock.name] = len(lock.holders), len(lock.waiters)

    def result(self) -> LocksFound:
        """Return the first locks found, by name."""
        names = sorted(self.progress.locks)
        shown = names[: self.limit]
        return LocksFound(
            locks=[self.progress.locks[name] for name in shown],
            counts=[self.counts[name] for name in shown],
            matched=self.matched,
            has_more=len(names) > len(shown),
            unserved_slots=min(self.progress.unserved, SLOTS),
        )


Listing = ListProgress | FindProgress
"""The progress of a query that many pages answer."""


def is_wanted(lock: LockRecord, search: LockSearch, prefix: str = "") -> bool:
    """Return whether a search among names with this prefix would find a lock that has one of them."""
    owner = search.owner.lower()
    return (
        lock.name > search.after
        and (not search.before or lock.name < search.before)
        and lock.name.find(search.text, text_searched_from(prefix)) >= 0
        and (
            not owner
            or any(owner in each.owner.lower() for each in lock.holders)
            or any(owner in each.owner.lower() for each in lock.waiters)
        )
        and (search.mode < 0 or (search.mode == lock.mode and bool(lock.holders)))
        and not (search.is_held and not lock.holders)
        and not (search.has_waiters and not lock.waiters)
    )
