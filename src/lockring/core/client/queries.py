"""Everything that a client asks besides acquiring and releasing: describe, list, watch, break, state, drain, follow.

All of it may be repeated: a question changes nothing, and an order names its object (a generation, a node), so a second
one finds the work done. Queries are therefore sent again over any failure until they are answered or out of time.

A list asks each member that is the primary of some slot, one after the other, page by page. It is not a snapshot: where
routes change meanwhile it starts over, a few times at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.group_view import GroupSubscription
from lockring.core.client.listeners import MemberReference
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import Generation, NodeId, RequestNumber, SlotNumber, Version
from lockring.protocol import (
    Break,
    BreakReply,
    Describe,
    DescribeGroup,
    DescribeReply,
    Drain,
    DrainReply,
    FollowGroup,
    GetState,
    List,
    ListReply,
    LockRecord,
    LockRecords,
    Message,
    StateReply,
    Undrain,
    UndrainReply,
    View,
    Watch,
)
from lockring.slots import SLOTS, slot_of

ANYWHERE: Final = SlotNumber(-1)
"""The slot of a query that any server answers."""
LIST_ROUNDS_MAX: Final = 3
"""How often a list starts over because the routes have changed. More would let a busy cluster keep it from ending."""
PAGE_LOCKS: Final = 1000
"""Locks on one page of a list: some hundred kilobytes, far below the longest frame."""


class QueryKind(Enum):
    """The questions and orders there are."""

    DESCRIBE = "describe"
    LIST = "list"
    WATCH = "watch"
    BREAK = "break"
    STATE = "state"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    LOOK = "look"
    FOLLOW = "follow"


STREAMS: Final = frozenset({QueryKind.WATCH, QueryKind.FOLLOW})
"""Queries that are answered again and again, until they are abandoned."""


REPLIES: Final[dict[QueryKind, type[Message]]] = {
    QueryKind.DESCRIBE: DescribeReply,
    QueryKind.LIST: ListReply,
    QueryKind.BREAK: BreakReply,
    QueryKind.STATE: StateReply,
    QueryKind.DRAIN: DrainReply,
    QueryKind.UNDRAIN: UndrainReply,
    QueryKind.LOOK: View,
}
"""Which message answers which kind. A watch gets any number of `WatchNotice`, a subscription `View` and
`SettlementNotice`."""


class Query(msgspec.Struct, eq=False):
    """One question or order, from the call to its answer. Shells read it; only the core changes it.

    Attributes:
        kind: what is asked.
        name: the lock, prefix or node in question, "" where there is none.
        slot: the slot whose primary is asked, `ANYWHERE` for others.
        started_at_ns: when the caller asked.
        give_up_at_ns: when the core stops trying, `DISTANT_FUTURE_NS` for never.
        generation: of a break, the lease to end.
        force: of a break, whether at once.
        done: whether the caller has its answer, or has given up.
        link: number of the link on which it is open, 0 if it is not.
        request: number under which it is open there.
        retry_at_ns: when to try again after a refusal, 0 if no refusal pauses it.
        attempts: refusals in a row.
        refusal: the last refusal's code and text.
        listing: of a list, its progress.
        seen: of a watch, the lock as it was last reported.
        restarted: of a watch, whether it has been sent since then.
        subscription: of a follow, what the member knows of its group.
        call: the shell's: the call that waits for the answer, or reads the watch. Its type is the shell's own.
        member: the shell's: refers to the member that hears of changes in its group.
    """

    kind: QueryKind
    name: str
    slot: SlotNumber
    started_at_ns: int
    give_up_at_ns: int = DISTANT_FUTURE_NS
    generation: Generation = Generation(0)
    force: bool = False
    done: bool = False
    link: int = 0
    request: RequestNumber = RequestNumber(0)
    retry_at_ns: int = 0
    attempts: int = 0
    refusal: tuple[str, str] | None = None
    listing: ListProgress | None = None
    seen: LockRecord | None = None
    restarted: bool = False
    subscription: GroupSubscription | None = None
    call: Any = None
    member: MemberReference | None = None

    def message(self, request: RequestNumber, version: Version) -> Message:
        """Return the message that asks it.

        Args:
            request: its number.
            version: of the client's routes.
        """
        match self.kind:
            case QueryKind.DESCRIBE:
                return Describe(request, self.name, version)
            case QueryKind.WATCH:
                return Watch(request, self.name, version)
            case QueryKind.BREAK:
                return Break(request, self.name, self.generation, self.force, version)
            case QueryKind.STATE:
                return GetState(request)
            case QueryKind.DRAIN:
                return Drain(request, NodeId(self.name))
            case QueryKind.UNDRAIN:
                return Undrain(request, NodeId(self.name))
            case QueryKind.LOOK:
                return DescribeGroup(request, self.name, version)
            case QueryKind.FOLLOW:
                assert self.subscription is not None
                ticket = self.subscription.ticket
                return FollowGroup(
                    request,
                    name=self.name,
                    session=ticket.session.id,
                    acquisition=ticket.acquisition,
                    view=self.subscription.seen,
                    version=version,
                )
            case QueryKind.LIST:
                assert self.listing is not None
                return List(request, self.name, self.listing.from_slot, self.listing.after_name, PAGE_LOCKS)


def query_about_lock(
    kind: QueryKind, name: str, now_ns: int, give_up_at_ns: int = DISTANT_FUTURE_NS
) -> Query:
    """Return a query that the primary of a lock answers."""
    return Query(kind, name, slot_of(name), now_ns, give_up_at_ns)


def query_anywhere(kind: QueryKind, name: str, now_ns: int, give_up_at_ns: int) -> Query:
    """Return a query that any server answers."""
    return Query(kind, name, ANYWHERE, now_ns, give_up_at_ns)


class ListProgress(msgspec.Struct, eq=False):
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

    version: Version = Version(-1)
    rounds: int = 0
    todo: list[Replica] = []
    from_slot: int = 0
    after_name: str = ""
    locks: dict[str, LockRecord] = {}
    unserved: int = 0

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
        self.from_slot, self.after_name = 0, ""

    def start_over(self) -> None:
        """Forget all progress."""
        self.version, self.rounds, self.todo = Version(-1), 0, []

    def found_nothing_served(self) -> bool:
        """Return whether every member was asked, and no node could look in any slot."""
        return not self.todo and self.unserved >= SLOTS

    def add_page(self, page: ListReply) -> None:
        """Take one page in, and move on."""
        self.unserved += page.unserved
        for lock in page.locks:
            known = self.locks.get(lock.name)
            # A lock may be found twice, at its former and its present primary: the later state counts.
            if known is None or (lock.generation, lock.seq) >= (known.generation, known.seq):
                self.locks[lock.name] = lock
        if page.next_slot < 0:
            del self.todo[0]
            self.from_slot, self.after_name = 0, ""
        else:
            self.from_slot, self.after_name = page.next_slot, page.next_name

    def result(self) -> LockRecords:
        """Return all locks found, by name."""
        return LockRecords([self.locks[name] for name in sorted(self.locks)], min(self.unserved, SLOTS))
