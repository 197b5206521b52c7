"""Everything that a client asks besides acquiring and releasing: describe, list, watch, break, state, drain, follow.

All of it may be repeated: a question changes nothing, and an order names its object (a generation, a node), so a second
one finds the work done. Queries are therefore sent again over any failure until they are answered or out of time.

A list asks each member that is the primary of some slot, one after the other, page by page. It is not a snapshot: where
routes change meanwhile it starts over, a few times at most.

A client that acts for others also asks on their behalf: it renews or releases an acquisition that it need not have
made, and reads a single page of one member. Each acquisition there is the only one of its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.exchanges import QueryExchange
from lockring.core.client.group_view import GroupSubscription
from lockring.core.client.listeners import MemberReference
from lockring.core.digest import mix
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import (
    FIRST_SLOT,
    AcquisitionNumber,
    Generation,
    LockName,
    NodeId,
    RequestNumber,
    SessionId,
    SlotNumber,
    Version,
)
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
    Keepalive,
    KeepaliveReply,
    List,
    ListedAcquisition,
    ListReply,
    LockRecord,
    LockRecords,
    Message,
    Release,
    ReleaseReply,
    SlotList,
    StateReply,
    Undrain,
    UndrainReply,
    View,
    Watch,
)
from lockring.protocol.identities import Identity
from lockring.slots import SLOTS, slot_of

ANYWHERE: Final = SlotNumber(-1)
"""The slot of a query that any server answers."""
ONLY_ACQUISITION: Final = AcquisitionNumber(1)
"""The number of the acquisition in a session that has no other."""
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
    PAGE = "page"
    RENEW = "renew"
    RELEASE = "release"


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
    QueryKind.PAGE: ListReply,
    QueryKind.RENEW: KeepaliveReply,
    QueryKind.RELEASE: ReleaseReply,
}
"""Which message answers which kind. A watch gets any number of `WatchNotice`, a subscription `View` and
`SettlementNotice`."""


class PageRequest(msgspec.Struct, frozen=True):
    """One page of one member's locks.

    Attributes:
        replica: the member.
        from_slot: where the page begins.
        after_name: after which name in that slot.
        limit: how many locks it has at most.
    """

    replica: Replica
    from_slot: SlotNumber
    after_name: str
    limit: int


class BreakOrder(msgspec.Struct, frozen=True):
    """Which holder's lease a break ends, by its generation, and whether at once."""

    generation: Generation
    force: bool


class OrderOnBehalf(msgspec.Struct, frozen=True):
    """The session on whose only acquisition a query acts, and the lease to renew, 0 if it releases."""

    session: SessionId
    ttl_ms: int = 0


class Query(msgspec.Struct, eq=False):
    """One question or order, from the call to its answer. Shells read it; only the core changes it.

    Attributes:
        kind: what is asked.
        name: the lock, prefix or node in question, "" where there is none.
        slot: the slot whose primary is asked, `ANYWHERE` for others.
        exchange: the call, and what is open with a server.
        detail: of a break, a page, a renewal or a release, what else its message says.
        done: whether the caller has its answer, or has given up.
        listing: of a list, its progress.
        seen: of a watch, the lock as it was last reported.
        restarted: of a watch, whether it has been sent since then.
        subscription: of a follow, what the member knows of its group.
        member: the shell's: refers to the member that hears of changes in its group.
        asker: the identity on whose behalf it is asked, None for the client's own.
    """

    kind: QueryKind
    name: str
    slot: SlotNumber
    exchange: QueryExchange
    detail: BreakOrder | OrderOnBehalf | PageRequest | None = None
    done: bool = False
    listing: ListProgress | None = None
    seen: LockRecord | None = None
    restarted: bool = False
    subscription: GroupSubscription | None = None
    member: MemberReference | None = None
    asker: Identity | None = None

    @property
    def page(self) -> PageRequest | None:
        """The page that is asked for, None if that is not the question."""
        return self.detail if isinstance(self.detail, PageRequest) else None

    def message(self, request: RequestNumber, version: Version) -> Message:
        """Return the message that asks it.

        Args:
            request: its number.
            version: of the client's routes.
        """
        name = LockName(self.name)  # if the question is about a lock
        match self.kind:
            case QueryKind.DESCRIBE:
                return Describe(request, name, version)
            case QueryKind.WATCH:
                return Watch(request, name, version)
            case QueryKind.BREAK:
                assert isinstance(self.detail, BreakOrder)
                return Break(request, name, self.detail.generation, self.detail.force, version)
            case QueryKind.STATE:
                return GetState(request)
            case QueryKind.DRAIN:
                return Drain(request, NodeId(self.name))
            case QueryKind.UNDRAIN:
                return Undrain(request, NodeId(self.name))
            case QueryKind.LOOK:
                return DescribeGroup(request, name, version)
            case QueryKind.FOLLOW:
                assert self.subscription is not None
                ticket = self.subscription.ticket
                return FollowGroup(
                    request,
                    name=name,
                    session=ticket.session.id,
                    acquisition=ticket.acquisition,
                    view=self.subscription.seen,
                    version=version,
                )
            case QueryKind.RENEW:
                return self._renewal(request, version)
            case QueryKind.RELEASE:
                assert isinstance(self.detail, OrderOnBehalf)
                return Release(request, self.detail.session, ONLY_ACQUISITION, name, version)
            case QueryKind.PAGE:
                assert isinstance(self.detail, PageRequest)
                page = self.detail
                return List(request, self.name, page.from_slot, page.after_name, page.limit)
            case QueryKind.LIST:
                assert self.listing is not None
                return List(request, self.name, self.listing.from_slot, self.listing.after_name, PAGE_LOCKS)

    def _renewal(self, request: RequestNumber, version: Version) -> Message:
        assert isinstance(self.detail, OrderOnBehalf)
        return Keepalive(
            request,
            session=self.detail.session,
            ttl_ms=self.detail.ttl_ms,
            owner="",
            through=ONLY_ACQUISITION,
            count=1,
            digest=mix(ONLY_ACQUISITION),
            slots=[],
            listed=[SlotList(self.slot, [ListedAcquisition(ONLY_ACQUISITION, LockName(self.name))])],
            version=version,
        )


def query_about_lock(
    kind: QueryKind,
    name: LockName,
    now_ns: int,
    give_up_at_ns: int = DISTANT_FUTURE_NS,
    *,
    detail: BreakOrder | OrderOnBehalf | None = None,
) -> Query:
    """Return a query that the primary of a lock answers."""
    return Query(kind, name, slot_of(name), QueryExchange(now_ns, give_up_at_ns), detail)


def query_anywhere(
    kind: QueryKind, name: str, now_ns: int, give_up_at_ns: int, *, page: PageRequest | None = None
) -> Query:
    """Return a query that any server answers, or for a page the member that has it."""
    return Query(kind, name, ANYWHERE, QueryExchange(now_ns, give_up_at_ns), page)


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
    from_slot: SlotNumber = FIRST_SLOT
    after_name: str = ""
    locks: dict[LockName, LockRecord] = {}
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
        self.from_slot, self.after_name = FIRST_SLOT, ""

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
            self.from_slot, self.after_name = FIRST_SLOT, ""
        else:
            self.from_slot, self.after_name = page.next_slot, page.next_name

    def result(self) -> LockRecords:
        """Return all locks found, by name."""
        return LockRecords([self.locks[name] for name in sorted(self.locks)], min(self.unserved, SLOTS))
